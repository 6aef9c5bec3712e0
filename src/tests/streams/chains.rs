//! Random chains of operators over random events, with the power cut at random places, against a plain computation of the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::store::SimulatedDisk;
use crate::{Failure, One, Stage, Window, Windowed};

/// An operator, by what it does to `(who, at, cents)`.
#[derive(Debug, Clone)]
enum Op {
    Add(u64),
    DropMultiples(u64),
    Twice,
    /// The running sum of each key.
    Sum,
}

/// What is at the end.
#[derive(Debug, Clone)]
enum End {
    Plain,
    Windows(u64, u64),
    Sessions(u64),
}

#[derive(Debug, Clone)]
struct Plan {
    ops: Vec<Op>,
    end: End,
    events: Vec<Buy>,
    batch: usize,
    /// Events of which the first attempt fails.
    fails: u64,
    /// After how many operations of the disk, each counted from the open, the power goes.
    cuts: Vec<u64>,
    seed: u64,
}

fn plans() -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        (1..9u64).prop_map(Op::Add),
        (2..5u64).prop_map(Op::DropMultiples),
        Just(Op::Twice),
        Just(Op::Sum),
    ];
    let end = prop_oneof![
        Just(End::Plain),
        (1..4u64, 2..8u64).prop_map(|(times, slide)| End::Windows(times * slide, slide)),
        (1..9u64).prop_map(End::Sessions),
    ];
    let event = (0..3u8, 0..60u64, 0..50u64).prop_map(|(who, at, cents)| buy(&who.to_string(), at, cents));
    let events = prop::collection::vec(event, 1..40).prop_map(|mut events| {
        events.sort_by_key(|event| event.at);
        events
    });
    let some = (prop::collection::vec(op, 0..5), end, events);
    (some, 1..9usize, 2..20u64, prop::collection::vec(1..80u64, 1..4), any::<u64>()).prop_map(
        |((ops, end, events), batch, fails, cuts, seed)| Plan { ops, end, events, batch, fails, cuts, seed },
    )
}

/// The stage of a plan.
fn stage(plan: &Plan, buys: &Topic<Buy>, out: &Topic<Line>) -> Stage<One<Buy>> {
    let ms = std::time::Duration::from_millis;
    let mut flow = buys.stage("chain").event_time(time, ms(0));
    for op in plan.ops.clone() {
        flow = match op {
            Op::Add(more) => flow.map(move |one| Buy { cents: one.cents + more, ..one }),
            Op::DropMultiples(of) => flow.filter(move |one| one.cents % of != 0),
            Op::Twice => flow.flat_map(|one| [one.clone(), one]),
            Op::Sum => flow.key_by(|one| one.who.clone()).scan(
                || 0,
                |sum: &mut u64, _, one: Buy| {
                    *sum += one.cents;
                    Some(Buy { cents: *sum, ..one })
                },
            ),
        };
    }
    // what goes wrong once, whatever the operators have kept by then
    let failed = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let fails = plan.fails;
    let flow = flow.try_map(move |one| {
        let first = failed.lock().expect("whole").insert((one.at, one.cents));
        if first && one.cents % fails == 1 { Err(Failure::new("once")) } else { Ok(one) }
    });
    let keyed = |flow: crate::Flow<_, Buy>| flow.key_by(|one| one.who.clone());
    let sum = |sum: &mut u64, one: &Buy| *sum += one.cents;
    let end = match plan.end {
        End::Plain => flow.map(|one| line(format!("{} {} {}", one.who, one.at, one.cents))),
        End::Windows(size, slide) => {
            keyed(flow).window(Window::sliding(ms(size), ms(slide))).fold(|| 0, sum).map(told)
        }
        End::Sessions(gap) => {
            keyed(flow).session(ms(gap)).fold(|| 0, sum, |sum, other| *sum += other).map(told)
        }
    };
    let stage = end.to(out).expect("possible").retry(at_once(5));
    stage.batch(plan.batch, ms(0)).expect("possible")
}

