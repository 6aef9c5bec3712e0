use std::fs;
use std::time::Duration;

use super::*;
use crate::store::hardened::suite::{World, entries, hardened_suite, number};

hardened_suite!(&LAYOUT, make);

fn make(dir: EngineDir, time_limit: Duration) -> Box<dyn EngineKind> {
    Box::new(SledKind { dir, time_limit, cache_bytes: 8 << 20 })
}

fn world() -> World {
    World::new(&LAYOUT, make)
}

#[test]
fn a_closed_engine_that_was_opened_before_has_a_snapshot_under_its_seal() {
    let seal = world().closed();
    assert!(seal.files.iter().any(|file| file.name.starts_with("snap.")));
}

#[test]
fn with_a_seal_a_blob_or_half_a_snapshot_is_an_error() {
    let world = world();
    let seal = world.closed();
    for extra in ["snap.0000000000000000.generating", "blobs/7"] {
        fs::write(world.file(extra), b"x").unwrap();
        let refused = world.refusal(Some(&seal));
        assert!(matches!(refused, EngineError::Damaged { .. }), "{extra}: {refused}");
        fs::remove_file(world.file(extra)).unwrap();
    }
}

#[test]
fn half_a_snapshot_left_by_a_kill_in_open_is_swept_away() {
    let world = world();
    world.unclean();
    fs::write(world.file("snap.FFFFFFFFFFFFFFFF.generating"), b"half").unwrap();
    assert_eq!(entries(&*world.kind.open(None).unwrap()), 50);
    assert!(!world.file("snap.FFFFFFFFFFFFFFFF.generating").exists());
}

#[test]
fn a_file_sled_would_take_for_its_newest_snapshot_is_refused() {
    let world = world();
    world.unclean();
    fs::write(world.file("snap.backup"), b"not one").unwrap();
    let refused = world.refusal(None);
    assert!(refused.to_string().contains("snap.backup"), "{refused}");
}

#[test]
fn a_blob_stops_the_engine() {
    let world = world();
    let engine = world.kind.create().unwrap();
    fs::write(world.file("blobs/1"), b"x").unwrap();
    assert!(matches!(engine.flush().unwrap_err(), EngineError::Damaged { .. }));
    fs::remove_file(world.file("blobs/1")).unwrap();
    // it stays stopped: a later flush knows nothing of the failed one
    assert!(engine.apply(vec![number(1)]).is_err());
    assert!(engine.flush().is_err());
    assert_eq!(engine.get(b"a").unwrap(), None);
    assert!(engine.close().is_err());
}

#[test]
fn a_panic_in_sled_is_an_error_with_its_text() {
    let world = world();
    world.closed();
    let kind = SledKind { dir: world.dir.clone(), time_limit: Duration::from_secs(60), cache_bytes: 8 << 20 };
    let engine = kind.start(locked(&kind.dir).unwrap()).unwrap();
    let caught = engine.handle.call::<()>(|_| panic!("page {} is gone", 7)).unwrap_err();
    assert!(matches!(caught, EngineError::Damaged { .. }), "{caught}");
    assert!(caught.to_string().contains("page 7 is gone"), "{caught}");
    assert_eq!(entries(&engine), 50);
}
