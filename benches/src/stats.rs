//! Medians and percentiles.

/// The value in the middle; of an even number the mean of the two. 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (len, middle) if len % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// How long things took, in nanoseconds; what took over 4 s counts as that.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// Notes one.
    pub fn note(&mut self, took: std::time::Duration) {
        self.0.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Takes those of another in.
    pub fn join(&mut self, other: &Latencies) {
        self.0.extend_from_slice(&other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest that is not exceeded by this part (0 to 1) of all, in microseconds: the nearest rank. 0 of none.
    pub fn percentile_us(&self, part: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let rank = (part * self.0.len() as f64).ceil().max(1.0) as usize;
        let mut values = self.0.clone();
        let (_, value, _) = values.select_nth_unstable(rank.min(self.0.len()) - 1);
        f64::from(*value) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_median_is_in_the_middle_of_the_sorted_values() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile_us(0.5), 0.0);
        for us in (1..=100).rev() {
            latencies.note(Duration::from_micros(us));
        }
        assert_eq!(latencies.percentile_us(0.5), 50.0);
        assert_eq!(latencies.percentile_us(0.99), 99.0);
        assert_eq!(latencies.percentile_us(1.0), 100.0);
        assert_eq!(latencies.percentile_us(0.0), 1.0);
    }

    #[test]
    fn one_slow_sender_of_a_hundred_is_not_hidden_by_joining() {
        let (mut all, mut slow) = (Latencies::default(), Latencies::default());
        (0..98).for_each(|_| all.note(Duration::from_micros(10)));
        (0..2).for_each(|_| slow.note(Duration::from_secs(7)));
        all.join(&slow);
        assert_eq!(all.len(), 100);
        assert_eq!(all.percentile_us(0.98), 10.0);
        assert_eq!(all.percentile_us(0.99), f64::from(u32::MAX) / 1e3, "more than 4 s is 4 s");
    }
}
