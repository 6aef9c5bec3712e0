//! Puts what the benches wrote as JSON into the tables of a page: what stands between `<!-- rows durable -->` and `<!-- end -->` is
//! replaced by the rows of that bench. `<!-- rows costs actors -->` takes only rows with that word in their name.
//!
//! `cargo run -p steadfast-benches --bin table -- docs/costs.md FILE..`

use std::fmt::Write as _;

use serde_json::Value;
use steadfast_benches::Outcome;

const END: &str = "<!-- end -->";

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let page = words.next().ok_or("the page, and then files of rows")?;
    let mut lines = Vec::new();
    for file in words {
        for line in std::fs::read_to_string(file)?.lines() {
            lines.push(serde_json::from_str(line)?);
        }
    }
    let text = std::fs::read_to_string(&page)?;
    Ok(std::fs::write(page, filled(&text, &lines)?)?)
}

/// The page with its tables made anew; one for which there are no rows stays as it is.
fn filled(text: &str, lines: &[Value]) -> Outcome<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("<!-- rows ") {
        let head_end = start + rest[start..].find("-->").ok_or("a mark has no end")? + 3;
        let end = head_end + rest[head_end..].find(END).ok_or("a table has no end mark")?;
        let words = rest[start..head_end].trim_start_matches("<!-- rows ").trim_end_matches("-->").trim();
        let (bench, only) = words.split_once(' ').unwrap_or((words, ""));
        let of_table = |line: &&Value| {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            text("bench") == bench && text("row").contains(only)
        };
        let rows: Vec<_> = lines.iter().filter(of_table).collect();
        out.push_str(&rest[..head_end]);
        match rows.is_empty() {
            true => out.push_str(&rest[head_end..end]),
            false => write!(out, "\n{}", table(&rows)?)?,
        }
        out.push_str(END);
        rest = &rest[end + END.len()..];
    }
    out.push_str(rest);
    Ok(out)
}

/// One row for each row, with all its comparisons in one field.
fn table(lines: &[&Value]) -> Outcome<String> {
    let mut out = String::from("| row | msgs/s | p50 µs | p99 µs | CPU µs | ratios, and what else |\n");
    out.push_str("|---|---:|---:|---:|---:|---|\n");
    let mut at = 0;
    while at < lines.len() {
        let same = lines[at..].iter().take_while(|line| line["row"] == lines[at]["row"]).count();
        let (first, rows) = (lines[at], &lines[at..at + same]);
        let figure = |name: &str| number(&first[name]).unwrap_or_else(|| "–".into());
        let mut last: Vec<String> = rows.iter().filter_map(|line| comparison(line)).collect();
        last.extend(more(first));
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            first["row"].as_str().unwrap_or_default(),
            figure("msgs_per_s"),
            figure("p50_us"),
            figure("p99_us"),
            figure("cpu_us_per_msg"),
            last.join(" · ")
        )?;
        at += same;
    }
    Ok(out)
}

fn comparison(line: &Value) -> Option<String> {
    let (ratio, against) = (line["ratio"].as_f64()?, line["against"].as_str()?);
    let of = match line["of"].as_str().unwrap_or_default() {
        "msgs_per_s" => String::new(),
        other => format!(" {}", other.trim_end_matches("_us").replace('_', " ")),
    };
    let target = line["target"].as_str().map(|target| match line["met"].as_bool() {
        Some(true) => format!(" (target {target})"),
        _ => format!(" (**short of {target}**)"),
    });
    Some(format!("{ratio:.2} ×{of} {against}{}", target.unwrap_or_default()))
}

/// What a row has beside the usual.
fn more(line: &Value) -> Vec<String> {
    const USUAL: &[&str] = &["msgs_per_s", "p50_us", "p99_us", "cpu_us_per_msg", "ratio", "rounds"];
    let fields = line.as_object().into_iter().flatten();
    let shown = fields.filter(|(name, value)| value.is_number() && !USUAL.contains(&name.as_str()));
    shown.filter_map(|(name, value)| Some(format!("{} {}", name.replace('_', " "), number(value)?))).collect()
}

/// Three digits, and a space between thousands.
fn number(value: &Value) -> Option<String> {
    let value = value.as_f64()?;
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return Some(if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") });
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_replaced_and_one_without_rows_stays() -> Outcome<()> {
        let page =
            "a\n<!-- rows durable -->\nold\n<!-- end -->\nb\n<!-- rows memory -->\nkept\n<!-- end -->\nc\n";
        let line = |against: &str, ratio: f64, met: bool| {
            json!({"bench": "durable", "row": "cycle, steadfast", "msgs_per_s": 1_234_567.2, "p50_us": 81.26,
                   "p99_us": null, "checkpoints": 4, "ratio": ratio, "against": against, "of": "msgs_per_s",
                   "target": ">= 1", "met": met})
        };
        let filled = filled(page, &[line("raw log", 0.5, false), line("sled", 4.25, true)])?;
        let row = "| cycle, steadfast | 1 234 567 | 81.3 | – | – | 0.50 × raw log (**short of >= 1**) · \
                   4.25 × sled (target >= 1) · checkpoints 4 |";
        assert!(filled.contains(row), "{filled}");
        assert!(!filled.contains("old") && filled.contains("kept") && filled.ends_with("c\n"));
        Ok(())
    }

    #[test]
    fn numbers_have_as_many_digits_as_mean_something() {
        let shown = |value: f64| number(&json!(value)).unwrap_or_default();
        assert_eq!(shown(0.5), "0.50");
        assert_eq!(shown(12.34), "12.3");
        assert_eq!(shown(100.4), "100");
        assert_eq!(shown(-1234.0), "-1 234");
        assert_eq!(shown(7.0), "7");
    }
}
