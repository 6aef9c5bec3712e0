use std::fs;
use std::time::Duration;

use super::*;
use crate::store::hardened::suite::{World, entries, hardened_suite, number};

hardened_suite!(&LAYOUT, make);

fn make(dir: EngineDir, time_limit: Duration) -> Box<dyn EngineKind> {
    Box::new(kind(dir, time_limit))
}

fn kind(dir: EngineDir, time_limit: Duration) -> RedbKind {
    RedbKind { dir, time_limit, cache_bytes: 8 << 20 }
}

fn world() -> World {
    World::new(&LAYOUT, make)
}

fn started(world: &World) -> RedbEngine {
    let kind = kind(world.dir.clone(), Duration::from_secs(60));
    kind.start(locked(&kind.dir).unwrap(), true).unwrap()
}

/// A copy of the file is what a kill would have left: all that was written is there, whether synced or not.
fn killed(world: &World) -> World {
    let after = self::world();
    fs::create_dir(&after.dir.path).unwrap();
    fs::copy(world.dir.data(), after.dir.data()).unwrap();
    fs::write(after.file("opened"), b"").unwrap();
    after
}

#[test]
fn after_a_kill_the_last_flush_is_there_whole_and_nothing_that_came_after_it() {
    let world = world();
    // so small that pages of batches that are not flushed are in the file
    let small = RedbKind { cache_bytes: 128 << 10, ..kind(world.dir.clone(), Duration::from_secs(60)) };
    let engine = small.create().unwrap();
    for flushed in 0..4 {
        for batch in 0..12 {
            let value = vec![flushed as u8; 4_000];
            let writes = (0..16).map(|key| Write::Put(vec![batch, key], value.clone()));
            engine.apply(writes.collect()).unwrap();
            if batch.is_multiple_of(8) {
                let found = killed(&world);
                let found = found.kind.open(None).unwrap();
                let expected = if flushed == 0 { 0 } else { 192 };
                assert_eq!(entries(&*found), expected, "flush {flushed}, batch {batch}");
                let all = found.range(&[], &[255; 8], usize::MAX).unwrap();
                assert!(
                    all.iter().all(|(_, value)| value[0] + 1 == flushed),
                    "flush {flushed}, batch {batch}"
                );
            }
        }
        engine.flush().unwrap();
    }
}

#[test]
fn whatever_bit_was_changed_after_an_unclean_exit_it_is_an_error_that_names_the_file_or_does_no_harm() {
    let world = world();
    let engine = world.kind.create().unwrap();
    engine.apply((0..200).map(number).collect()).unwrap();
    engine.flush().unwrap();
    engine.apply((100..300).map(number).collect()).unwrap();
    engine.flush().unwrap();
    let expected = engine.range(&[], &[255; 8], usize::MAX).unwrap();
    let bytes = fs::read(world.dir.data()).unwrap();
    let mut refused = 0;
    let places = (0..320).step_by(7).chain((4096..bytes.len()).step_by(1_999));
    for at in places {
        let after = killed(&world);
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(after.dir.data(), changed).unwrap();
        match after.kind.open(None) {
            Ok(engine) => match engine.range(&[], &[255; 8], usize::MAX) {
                Ok(found) => assert!(found == expected, "byte {at}: it opens, and differs"),
                Err(error) => assert!(error.to_string().contains(DATA), "byte {at}: {error}"),
            },
            Err(error) => {
                assert!(error.to_string().contains(DATA), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "only {refused} were refused");
}

/// Its own close says that all is well, and its next open would believe it.
#[test]
fn without_a_seal_a_file_that_redb_itself_has_closed_is_verified_all_the_same() {
    let world = world();
    world.unclean();
    let bytes = fs::read(world.dir.data()).unwrap();
    let value = bytes.windows(100).position(|bytes| bytes == [7; 100]).expect("a value lies in the file");
    let mut changed = bytes.clone();
    changed[value] ^= 1;
    fs::write(world.dir.data(), changed).unwrap();
    let refused = world.refusal(None);
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains(DATA), "{refused}");
}

#[test]
fn after_a_failure_nothing_is_written_any_more_not_even_as_it_is_dropped() {
    for full in [true, false] {
        let world = world();
        world.closed();
        let engine = started(&world);
        engine.apply((0..60).map(number).collect()).unwrap();
        let before = fs::read(world.dir.data()).unwrap();
        let path = world.dir.data();
        engine.health.break_with(match full {
            true => EngineError::Full { path },
            false => damaged(&path, "for the test"),
        });
        for refused in [engine.apply(vec![number(1)]).unwrap_err(), engine.flush().unwrap_err()] {
            assert_eq!(matches!(refused, EngineError::Full { .. }), full, "{refused}");
            assert!(full || refused.to_string().contains("for the test"), "{refused}");
        }
        drop(engine);
        assert!(fs::read(world.dir.data()).unwrap() == before, "full: {full}");
        // what was applied and never flushed is gone, and nothing else
        assert_eq!(entries(&*world.kind.open(None).unwrap()), 50);
    }
}

#[test]
fn a_panic_in_redb_is_an_error_with_its_text_that_names_the_file() {
    let world = world();
    world.closed();
    let engine = started(&world);
    let caught = engine.handle.call::<()>(|_| panic!("page {} is gone", 7)).unwrap_err();
    assert!(matches!(caught, EngineError::Damaged { .. }), "{caught}");
    assert!(caught.to_string().contains("page 7 is gone") && caught.to_string().contains(DATA), "{caught}");
    assert_eq!(entries(&engine), 50);
}
