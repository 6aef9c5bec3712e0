//! One suite for every engine over real files: what damage, kills, permissions and hangs around it come to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::dir::{EngineDir, Layout, names};
use crate::store::engine::{Engine, EngineError, EngineKind, MAX_VALUE, Seal, Write};

/// The suite, and the engine's contract, for one engine: `hardened_suite!(&LAYOUT, |dir, time_limit| Box::new(..))`.
macro_rules! hardened_suite {
    ($layout:expr, $make:expr) => {
        $crate::store::contract::engine_contract!(contract, || {
            let world = $crate::store::hardened::suite::World::new($layout, $make);
            $crate::store::contract::Place { kind: world.kind, keep: Box::new(world.root) }
        });
        mod hardened {
            use super::*;
            $crate::store::hardened::suite::hardened_suite!(@tests $layout, $make;
                with_a_seal_any_damage_is_an_error_and_changes_nothing
                with_a_seal_a_file_too_few_or_too_many_is_an_error_and_changes_nothing
                without_a_seal_damage_never_panics_and_the_rescue_copy_holds_what_was_found
                without_a_seal_a_missing_file_is_an_error_and_none_is_made
                an_emptied_data_file_does_not_open_as_a_new_engine
                a_kill_after_a_sealed_open_is_an_unclean_exit_and_not_damage
                a_rescue_copy_stays_the_first_one_until_it_is_forgotten
                an_unfinished_rescue_copy_is_made_anew
                twenty_thousand_keys_and_the_largest_values_survive_reopening
                an_engine_opens_once_at_a_time_and_at_once_after_the_last_is_gone
                an_open_that_takes_too_long_is_stuck
                directories_and_files_are_private_to_the_user
            );
        }
    };
    (@tests $layout:expr, $make:expr; $($fact:ident)+) => {
        $(#[test]
        fn $fact() {
            $crate::store::hardened::suite::$fact(&$crate::store::hardened::suite::World::new($layout, $make));
        })+
    };
}
pub(in crate::store) use hardened_suite;

/// How an engine of the kind that is tested is made.
type Make = fn(EngineDir, Duration) -> Box<dyn EngineKind>;

pub(in crate::store) struct World {
    pub(in crate::store) root: tempfile::TempDir,
    pub(in crate::store) dir: EngineDir,
    pub(in crate::store) kind: Box<dyn EngineKind>,
    make: Make,
}

impl World {
    pub(in crate::store) fn new(layout: &'static Layout, make: Make) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = EngineDir::in_store(root.path(), layout);
        let kind = make(dir.clone(), Duration::from_secs(60));
        World { root, dir, kind, make }
    }

    /// An engine that was opened before, closed; sled then has a snapshot.
    pub(in crate::store) fn closed(&self) -> Seal {
        self.kind.create().unwrap().close().unwrap();
        let engine = self.kind.open(None).unwrap();
        engine.apply((0..50).map(number).collect()).unwrap();
        let seal = engine.close().unwrap();
        self.kind.verified().unwrap();
        seal
    }

    /// The same, as a kill would leave it.
    pub(in crate::store) fn unclean(&self) {
        self.closed();
        fs::rename(self.file("closed"), self.file("opened")).unwrap();
    }

    pub(in crate::store) fn file(&self, name: &str) -> PathBuf {
        self.dir.file(name)
    }

    pub(in crate::store) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        contents(&self.dir.path, self.dir.layout)
    }

    fn rescued(&self) -> BTreeMap<String, Vec<u8>> {
        contents(&self.dir.rescue, self.dir.layout)
    }

    pub(in crate::store) fn refusal(&self, seal: Option<&Seal>) -> EngineError {
        self.kind.open(seal).err().expect("refused")
    }

    /// What of these the engine reads.
    fn read_of(&self, mut contents: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
        contents.retain(|name, _| (self.dir.layout.reads)(name));
        contents
    }
}

pub(in crate::store) fn number(number: u32) -> Write {
    Write::Put(number.to_be_bytes().to_vec(), vec![number as u8; 100])
}

