//! Actors in memory: steadfast's volatile messages beside kameo, ractor, actix, and what tokio itself does.
//!
//! `cargo bench -p steadfast-benches --bench memory -- --json FILE`, with `--quick` for a short form and `--only ROW` for some rows.
//!
//! Mailboxes take 1024 messages, but ractor's and actix's: theirs have no limit for a tell, so it never waits. The time of a tell is
//! that of the call; it is taken of one in 64. A row ends when all that was told has been handled.

use std::sync::Arc;
use std::time::Duration;

use steadfast_benches::Outcome;
use steadfast_benches::args::Args;
use steadfast_benches::memory::{self, Peer};
use steadfast_benches::peers::actix::{self, Actix};
use steadfast_benches::peers::channel::Channels;
use steadfast_benches::peers::kameo::Kameo;
use steadfast_benches::peers::ractor::Ractor;
use steadfast_benches::peers::steadfast::Volatile;
use steadfast_benches::report::{Comparison, Report, Row, Target};
use steadfast_benches::rounds::{Measured, Of, Plan, Side, interleave};

const SENDERS: usize = 8;
const TARGETS: usize = 100;

/// All who take part.
struct Peers {
    channels: Arc<Channels>,
    ours: Arc<Volatile>,
    /// Without a disk.
    in_memory: Arc<Volatile>,
    kameo: Arc<Kameo>,
    ractor: Arc<Ractor>,
    actix: Arc<Actix>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tell,
    ManyTell,
    Ask,
    Spawn,
    FanOut,
}

const KINDS: [Kind; 5] = [Kind::Tell, Kind::ManyTell, Kind::Ask, Kind::Spawn, Kind::FanOut];

impl Kind {
    fn row(self) -> &'static str {
        match self {
            Kind::Tell => "tell 1 to 1",
            Kind::ManyTell => "tell 8 to 1",
            Kind::Ask => "ask round trip",
            Kind::Spawn => "spawn to first answer",
            Kind::FanOut => "fan-out 1 to 100",
        }
    }

    fn means(self) -> &'static str {
        match self {
            Kind::Tell | Kind::ManyTell => {
                "returned: in the mailbox, lost with the process. the end: all handled"
            }
            Kind::Ask => "returned: handled, nothing is stored",
            Kind::Spawn => "returned: answered once; steadfast has written the new name to disk, unless said",
            Kind::FanOut => "p50 and p99: of one pass over all. the end: all handled",
        }
    }

    async fn run<P: Peer>(self, peer: &Arc<P>, time: Duration) -> steadfast_benches::slice::Slice {
        match self {
            Kind::Tell => memory::tell(&**peer, 1, time).await,
            Kind::ManyTell => memory::tell(&**peer, SENDERS, time).await,
            Kind::Ask => memory::ask(&**peer, time).await,
            Kind::Spawn => memory::spawn(peer, time).await,
            Kind::FanOut => memory::fan_out(&**peer, TARGETS, time).await,
        }
    }

    fn side<'a, P: Peer>(self, name: &'static str, peer: &'a Arc<P>) -> Side<'a> {
        Side::new(name, move |time| self.run(peer, time))
    }

    fn sides(self, peers: &Peers) -> Vec<Side<'_>> {
        let mut all = vec![
            self.side("raw mpsc", &peers.channels),
            self.side("steadfast", &peers.ours),
            self.side("kameo", &peers.kameo),
            self.side("ractor", &peers.ractor),
            self.side("actix", &peers.actix),
        ];
        if self == Kind::Tell {
            let run = |time| async move { actix::tell_on_one_thread(time).await.expect("its thread runs") };
            all.push(Side::new("actix on one thread", run));
        }
        if self == Kind::Spawn {
            all.push(self.side("steadfast without a disk", &peers.in_memory));
        }
        all
    }

    /// What ours is held against: each side alone, and of the libraries the fastest.
    fn comparisons(self, ours: &Measured, all: &[Measured]) -> Vec<Comparison> {
        let of = if self == Kind::Ask { Of::Time } else { Of::Rate };
        let others = all.iter().filter(|side| !side.name.starts_with("steadfast"));
        let libraries = others.clone().filter(|side| side.name != "raw mpsc");
        let fastest = libraries.max_by(|one, two| one.rate().total_cmp(&two.rate()));
        let raw_target = if self == Kind::Ask { Target::AtMost(1.2) } else { Target::None };
        let fast_target = if self == Kind::Tell { Target::AtLeast(2.0) } else { Target::None };
        others
            .map(|other| {
                let is_fastest = fastest.is_some_and(|fastest| fastest.name == other.name);
                let target = match other.name {
                    "raw mpsc" => raw_target,
                    _ if is_fastest => fast_target,
                    _ => Target::None,
                };
                let mut comparison = Comparison::between(ours, other, of, target);
                if is_fastest {
                    comparison.against.push_str(" (the fastest library)");
                }
                comparison
            })
            .collect()
    }
}

async fn measure(kind: Kind, peers: &Peers, plan: Plan, report: &mut Report) -> Outcome<()> {
    let measured = interleave(plan, kind.sides(peers)).await;
    for side in &measured {
        let mut row = Row::of(kind.row(), side, kind.means());
        if side.name == "steadfast" {
            row.comparisons = kind.comparisons(side, &measured);
        }
        report.row(&row)?;
    }
    Ok(())
}

async fn all(args: &Args) -> Outcome<()> {
    let time = Duration::from_millis(if args.quick { 100 } else { 500 });
    let plan = Plan { rounds: if args.quick { 5 } else { 7 }, slice: time };
    let mut report = Report::new("memory", args)?;
    let directory = tempfile::tempdir()?;
    let peers = Peers {
        channels: Arc::new(Channels),
        ours: Arc::new(Volatile::open(directory.path()).await?),
        in_memory: Arc::new(Volatile::in_memory().await?),
        kameo: Arc::new(Kameo),
        ractor: Arc::new(Ractor),
        actix: Arc::new(Actix::start()?),
    };
    for kind in KINDS {
        if args.wants(&format!("{}, steadfast", kind.row())) {
            measure(kind, &peers, plan, &mut report).await?;
        }
    }
    peers.ours.close().await?;
    peers.in_memory.close().await?;
    report.end();
    Ok(())
}

fn main() -> Outcome<()> {
    let args = Args::of_process()?;
    args.runtime()?.block_on(all(&args))
}
