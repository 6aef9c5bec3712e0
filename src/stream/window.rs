//! Which windows there are, and which of them an event is in: pure functions of its time.
//!
//! # Invariants
//! - A window is open at its end: an event at the end is in the next one.
//! - Tumbling and sliding windows lie at multiples of their slide since 1970-01-01, whatever came first.

use std::time::Duration;

use super::error::StageError;
use super::time::millis;

/// The most sliding windows that one event may be in.
const WINDOWS: u64 = 1024;
/// The longest time that makes sense, in milliseconds.
const CENTURY: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

/// Windows of one size, each of which an event is in by its time.
///
/// ```
/// use std::time::Duration;
/// use steadfast::Window;
///
/// const HOUR: Duration = Duration::from_secs(3600);
/// let hourly = Window::tumbling(HOUR); // 0:00 to 1:00, 1:00 to 2:00, ..
/// let last_day = Window::sliding(24 * HOUR, HOUR); // 0:00 to 24:00, 1:00 to 25:00, ..
/// # let _ = (hourly, last_day);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    size: Duration,
    slide: Duration,
}

impl Window {
    /// One after the other: each event is in one.
    pub const fn tumbling(size: Duration) -> Self {
        Window { size, slide: size }
    }

    /// One begins every `slide`: each event is in `size / slide` of them.
    pub const fn sliding(size: Duration, slide: Duration) -> Self {
        Window { size, slide }
    }

    pub(super) fn check(self, stage: &str) -> Result<Spans, StageError> {
        let Window { size, slide } = self;
        let size_ms = check_time(stage, "a size", size)?;
        let slide_ms = check_time(stage, "a slide", slide)?;
        let stage = stage.to_owned();
        if slide_ms > size_ms {
            return Err(StageError::Slide { stage, size, slide });
        }
        let windows = size_ms.div_ceil(slide_ms);
        if windows > WINDOWS {
            return Err(StageError::TooManyWindows { stage, windows: windows.into(), limit: WINDOWS });
        }
        Ok(Spans { size: size_ms, slide: slide_ms })
    }

    pub(super) fn describe(self) -> String {
        let Window { size, slide } = self;
        format!("windows of {} ms every {} ms", millis(size), millis(slide))
    }
}

pub(super) fn check_time(stage: &str, what: &'static str, time: Duration) -> Result<u64, StageError> {
    let ms = millis(time);
    let possible = (1..CENTURY).contains(&ms) || cfg!(steadfast_bug = "build_an_impossible_window");
    possible.then_some(ms).ok_or_else(|| StageError::Window { stage: stage.to_owned(), what, time })
}

/// Windows that are possible, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    size: u64,
    slide: u64,
}

impl Spans {
    /// The windows an event at `at` is in, the earliest first: where each begins and ends.
    pub(super) fn of(self, at: u64) -> impl Iterator<Item = (u64, u64)> {
        let Spans { size, slide } = self;
        let last = at - at % slide;
        let back = (size - 1) / slide;
        let starts = (0..=back).rev().filter_map(move |by| last.checked_sub(by * slide));
        starts.map(move |start| (start, start.saturating_add(size))).filter(move |(_, end)| *end > at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: u64, slide: u64, at: u64) -> Vec<(u64, u64)> {
        let window = Window::sliding(Duration::from_millis(size), Duration::from_millis(slide));
        window.check("s").unwrap().of(at).collect()
    }

    #[test]
    fn an_event_is_in_one_tumbling_window_which_it_ends_not_in() {
        assert_eq!(of(10, 10, 0), [(0, 10)]);
        assert_eq!(of(10, 10, 9), [(0, 10)]);
        assert_eq!(of(10, 10, 10), [(10, 20)]);
    }

    #[test]
    fn an_event_is_in_every_sliding_window_around_it() {
        assert_eq!(of(10, 5, 12), [(5, 15), (10, 20)]);
        assert_eq!(of(10, 4, 12), [(4, 14), (8, 18), (12, 22)]);
        assert_eq!(of(10, 4, 15), [(8, 18), (12, 22)]);
        // none begins before time
        assert_eq!(of(10, 5, 3), [(0, 10)]);
    }

    #[test]
    fn every_window_that_holds_an_event_is_found() {
        for (size, slide) in [(1, 1), (7, 3), (10, 10), (9, 2)] {
            for at in 0..60 {
                let wanted: Vec<_> = (0..60)
                    .filter(|start| start % slide == 0 && *start <= at && at < start + size)
                    .map(|start| (start, start + size))
                    .collect();
                assert_eq!(of(size, slide, at), wanted, "{size} every {slide} at {at}");
            }
        }
    }

    #[test]
    fn impossible_windows_are_refused_with_the_name_of_the_stage() {
        let second = Duration::from_secs(1);
        for window in [
            Window::tumbling(Duration::ZERO),
            Window::tumbling(Duration::from_nanos(999)),
            Window::tumbling(Duration::MAX),
            Window::sliding(second, Duration::ZERO),
            Window::sliding(second, 2 * second),
            Window::sliding(5000 * second, second),
        ] {
            let why = window.check("sums").unwrap_err().to_string();
            assert!(why.contains("stage sums"), "{why}");
        }
    }
}
