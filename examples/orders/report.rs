//! What the program says in the end: a summary for people, or one JSON object.

use std::time::Duration;

use serde::Serialize;

use super::audit::Findings;
use super::killer::Progress;
use super::options::{Guard, Options};

/// Malformed lines and problems that are printed; the rest is counted.
const PRINTED: usize = 10;

/// The fields of the JSON object, in its order.
#[derive(Serialize)]
pub(crate) struct Report {
    orders: u64,
    cds: u64,
    cents: u64,
    customers: u64,
    lost: u64,
    applied_twice: u64,
    notified_missing: u64,
    kills: usize,
    handled_at_kill: Vec<u64>,
    reruns: u64,
    notified_repeated: u64,
    malformed: u64,
    seconds: f64,
    /// The most memory that one of the shops took, and the most customers that were loaded in it.
    peak_rss_mib: u64,
    loaded_max: u64,
    /// Orders that came to the subscriber who joined last.
    analytics_orders: u64,
    #[serde(skip)]
    malformed_lines: Vec<String>,
    #[serde(skip)]
    problems: Vec<String>,
}

impl Report {
    pub(crate) fn new(findings: Findings, handled_at_kill: Vec<u64>, took: Duration, most: Progress) -> Self {
        Report {
            orders: findings.orders,
            cds: findings.cds,
            cents: findings.cents,
            customers: findings.customers,
            lost: findings.lost,
            applied_twice: findings.applied_twice,
            notified_missing: findings.notified_missing,
            kills: handled_at_kill.len(),
            handled_at_kill,
            reruns: findings.reruns,
            notified_repeated: findings.notified_repeated,
            malformed: findings.malformed,
            seconds: (took.as_secs_f64() * 100.0).round() / 100.0,
            peak_rss_mib: most.peak_rss_mib,
            loaded_max: most.loaded,
            analytics_orders: findings.analytics_orders,
            malformed_lines: findings.malformed_lines,
            problems: findings.problems,
        }
    }

    /// A notification that was repeated is no fault: the outside world is told at least once.
    pub(crate) fn holds(&self) -> bool {
        let wrong = self.lost + self.applied_twice + self.notified_missing;
        wrong == 0 && self.problems.is_empty()
    }

    pub(crate) fn print(&self, options: &Options) -> Result<(), serde_json::Error> {
        print_some(&self.malformed_lines);
        print_some(&self.problems);
        if options.json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            self.print_summary(options.broken);
        }
        Ok(())
    }

    fn print_summary(&self, broken: Option<Guard>) {
        let (euros, cents) = (self.cents / 100, self.cents % 100);
        println!("{} orders: {} CDs, {euros}.{cents:02} charged", self.orders, self.cds);
        println!("  to {} customers, in {} s", self.customers, self.seconds);
        println!("killed {} times, after {:?} orders", self.kills, self.handled_at_kill);
        println!("  {} turns were run again", self.reruns);
        println!("applied: {} orders lost, {} twice", self.lost, self.applied_twice);
        println!("notified: {} missing, {} repeated", self.notified_missing, self.notified_repeated);
        println!("analytics joined last, and got {} orders", self.analytics_orders);
        println!("memory: {} MiB at most, {} customers loaded", self.peak_rss_mib, self.loaded_max);
        println!("malformed lines: {}, kept in the dead letters", self.malformed);
        let verdict = if self.holds() { "The audit holds." } else { "THE AUDIT FAILS." };
        match broken {
            Some(guard) => println!("{verdict} (Guard `{}` was broken on purpose.)", guard.name()),
            None => println!("{verdict}"),
        }
    }
}

fn print_some(lines: &[String]) {
    for line in lines.iter().take(PRINTED) {
        eprintln!("{line}");
    }
    if lines.len() > PRINTED {
        eprintln!(".. and {} more like this", lines.len() - PRINTED);
    }
}
