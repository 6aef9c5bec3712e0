use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::store::contract::{Place, engine_contract};

engine_contract!(contract, || {
    let dir = tempfile::tempdir().unwrap();
    Place { kind: Box::new(kind_in(dir.path())), keep: Box::new(dir) }
});

fn kind_in(dir: &Path) -> SledKind {
    SledKind {
        path: dir.join("sled"),
        rescue: dir.join("rescue"),
        time_limit: Duration::from_secs(20),
        cache_bytes: 8 << 20,
    }
}

struct World {
    dir: tempfile::TempDir,
    kind: SledKind,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let kind = kind_in(dir.path());
    World { dir, kind }
}

impl World {
    /// An engine that has a snapshot, closed.
    fn closed(&self) -> Seal {
        self.kind.create().unwrap().close().unwrap();
        let engine = self.kind.open(None).unwrap();
        engine.apply((0..50).map(number).collect()).unwrap();
        let seal = engine.close().unwrap();
        self.kind.forget_rescue().unwrap();
        seal
    }

    /// The same, as a kill would leave it.
    fn unclean(&self) {
        self.closed();
        fs::rename(self.kind.path.join("closed"), self.kind.path.join("opened")).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.kind.path.join(name)
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        contents(&self.kind.path)
    }

    fn refusal(&self, seal: Option<&Seal>) -> EngineError {
        self.kind.open(seal).err().expect("refused")
    }
}

