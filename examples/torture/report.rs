//! What a run came to: counts that add up over slices of one run.

use serde::{Deserialize, Serialize};
use steadfast::EngineChoice;

use super::checker::Findings;
use super::options::Options;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) fault: String,
    pub(crate) seed: u64,
    /// Slices of this run, this one included.
    pub(crate) slices: u64,
    pub(crate) seconds: u64,
    pub(crate) cycles: u64,
    pub(crate) kills: u64,
    pub(crate) clean_ends: u64,
    pub(crate) power_cuts: u64,
    pub(crate) times_full: u64,
    /// Of a life on a simulated disk that nothing happens to: places at which harm can be done.
    pub(crate) operations: u64,
    /// Checkpoints among them.
    pub(crate) checkpoints: u64,
    pub(crate) checks: u64,
    pub(crate) acknowledged: u64,
    /// Messages that were acknowledged, or are handled or dead though nobody was told: each is handled, dead or expired, and
    /// none waits where all was checked.
    pub(crate) accepted: u64,
    pub(crate) handled: u64,
    pub(crate) dead: u64,
    pub(crate) expired: u64,
    /// Messages of whose end the sender was told before the harm.
    pub(crate) told: u64,
    pub(crate) refused: u64,
    pub(crate) small_messages: u64,
    pub(crate) large_messages: u64,
    pub(crate) events_handled: u64,
    pub(crate) gaps_told: u64,
    pub(crate) lost: u64,
    pub(crate) half_visible: u64,
    pub(crate) reordered: u64,
    pub(crate) handled_twice: u64,
    pub(crate) phantom: u64,
    pub(crate) money_off: u64,
    pub(crate) silent_loss: u64,
    pub(crate) panics: u64,
    pub(crate) hangs: u64,
    pub(crate) other: u64,
    /// Cases of damage that were answered with a typed error.
    pub(crate) refused_cases: u64,
    /// Cases in which nothing was lost.
    pub(crate) unharmed_cases: u64,
    /// The most memory a child took.
    pub(crate) rss_mib: u64,
    pub(crate) rss_mib_first: u64,
    pub(crate) rss_mib_last: u64,
    /// Of the store, after a check.
    pub(crate) disk_mib: f64,
    pub(crate) disk_mib_first: f64,
    pub(crate) disk_mib_max: f64,
    pub(crate) open_ms: Times,
    /// What could not run, and why.
    pub(crate) skipped: Option<String>,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Times {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) max: u64,
}

impl Report {
    pub(crate) fn opened(&mut self, ms: u64) {
        if self.open_ms.max == 0 {
            self.open_ms.first = ms;
        }
        self.open_ms.last = ms;
        self.open_ms.max = self.open_ms.max.max(ms);
    }

    pub(crate) fn took_memory(&mut self, mib: u64) {
        if self.rss_mib == 0 {
            self.rss_mib_first = mib;
        }
        self.rss_mib_last = mib;
        self.rss_mib = self.rss_mib.max(mib);
    }

    pub(crate) fn takes_disk(&mut self, bytes: u64) {
        let mib = (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
        if self.disk_mib_max == 0.0 {
            self.disk_mib_first = mib;
        }
        self.disk_mib = mib;
        self.disk_mib_max = self.disk_mib_max.max(mib);
    }

    pub(crate) fn add(&mut self, found: Findings) {
        self.checks += 1;
        self.handled += found.handled;
        self.small_messages += found.small;
        self.large_messages += found.large;
        self.dead += found.dead;
        self.expired += found.expired;
        self.accepted += found.accepted;
        self.told += found.told;
        self.events_handled += found.events;
        self.gaps_told += found.gaps_told;
        self.lost += found.lost;
        self.half_visible += found.half_visible;
        self.reordered += found.reordered;
        self.handled_twice += found.handled_twice;
        self.phantom += found.phantom;
        self.hangs += found.hangs;
        self.money_off += found.money_off;
        self.other += found.other;
        self.problems.extend(found.problems);
    }

    pub(crate) fn problem(&mut self, what: String) {
        self.other += 1;
        self.problems.push(what);
    }

    pub(crate) fn holds(&self) -> bool {
        let Report { lost, half_visible, reordered, handled_twice, phantom, money_off, .. } = self;
        let Report { silent_loss, panics, hangs, other, .. } = self;
        let all = [
            lost,
            half_visible,
            reordered,
            handled_twice,
            phantom,
            money_off,
            silent_loss,
            panics,
            hangs,
            other,
        ];
        all.into_iter().all(|wrong| *wrong == 0)
    }

    /// How to run it again.
    fn again(&self, options: &Options) -> String {
        let broken = options.broken.map_or(String::new(), |broken| format!(" --break {}", broken.name()));
        let (engine, feature) = match options.engine {
            Some(engine) if engine != EngineChoice::default() => {
                (format!(" --engine {}", engine.name()), format!(" --features {}", engine.name()))
            }
            _ => Default::default(),
        };
        let (fault, seed, cycles) = (&self.fault, self.seed, self.cycles.max(1));
        format!(
            "cargo run --release{feature} --example torture -- --fault {fault} --cycles {cycles} --seed {seed}{engine}{broken}"
        )
    }

    pub(crate) fn print(&self, options: &Options) -> Result<(), serde_json::Error> {
        let verdict = match (&self.skipped, self.holds()) {
            (Some(why), true) if self.cycles == 0 => format!("skipped: {why}"),
            (_, true) => "holds".into(),
            (_, false) => format!("does NOT hold; seed {}; again: {}", self.seed, self.again(options)),
        };
        eprintln!(
            "{}: {} cycles, {} acknowledged, {} handled, {} dead: {verdict}",
            self.fault, self.cycles, self.acknowledged, self.handled, self.dead
        );
        for problem in self.problems.iter().take(20) {
            eprintln!("  {problem}");
        }
        if options.json {
            println!("{}", serde_json::to_string(self)?);
        }
        Ok(())
    }
}
