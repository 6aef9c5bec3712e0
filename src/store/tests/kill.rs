//! A parent that kills a child with SIGKILL at random moments and reads what the child had said until then.

use super::child::{Child, Said, config};
use super::*;

/// `STEADFAST_ROUNDS` runs more than the short form.
fn rounds() -> u64 {
    std::env::var("STEADFAST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8)
}

#[test]
fn whenever_a_process_is_killed_what_it_had_acknowledged_is_there_and_nothing_half() {
    EngineChoice::available().for_each(survives_kills);
}

fn survives_kills(engine: EngineChoice) {
    let dir = tempfile::tempdir().expect("a directory");
    make_directory(dir.path(), engine);
    let mut chance = 7;
    let (mut letters, mut acknowledged) = (0, 0);
    for round in 0..rounds() {
        let mut child = Child::start("send", dir.path());
        if draw(&mut chance, 8) > 0 {
            child.next_line().expect("opens");
            std::thread::sleep(Duration::from_millis(draw(&mut chance, 300)));
        } else {
            // while it starts and recovers
            std::thread::sleep(Duration::from_millis(draw(&mut chance, 60)));
        }
        let said = Said::read(&child.kill());
        let (driven, _) = open_directory(dir.path(), &config())
            .unwrap_or_else(|error| panic!("round {round} does not open: {error}"));
        letters = said.check(driven.store());
        acknowledged += said.durable.len();
        if draw(&mut chance, 4) == 0 {
            driven.close().expect("closes");
        }
    }
    println!("{engine:?}: {} rounds, {acknowledged} letters acknowledged, {letters} found", rounds());
    assert!(acknowledged > 0 && letters >= acknowledged as u64);
}