fn number(number: u32) -> Write {
    Write::Put(number.to_be_bytes().to_vec(), vec![number as u8; 100])
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = files::names(dir).unwrap();
    names.into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

fn entries(engine: &dyn Engine) -> usize {
    engine.range(&[], &[255; 8], usize::MAX).unwrap().len()
}

/// Each way a file can be damaged, with a word for it.
fn damages(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let flipped = |at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let zeroed = |at: usize| {
        let mut bytes = bytes.to_vec();
        let end = bytes.len().min(at + 4096);
        bytes[at..end].fill(0);
        bytes
    };
    let mut damages = vec![
        ("grown", [bytes, b"x"].concat()),
        ("emptied", Vec::new()),
        ("first bit", flipped(0)),
        ("middle bit", flipped(bytes.len() / 2)),
        ("last bit", flipped(bytes.len() - 1)),
        ("halved", bytes[..bytes.len() / 2].to_vec()),
        ("cut by one", bytes[..bytes.len() - 1].to_vec()),
    ];
    damages.extend((0..bytes.len()).step_by(4096).take(20).map(|at| ("zeroed", zeroed(at))));
    damages.retain(|(_, damaged)| damaged != bytes);
    damages
}

#[test]
fn with_a_seal_any_damage_is_an_error_and_changes_nothing() {
    let world = world();
    let seal = world.closed();
    assert!(seal.files.iter().any(|file| file.name.starts_with("snap.")));
    for file in seal.files.iter().filter(|file| file.len > 0) {
        let path = world.file(&file.name);
        let original = fs::read(&path).unwrap();
        for (what, damaged) in damages(&original) {
            fs::write(&path, damaged).unwrap();
            let before = world.contents();
            let refused = world.refusal(Some(&seal));
            assert!(matches!(refused, EngineError::Damaged { .. }), "{} {what}: {refused}", file.name);
            assert!(refused.to_string().contains(&file.name), "{refused}");
            assert!(world.contents() == before, "{} {what}", file.name);
        }
        fs::write(&path, original).unwrap();
    }
    assert_eq!(entries(&*world.kind.open(Some(&seal)).unwrap()), 50);
}

#[test]
fn with_a_seal_a_file_too_few_or_too_many_is_an_error_and_changes_nothing() {
    let world = world();
    let seal = world.closed();
    for file in &seal.files {
        let path = world.file(&file.name);
        let original = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let before = world.contents();
        let refused = world.refusal(Some(&seal));
        assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
        assert!(world.contents() == before, "{}", file.name);
        fs::write(&path, original).unwrap();
    }
    for extra in ["snap.FFFFFFFFFFFFFFFF", "snap.0000000000000000.generating", "db.bak", "opened", "blobs/7"]
    {
        fs::write(world.file(extra), b"x").unwrap();
        let refused = world.refusal(Some(&seal));
        assert!(matches!(refused, EngineError::Damaged { .. }), "{extra}: {refused}");
        fs::remove_file(world.file(extra)).unwrap();
    }
    assert_eq!(entries(&*world.kind.open(Some(&seal)).unwrap()), 50);
}

#[test]
fn without_a_seal_damage_never_panics_and_the_rescue_copy_holds_what_was_found() {
    let world = world();
    world.unclean();
    let original = world.contents();
    for name in original.keys().filter(|name| *name != "opened") {
        for (what, damaged) in damages(&original[name]).into_iter().take(6) {
            restore(&world.kind.path, &original);
            world.kind.forget_rescue().unwrap();
            fs::write(world.file(name), damaged).unwrap();
            let mut found = world.contents();
            found.remove("opened");
            // whether it opens, and with how much, is for the layer above to verify
            let _ = world.kind.open(None).map(|engine| entries(&*engine));
            assert!(contents(&world.kind.rescue) == found, "{name} {what}");
        }
    }
}

fn restore(dir: &Path, original: &BTreeMap<String, Vec<u8>>) {
    for name in files::names(dir).unwrap() {
        fs::remove_file(dir.join(name)).unwrap();
    }
    for (name, bytes) in original {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn without_a_seal_a_missing_file_is_an_error_and_none_is_made() {
    for name in ["db", "conf"] {
        let world = world();
        world.unclean();
        fs::remove_file(world.file(name)).unwrap();
        let before = world.contents();
        let refused = world.refusal(None);
        assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
        assert!(world.contents() == before);
    }
}

#[test]
fn an_emptied_data_file_does_not_open_as_a_new_engine() {
    let world = world();
    world.unclean();
    let snapshots =
        files::names(&world.kind.path).unwrap().into_iter().filter(|name| name.starts_with("snap."));
    snapshots.for_each(|name| fs::remove_file(world.file(&name)).unwrap());
    fs::write(world.file("db"), b"").unwrap();
    let refused = world.refusal(None);
    assert!(refused.to_string().contains("found nothing"), "{refused}");
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

/// A seal is consumed before sled may change a byte; without that, a kill in sled's open would look like
/// damage.
#[test]
fn a_kill_after_a_sealed_open_is_an_unclean_exit_and_not_damage() {
    let world = world();
    let seal = world.closed();
    let engine = world.kind.open(Some(&seal)).unwrap();
    assert!(!world.kind.rescue.exists());
    engine.apply(vec![number(100)]).unwrap();
    drop(engine);
    assert_ne!(files::seal(&world.kind.path).unwrap(), seal);
    assert_eq!(entries(&*world.kind.open(Some(&seal)).unwrap()), 51);
    assert!(world.kind.rescue.exists());
}

#[test]
fn a_rescue_copy_stays_the_first_one_until_it_is_forgotten() {
    let world = world();
    world.unclean();
    let first = world.contents();
    world.kind.open(None).unwrap().apply(vec![number(100)]).unwrap();
    drop(world.kind.open(None).unwrap());
    assert!(contents(&world.kind.rescue)["db"] == first["db"]);
    world.kind.forget_rescue().unwrap();
    assert!(!world.kind.rescue.exists());
    world.kind.forget_rescue().unwrap();
    drop(world.kind.open(None).unwrap());
    assert!(contents(&world.kind.rescue)["db"] != first["db"]);
}

#[test]
fn an_unfinished_rescue_copy_is_made_anew() {
    let world = world();
    world.unclean();
    let unfinished = world.dir.path().join("rescue.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("db"), b"half").unwrap();
    let before = world.contents();
    drop(world.kind.open(None).unwrap());
    assert!(contents(&world.kind.rescue)["db"] == before["db"]);
    assert!(!unfinished.exists());
}

#[test]
fn twenty_thousand_keys_and_the_largest_values_make_no_blobs_and_survive_reopening() {
    let world = world();
    let engine = world.kind.create().unwrap();
    for batch in 0..200 {
        engine.apply((batch * 100..(batch + 1) * 100).map(number).collect()).unwrap();
    }
    // seventeen neighbours of the largest size: more than one leaf holds
    for key in 0..17u8 {
        engine.apply(vec![Write::Put(vec![250, key], vec![key; MAX_VALUE])]).unwrap();
    }
    engine.flush().unwrap();
    let seal = engine.close().unwrap();
    let seal = world.kind.open(Some(&seal)).unwrap().close().unwrap();
    let engine = world.kind.open(Some(&seal)).unwrap();
    assert_eq!(entries(&*engine), 20_017);
    assert_eq!(engine.get(&[250, 16]).unwrap(), Some(vec![16; MAX_VALUE]));
    assert_eq!(fs::read_dir(world.file("blobs")).unwrap().count(), 0);
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
fn an_engine_opens_once_at_a_time_and_at_once_after_the_last_is_gone() {
    let world = world();
    let engine = world.kind.create().unwrap();
    let refused = world.refusal(None);
    assert!(refused.to_string().contains("another handle"), "{refused}");
    for _ in 0..5 {
        engine.apply(vec![number(1)]).unwrap();
    }
    drop(engine);
    for _ in 0..5 {
        drop(world.kind.open(None).unwrap());
    }
}

#[test]
fn an_open_that_takes_too_long_is_stuck() {
    let world = world();
    world.closed();
    let impatient = SledKind { time_limit: Duration::ZERO, ..world.kind.clone() };
    let stuck = impatient.open(None).err().expect("refused");
    assert!(matches!(stuck, EngineError::Stuck { doing: "opening", .. }), "{stuck}");
}

#[cfg(unix)]
#[test]
fn directories_and_files_are_private_to_the_user() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let world = world();
    world.unclean();
    let engine = world.kind.open(None).unwrap();
    engine.flush().unwrap();
    for dir in [&world.kind.path, &world.file("blobs"), &world.kind.rescue] {
        assert_eq!(mode(dir), 0o700, "{}", dir.display());
    }
    for dir in [&world.kind.path, &world.kind.rescue] {
        for name in files::names(dir).unwrap() {
            assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
        }
    }
}

#[test]
fn a_write_without_room_is_full_and_a_sync_without_room_is_not() {
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    assert!(matches!(files::failed(Path::new("db"), full()), EngineError::Full { .. }));
    assert!(matches!(files::sync_failed(Path::new("db"), full()), EngineError::Io { .. }));
}

#[test]
fn a_panic_in_sled_is_an_error_with_its_text() {
    let world = world();
    world.closed();
    let engine = world.kind.start(files::open_for_writing(&world.file("db")).unwrap()).unwrap();
    let caught = engine.handle.call::<()>(|_| panic!("page {} is gone", 7)).unwrap_err();
    assert!(matches!(caught, EngineError::Damaged { .. }), "{caught}");
    assert!(caught.to_string().contains("page 7 is gone"), "{caught}");
    assert_eq!(entries(&engine), 50);
}
