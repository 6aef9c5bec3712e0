//! Which engine a store has: the one it was made with, found from its manifest, and no other in silence.

use std::fs;

use super::*;
use crate::store::manifest::Manifest;

/// An engine that is not this one: another of this build, or one that no build has.
fn rename_engine(root: &Path, to: &str) {
    let medium = super::super::disk::Disk::new(root);
    let manifest = Manifest::read(&medium, root).expect("reads").expect("a manifest");
    Manifest { engine: to.into(), ..manifest }.write(&medium, root).expect("writes");
}

#[test]
fn a_store_opens_with_the_engine_it_was_made_with_when_none_is_chosen() {
    for engine in EngineChoice::available() {
        let dir = tempfile::tempdir().expect("a directory");
        make_directory(dir.path(), engine);
        let driven = drive_directory(dir.path());
        send(driven.store(), &letter(LOG, &body(7, 100))).expect("is taken");
        driven.close().expect("closes");
        assert_eq!(tags(drive_directory(dir.path()).store(), LOG), [7]);
        assert!(dir.path().join(engine.name()).exists());
        let directories = fs::read_dir(dir.path()).expect("lists").filter_map(Result::ok);
        let engines =
            directories.filter(|entry| EngineChoice::named(&entry.file_name().to_string_lossy()).is_some());
        assert_eq!(engines.count(), 1, "{engine:?}");
    }
}

#[test]
fn a_new_store_has_sled_unless_another_is_chosen() {
    let dir = tempfile::tempdir().expect("a directory");
    drive_directory(dir.path()).close().expect("closes");
    assert!(dir.path().join("sled").exists());
    open_directory(dir.path(), &small_with(EngineChoice::sled())).expect("it was sled all along");
}

#[test]
fn another_engine_than_the_stores_own_is_refused_with_what_to_do_and_nothing_is_changed() {
    for engine in EngineChoice::available() {
        let dir = tempfile::tempdir().expect("a directory");
        make_directory(dir.path(), engine);
        // where a build has one engine alone, the store is made to have another
        let other = EngineChoice::available().find(|other| *other != engine);
        let found = other.map_or("other", |_| engine.name());
        rename_engine(dir.path(), found);
        let manifest = fs::read(dir.path().join("MANIFEST")).expect("reads");
        let chosen = other.unwrap_or(engine);
        let refused = open_directory(dir.path(), &small_with(chosen)).map(drop).expect_err("is another");
        assert!(matches!(refused, StoreError::OtherEngine { .. }), "{refused}");
        let text = refused.to_string();
        for said in [found, chosen.name(), "MANIFEST", "choose", "none"] {
            assert!(text.contains(said), "{said} in: {text}");
        }
        assert_eq!(fs::read(dir.path().join("MANIFEST")).expect("reads"), manifest);
        let made = other.is_some_and(|other| dir.path().join(other.name()).exists());
        assert!(!made, "the other engine was begun");
    }
}

#[test]
fn an_engine_this_build_does_not_have_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    make_directory(dir.path(), EngineChoice::sled());
    rename_engine(dir.path(), "stone");
    let refused = open_directory(dir.path(), &small()).map(drop).expect_err("is none of ours");
    assert!(matches!(refused, StoreError::UnknownEngine { .. }), "{refused}");
    let text = refused.to_string();
    for said in ["stone", "sled", "feature", "MANIFEST"] {
        assert!(text.contains(said), "{said} in: {text}");
    }
}

/// A process killed while it makes a store may have begun with another engine than the next one is told to take.
#[test]
fn what_an_unfinished_creation_left_of_another_engine_is_removed() {
    for begun in EngineChoice::available() {
        for chosen in EngineChoice::available() {
            let dir = tempfile::tempdir().expect("a directory");
            begun.in_store(dir.path()).create().expect("is made").close().expect("closes");
            fs::write(dir.path().join("CREATING"), b"").expect("writes");
            open_directory(dir.path(), &small_with(chosen)).expect("begins anew").0.close().expect("closes");
            assert_eq!(dir.path().join(begun.name()).exists(), begun == chosen);
        }
    }
}

#[test]
fn an_engine_without_a_manifest_is_refused_whichever_is_chosen() {
    for begun in EngineChoice::available() {
        for chosen in EngineChoice::available() {
            let dir = tempfile::tempdir().expect("a directory");
            begun.in_store(dir.path()).create().expect("is made").close().expect("closes");
            let refused =
                open_directory(dir.path(), &small_with(chosen)).map(drop).expect_err("is a part of a store");
            assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        }
    }
}

#[test]
fn a_backup_has_the_engine_of_the_store_or_the_one_that_is_asked_for() {
    for engine in EngineChoice::available() {
        let dir = tempfile::tempdir().expect("a directory");
        make_directory(&dir.path().join("store"), engine);
        let driven = drive_directory(&dir.path().join("store"));
        for tag in 0..60 {
            send(driven.store(), &letter(LOG, &body(tag, 1_500))).expect("is taken");
        }
        let same = dir.path().join("same");
        driven.store().backup(&same).expect("a backup");
        let copies = EngineChoice::available().map(|other| (dir.path().join(other.name()), other));
        for (copy, other) in copies.chain([(same, engine)]) {
            if !copy.exists() {
                driven.store().backup_with(&copy, other).expect("a backup");
            }
            let (copied, report) = open_directory(&copy, &small_with(other)).expect("opens");
            assert!(report.clean);
            assert_eq!(tags(copied.store(), LOG), (0..60).collect::<Vec<_>>());
            copied.close().expect("closes");
        }
    }
}