fn contents(dir: &Path, layout: &Layout) -> BTreeMap<String, Vec<u8>> {
    let names = names(dir, layout.empty_dir).unwrap();
    names.into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

pub(in crate::store) fn entries(engine: &dyn Engine) -> usize {
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

pub(in crate::store) fn with_a_seal_any_damage_is_an_error_and_changes_nothing(world: &World) {
    let seal = world.closed();
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

pub(in crate::store) fn with_a_seal_a_file_too_few_or_too_many_is_an_error_and_changes_nothing(
    world: &World,
) {
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
    for extra in ["snap.FFFFFFFFFFFFFFFF", "data.bak", "opened"] {
        fs::write(world.file(extra), b"x").unwrap();
        let refused = world.refusal(Some(&seal));
        assert!(matches!(refused, EngineError::Damaged { .. }), "{extra}: {refused}");
        fs::remove_file(world.file(extra)).unwrap();
    }
    assert_eq!(entries(&*world.kind.open(Some(&seal)).unwrap()), 50);
}

pub(in crate::store) fn without_a_seal_damage_never_panics_and_the_rescue_copy_holds_what_was_found(
    world: &World,
) {
    world.unclean();
    let original = world.contents();
    for name in original.keys().filter(|name| *name != "opened") {
        for (what, damaged) in damages(&original[name]).into_iter().take(6) {
            // an empty data file is refused before the engine is let at it
            let is_let_at_it = !damaged.is_empty() || world.dir.layout.needed.len() > 1;
            restore(world, &original);
            world.kind.verified().unwrap();
            fs::write(world.file(name), damaged).unwrap();
            let found = world.read_of(world.contents());
            // whether it opens, and with how much, is for the layer above to verify
            let _ = world.kind.open(None).map(|engine| entries(&*engine));
            assert!(!is_let_at_it || world.rescued() == found, "{name} {what}");
        }
    }
}

fn restore(world: &World, original: &BTreeMap<String, Vec<u8>>) {
    for name in world.dir.names().unwrap() {
        fs::remove_file(world.file(&name)).unwrap();
    }
    for (name, bytes) in original {
        fs::write(world.file(name), bytes).unwrap();
    }
}

pub(in crate::store) fn without_a_seal_a_missing_file_is_an_error_and_none_is_made(world: &World) {
    world.unclean();
    let original = world.contents();
    for name in world.dir.layout.needed {
        restore(world, &original);
        fs::remove_file(world.file(name)).unwrap();
        let before = world.contents();
        let refused = world.refusal(None);
        assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains(name), "{refused}");
        assert!(world.contents() == before);
    }
}

pub(in crate::store) fn an_emptied_data_file_does_not_open_as_a_new_engine(world: &World) {
    world.unclean();
    for name in world.dir.names().unwrap() {
        if !world.dir.layout.needed.contains(&name.as_str()) {
            fs::remove_file(world.file(&name)).unwrap();
        }
    }
    fs::write(world.dir.data(), b"").unwrap();
    let refused = world.refusal(None);
    assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
}

/// A seal is consumed before the engine may change a byte; without that, a kill in its open would look like damage.
pub(in crate::store) fn a_kill_after_a_sealed_open_is_an_unclean_exit_and_not_damage(world: &World) {
    let seal = world.closed();
    let engine = world.kind.open(Some(&seal)).unwrap();
    assert!(!world.dir.rescue.exists());
    engine.apply(vec![number(100)]).unwrap();
    drop(engine);
    assert_ne!(world.dir.seal().unwrap(), seal);
    assert_eq!(entries(&*world.kind.open(Some(&seal)).unwrap()), 51);
    assert!(world.dir.rescue.exists());
}

pub(in crate::store) fn a_rescue_copy_stays_the_first_one_until_it_is_forgotten(world: &World) {
    world.unclean();
    let first = world.read_of(world.contents());
    world.kind.open(None).unwrap().apply(vec![number(100)]).unwrap();
    drop(world.kind.open(None).unwrap());
    assert!(world.rescued() == first);
    world.kind.verified().unwrap();
    assert!(!world.dir.rescue.exists());
    world.kind.verified().unwrap();
    drop(world.kind.open(None).unwrap());
    assert!(world.rescued() != first);
}

pub(in crate::store) fn an_unfinished_rescue_copy_is_made_anew(world: &World) {
    world.unclean();
    let unfinished = world.root.path().join("rescue.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join(world.dir.layout.data), b"half").unwrap();
    let before = world.read_of(world.contents());
    drop(world.kind.open(None).unwrap());
    assert!(world.rescued() == before);
    assert!(!unfinished.exists());
}

pub(in crate::store) fn twenty_thousand_keys_and_the_largest_values_survive_reopening(world: &World) {
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
    if let Some(empty) = world.dir.layout.empty_dir {
        assert_eq!(fs::read_dir(world.file(empty)).unwrap().count(), 0);
    }
}

pub(in crate::store) fn an_engine_opens_once_at_a_time_and_at_once_after_the_last_is_gone(world: &World) {
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

pub(in crate::store) fn an_open_that_takes_too_long_is_stuck(world: &World) {
    world.closed();
    let impatient = (world.make)(world.dir.clone(), Duration::ZERO);
    let stuck = impatient.open(None).err().expect("refused");
    assert!(matches!(stuck, EngineError::Stuck { doing: "opening", .. }), "{stuck}");
}

#[cfg(unix)]
pub(in crate::store) fn directories_and_files_are_private_to_the_user(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    world.unclean();
    let engine = world.kind.open(None).unwrap();
    engine.flush().unwrap();
    let empty = world.dir.layout.empty_dir.map(|empty| world.file(empty));
    for dir in [Some(world.dir.path.clone()), Some(world.dir.rescue.clone()), empty].into_iter().flatten() {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
    }
    for dir in [&world.dir.path, &world.dir.rescue] {
        for name in names(dir, world.dir.layout.empty_dir).unwrap() {
            assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
        }
    }
}

#[cfg(not(unix))]
pub(in crate::store) fn directories_and_files_are_private_to_the_user(_: &World) {}