fn told(window: Windowed<String, u64>) -> Line {
    tell(&window.key, window.start.as_millis(), window.end.as_millis(), window.value)
}

fn tell(key: &str, start: u64, end: u64, sum: u64) -> Line {
    line(format!("{key} {start}-{end} {sum}"))
}

/// The same without streams, sorted.
fn plain(plan: &Plan) -> Vec<String> {
    let mut all = plan.events.clone();
    for op in &plan.ops {
        let mut sums = BTreeMap::<String, u64>::new();
        all = all
            .into_iter()
            .flat_map(|one| match op {
                Op::Add(more) => vec![Buy { cents: one.cents + more, ..one }],
                Op::DropMultiples(of) if one.cents % of == 0 => vec![],
                Op::DropMultiples(_) => vec![one],
                Op::Twice => vec![one.clone(), one],
                Op::Sum => {
                    let sum = sums.entry(one.who.clone()).or_default();
                    *sum += one.cents;
                    vec![Buy { cents: *sum, ..one }]
                }
            })
            .collect();
    }
    let mut windows = BTreeMap::<(String, u64, u64), u64>::new();
    let mut lines: Vec<String> = match plan.end {
        End::Plain => all.iter().map(|one| format!("{} {} {}", one.who, one.at, one.cents)).collect(),
        End::Windows(size, slide) => {
            for one in all {
                for start in (0..=one.at).filter(|start| start % slide == 0 && one.at < start + size) {
                    *windows.entry((one.who.clone(), start, start + size)).or_default() += one.cents;
                }
            }
            windows.into_iter().map(|((key, start, end), sum)| tell(&key, start, end, sum).0).collect()
        }
        End::Sessions(gap) => {
            let mut open = BTreeMap::<String, Vec<(u64, u64, u64)>>::new();
            for one in all {
                let sessions = open.entry(one.who).or_default();
                match sessions.last_mut().filter(|(_, end, _)| one.at < *end) {
                    Some((_, end, sum)) => (*end, *sum) = (one.at + gap, *sum + one.cents),
                    None => sessions.push((one.at, one.at + gap, one.cents)),
                }
            }
            let told = |(key, all): (String, Vec<_>)| {
                all.into_iter()
                    .map(move |(start, end, sum)| tell(&key, start, end, sum).0)
                    .collect::<Vec<_>>()
            };
            open.into_iter().flat_map(told).collect()
        }
    };
    lines.sort();
    lines
}

/// Runs the plan through its power cuts.
async fn run(plan: &Plan) -> Vec<String> {
    let world = World::with(SimulatedDisk::new(plan.seed));
    let system = world.open().await;
    buys(&system).await.publish_all(plan.events.clone()).await.expect("published");
    system.shutdown(secs(60)).await.expect("ends");
    for cut in &plan.cuts {
        world.disk.cut_power_at(world.disk.operations() + cut);
        // whatever fails from here on, fails because of the cut
        if let Ok(system) = world.builder().open_simulated(&world.disk).await {
            let _ = work(&system, plan).await;
            world.disk.crash();
            drop(system);
        } else {
            world.disk.crash();
        }
        world.disk.cut_power_at(u64::MAX);
    }
    let system = world.open().await;
    work(&system, plan).await.expect("nothing is cut");
    let mut lines = all_of(&system, &lines_topic(&system, "out").await).await;
    system.shutdown(secs(60)).await.expect("ends");
    lines.sort();
    lines
}

async fn work(system: &System, plan: &Plan) -> Result<(), Box<dyn std::error::Error>> {
    let (buys, out) = (system.topic("buys").await?, system.topic("out").await?);
    let stage = system.run_stage(stage(plan, &buys, &out)).await?;
    soon(run_until_idle(system)).await?;
    stage.advance_to(Timestamp::from_millis(1000)).await?;
    soon(run_until_idle(system)).await?;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn random_chains_over_random_power_cuts_put_out_what_the_plain_computation_does(plan in plans()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let came = runtime.block_on(run(&plan));
        prop_assert_eq!(came, plain(&plan));
    }
}
