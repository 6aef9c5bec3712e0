//! The table that is printed, and the rows as JSON, one object a line.
//!
//! # Invariants
//! - Every row is there once, and of ours each comparison is a line of JSON of its own.
//! - A target that is not met is shown as that.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::args::Args;
use crate::rounds::{Measured, Of};

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Nothing is asked of it.
    None,
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Target {
    /// Whether a value meets it; none when nothing is asked.
    pub fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Target::None => None,
            Target::AtLeast(least) => Some(value >= least),
            Target::AtMost(most) => Some(value <= most),
        }
    }

    fn words(self) -> Option<String> {
        match self {
            Target::None => None,
            Target::AtLeast(least) => Some(format!(">= {least}")),
            Target::AtMost(most) => Some(format!("<= {most}")),
        }
    }
}

/// One comparison of a row.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// With whom.
    pub against: String,
    /// Of what.
    pub of: &'static str,
    /// Ours through theirs.
    pub ratio: f64,
    /// What it should be.
    pub target: Target,
}

impl Comparison {
    /// Of two sides of the same rounds.
    pub fn between(ours: &Measured, theirs: &Measured, of: Of, target: Target) -> Self {
        let ratio = ours.ratio(theirs, of);
        Comparison { against: theirs.name.to_owned(), of: of.name(), ratio, target }
    }
}

/// One row. What is not measured is none.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// What is done, and by whom: `cycle 256 senders, steadfast`.
    pub name: String,
    /// What a returned send means, or what is measured.
    pub means: String,
    /// Messages in a second.
    pub msgs_per_s: Option<f64>,
    /// Median latency.
    pub p50_us: Option<f64>,
    /// The latency that one of a hundred exceeds.
    pub p99_us: Option<f64>,
    /// Processor time of a message.
    pub cpu_us_per_msg: Option<f64>,
    /// Other figures by name; units last.
    pub more: Vec<(&'static str, f64)>,
    /// How it stands to others.
    pub comparisons: Vec<Comparison>,
}

impl Row {
    /// Of a side that took part in rounds.
    pub fn of(what: &str, side: &Measured, means: &str) -> Self {
        let timed = side.slices.iter().any(|slice| !slice.latencies.is_empty());
        Row {
            name: format!("{what}, {}", side.name),
            means: means.to_owned(),
            msgs_per_s: Some(side.rate()),
            p50_us: timed.then(|| side.p50_us()),
            p99_us: timed.then(|| side.p99_us()),
            cpu_us_per_msg: Some(side.cpu_us()),
            more: vec![("rounds", side.slices.len() as f64)],
            comparisons: Vec::new(),
        }
    }

    /// With one more figure.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.more.push((name, value));
        self
    }

    /// With one more comparison.
    #[must_use]
    pub fn compared(mut self, comparison: Comparison) -> Self {
        self.comparisons.push(comparison);
        self
    }
}

/// Where the rows of a bench go.
pub struct Report {
    bench: &'static str,
    json: Option<BufWriter<File>>,
    met: usize,
    short: Vec<String>,
    last_means: String,
}

impl Report {
    /// Of a bench, to standard output and to the file that was asked for.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(bench: &'static str, args: &Args) -> Outcome<Self> {
        let json = args.json.as_ref().map(File::create).transpose()?.map(BufWriter::new);
        println!("{bench:<44} {:>11} {:>10} {:>10} {:>8}  more", "msgs/s", "p50 us", "p99 us", "cpu us");
        Ok(Report { bench, json, met: 0, short: Vec::new(), last_means: String::new() })
    }

    /// Shows a row.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn row(&mut self, row: &Row) -> Outcome<()> {
        let figure = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let more: Vec<_> = row.more.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        println!(
            "{:<44} {:>11} {:>10} {:>10} {:>8}  {}",
            row.name,
            figure(row.msgs_per_s, 0),
            figure(row.p50_us, 1),
            figure(row.p99_us, 1),
            figure(row.cpu_us_per_msg, 2),
            more.join(", ")
        );
        if row.means != self.last_means {
            self.last_means.clone_from(&row.means);
            println!("    {}", row.means);
        }
        for comparison in &row.comparisons {
            self.comparison(row, comparison);
        }
        self.write(row)
    }

    fn comparison(&mut self, row: &Row, comparison: &Comparison) {
        let Comparison { against, of, ratio, target } = comparison;
        let verdict = match (target.words(), target.is_met(*ratio)) {
            (Some(words), Some(true)) => format!("(target {words}: met)"),
            (Some(words), _) => format!("(target {words}: SHORT)"),
            _ => String::new(),
        };
        println!("    {ratio:>8.2} x {against} in {of} {verdict}");
        match target.is_met(*ratio) {
            Some(true) => self.met += 1,
            Some(false) => self.short.push(format!("{} against {against} in {of}: {ratio:.2}", row.name)),
            None => {}
        }
    }

    fn write(&mut self, row: &Row) -> Outcome<()> {
        let bench = self.bench;
        let Some(json) = &mut self.json else { return Ok(()) };
        for line in lines(bench, row) {
            writeln!(json, "{line}")?;
        }
        Ok(json.flush()?)
    }

    /// Says what of the targets was met.
    pub fn end(self) {
        let Report { met, short, .. } = self;
        if met + short.len() == 0 {
            return;
        }
        println!("\ntargets: {met} met, {} short", short.len());
        short.iter().for_each(|line| println!("  short: {line}"));
    }
}

