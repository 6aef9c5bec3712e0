//! The testkit's visit to every crash point: what it has to notice, and what it says.

use std::cell::Cell;

use super::world::*;
use crate::testkit::{CrashPointError, CrashPoints, Outcome, Visited, run_until_idle};
use crate::{ActorRef, Durability, System};

/// Counts its notes.
async fn counter(system: &System) -> Result<ActorRef<Probe>, crate::SpawnError> {
    let spawn = probe(system, "counter", |turn| {
        Box::pin(async move {
            let total = turn.ctx.state().get(&TOTAL)?.unwrap_or_default() + 1;
            turn.ctx.state().set(&TOTAL, &total)?;
            Ok(total)
        })
    });
    spawn.await
}

async fn holds(system: &System, acknowledged: &Cell<u64>) -> Outcome {
    let counter = counter(system).await?;
    run_until_idle(system).await?;
    let counted = counter.cell(&TOTAL).await?.unwrap_or_default();
    match counted >= acknowledged.get() {
        true => Ok(()),
        false => Err(format!("{counted} of {} are left", acknowledged.get()).into()),
    }
}

/// Takes what was sent in this way for safe.
async fn visit(points: CrashPoints, durability: Durability) -> Result<Visited, CrashPointError> {
    let work = async |system: &System, acknowledged: &Cell<u64>| -> Outcome {
        let counter = counter(system).await?;
        for _ in 0..5 {
            counter.tell(note("one")).durability(durability).await?;
            acknowledged.update(|sum| sum + 1);
        }
        Ok(run_until_idle(system).await?)
    };
    points.run(work, holds).await
}

#[tokio::test]
async fn what_is_synced_holds_at_every_crash_point() {
    let visited = visit(CrashPoints::new(3), Durability::Synced).await.expect("holds");
    assert_eq!(visited.points, visited.operations);
    assert!(visited.cut_short > 5, "{visited:?}");
}

#[tokio::test]
async fn what_is_not_synced_is_found_to_be_lost_and_the_error_says_where() {
    let why = visit(CrashPoints::new(3), Durability::Buffered).await.expect_err("a promise that nobody gave");
    let CrashPointError::Broken { at, .. } = &why else { panic!("{why}") };
    let (what, only) = (why.to_string(), format!("`CrashPoints::new(3).only({})`", at.operation));
    assert!(what.contains(&only) && what.contains("are left"), "{what}");
    // it may fall on another operation the next time
    for _ in 0..50 {
        if visit(CrashPoints::new(3).only(at.operation), Durability::Buffered).await.is_err() {
            return;
        }
    }
    panic!("{what}, and never again");
}

#[tokio::test]
async fn a_scenario_that_fails_by_itself_is_no_crash_point() {
    let work = async |_: &System, _: &Cell<u64>| -> Outcome { Err("no bank".into()) };
    let why = CrashPoints::new(1).run(work, holds).await.expect_err("it fails").to_string();
    assert_eq!(why, "without any cut (seed 1), the scenario fails: no bank");
    let work = async |_: &System, acknowledged: &Cell<u64>| -> Outcome {
        acknowledged.set(1);
        Ok(())
    };
    let why = CrashPoints::new(1).run(work, holds).await.expect_err("it fails").to_string();
    assert_eq!(why, "without any cut (seed 1), the check fails: 0 of 1 are left");
}