/// The row as JSON: one line, or one for each comparison.
fn lines(bench: &str, row: &Row) -> Vec<Value> {
    let mut object = Map::new();
    object.insert("bench".into(), bench.into());
    object.insert("row".into(), row.name.clone().into());
    object.insert("means".into(), row.means.clone().into());
    let figures = [
        ("msgs_per_s", row.msgs_per_s),
        ("p50_us", row.p50_us),
        ("p99_us", row.p99_us),
        ("cpu_us_per_msg", row.cpu_us_per_msg),
    ];
    for (name, value) in figures {
        object.insert(name.into(), json!(value.map(rounded)));
    }
    for (name, value) in &row.more {
        object.insert((*name).into(), json!(rounded(*value)));
    }
    if row.comparisons.is_empty() {
        return vec![Value::Object(object)];
    }
    let with = |comparison: &Comparison| {
        let mut object = object.clone();
        object.insert("ratio".into(), json!(rounded(comparison.ratio)));
        object.insert("against".into(), comparison.against.clone().into());
        object.insert("of".into(), comparison.of.into());
        if let Some(words) = comparison.target.words() {
            object.insert("target".into(), words.into());
            object.insert("met".into(), json!(comparison.target.is_met(comparison.ratio)));
        }
        Value::Object(object)
    };
    row.comparisons.iter().map(with).collect()
}

/// To a thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let comparison = |against: &str, ratio, target| Comparison {
            against: against.to_owned(),
            of: Of::Rate.name(),
            ratio,
            target,
        };
        let row = Row {
            name: "cycle 256 senders, steadfast".into(),
            msgs_per_s: Some(1234.5678),
            cpu_us_per_msg: Some(2.5),
            ..Row::default()
        };
        row.with("checkpoints", 3.0)
            .compared(comparison("raw log", 0.98, Target::AtLeast(1.0)))
            .compared(comparison("sqlite", 2.6, Target::AtLeast(2.5)))
    }

    #[test]
    fn each_comparison_is_a_line_with_all_figures() {
        let lines = lines("durable", &row());
        assert_eq!(lines.len(), 2);
        for line in &lines {
            assert_eq!(line["bench"], "durable");
            assert_eq!(line["row"], "cycle 256 senders, steadfast");
            assert_eq!(line["msgs_per_s"], 1234.568);
            assert_eq!(line["p50_us"], Value::Null);
            assert_eq!(line["checkpoints"], 3.0);
        }
        assert_eq!((&lines[0]["against"], &lines[0]["met"]), (&json!("raw log"), &json!(false)));
        assert_eq!((&lines[1]["ratio"], &lines[1]["met"]), (&json!(2.6), &json!(true)));
    }

    #[test]
    fn a_row_without_a_comparison_is_one_line() {
        let lines = lines("durable", &Row { comparisons: Vec::new(), ..row() });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].get("ratio"), None);
    }

    #[test]
    fn what_is_short_of_its_target_is_said() -> Outcome<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("rows.json");
        let mut report = Report::new("durable", &Args { json: Some(file.clone()), ..Args::default() })?;
        report.row(&row())?;
        assert_eq!(report.met, 1);
        assert_eq!(report.short, ["cycle 256 senders, steadfast against raw log in msgs_per_s: 0.98"]);
        assert_eq!(std::fs::read_to_string(file)?.lines().count(), 2);
        Ok(())
    }
}
