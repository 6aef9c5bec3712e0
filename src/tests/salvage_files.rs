//! The same with files and the real engine: who is refused, that nothing of the store is changed, and that damage to the engine's
//! own files ends in a report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::world::*;
use crate::{CheckError, SalvageError, Severity, StoreError, System};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Every file below a directory, with its bytes.
fn files(of: &Path) -> Files {
    let mut all = Files::new();
    for entry in fs::read_dir(of).expect("lists") {
        let path = entry.expect("is an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("reads");
            all.insert(path, bytes);
        }
    }
    all
}

async fn open(path: &Path) -> System {
    let builder =
        System::builder().max_message(8 << 10).journal_segment(64 << 10).overlay(16 << 10).ballast(0);
    builder.open(path).await.expect("opens")
}

/// A store with mail in it, of which a part was handled.
async fn lay(path: &Path, cleanly: bool) -> u64 {
    let system = open(path).await;
    let to = bound(&system, "a").await;
    for number in 0..120 {
        to.tell(note(format!("{number} {}", "x".repeat(600)))).await.expect("accepted");
    }
    system.shutdown(secs(60)).await.expect("shuts down");
    if !cleanly {
        let system = open(path).await;
        let to = bound(&system, "a").await;
        for number in 120..160 {
            to.tell(note(format!("{number} {}", "x".repeat(600)))).await.expect("accepted");
        }
        drop((to, system));
        return 160;
    }
    120
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_refused_and_one_that_is_looked_at_is_not_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, to) = (directory.path().join("store"), directory.path().join("new"));
    let system = open(&path).await;
    let in_use = crate::check(&path).expect_err("is in use");
    assert!(matches!(in_use, CheckError::Store(StoreError::Locked { .. })), "{in_use}");
    let in_use = crate::salvage(&path, &to).expect_err("is in use");
    assert!(matches!(in_use, SalvageError::Store(StoreError::Locked { .. })), "{in_use}");
    system.shutdown(secs(60)).await.expect("shuts down");
    assert_eq!(crate::check(&path).expect("nobody has it open").findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_and_where_none_may_be_made_are_errors_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, empty) = (directory.path().join("store"), directory.path().join("empty"));
    fs::create_dir(&empty).expect("makes");
    fs::write(directory.path().join("file"), "mine").expect("writes");
    for none in [directory.path().join("missing"), directory.path().join("file"), empty] {
        let refused = crate::check(&none).expect_err("is no store");
        assert!(matches!(&refused, CheckError::NoStore { path, .. } if *path == none), "{refused:?}");
        let refused = crate::salvage(&none, directory.path().join("new")).expect_err("is no store");
        assert!(matches!(refused, SalvageError::NoStore { .. }), "{refused:?}");
    }
    lay(&path, true).await;
    let before = files(&path);
    for full in [&path, directory.path()] {
        let refused = crate::salvage(&path, full).expect_err("is not empty");
        assert!(matches!(refused, SalvageError::NotEmpty { .. }), "{refused:?}");
    }
    for inside in ["new", "pages", "sled/a/b"] {
        let refused = crate::salvage(&path, path.join(inside)).expect_err("is inside");
        assert!(
            matches!(refused, SalvageError::Inside { .. } | SalvageError::NotEmpty { .. }),
            "{refused:?}"
        );
    }
    assert!(files(&path) == before, "the store was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_store_changes_no_byte_of_it_whatever_is_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let originals = [directory.path().join("closed"), directory.path().join("killed")];
    let sent = [lay(&originals[0], true).await, lay(&originals[1], false).await];
    let (mut chance, mut turn) = (3, 0);
    for (original, sent) in originals.iter().zip(sent) {
        let whole = crate::check(original).expect("is looked through");
        assert_eq!((whole.worst(), whole.contents.mailboxes[0].waiting), (None, sent), "{whole:?}");
        let names: Vec<PathBuf> = files(original)
            .into_iter()
            .filter(|(path, bytes)| !bytes.is_empty() && !path.to_string_lossy().contains("spare-"))
            .map(|(path, _)| path.strip_prefix(original).expect("is below").to_path_buf())
            .collect();
        for name in names.iter().filter(|name| !["LOCK", "running"].contains(&&*name.to_string_lossy())) {
            turn += 1;
            // each file in two ways, each way on both stores
            for how in (0..3).filter(|how| (how + turn) % 3 > 0) {
                let case = directory.path().join("case");
                let store = case.join("store");
                copy(original, &store);
                let what = damage(&store.join(name), how, &mut chance);
                holds(&store, &case.join("new"), sent, &format!("{}, {what}", name.display())).await;
                fs::remove_dir_all(&case).expect("removes");
            }
        }
    }
}

/// Looks through a damaged store and salvages it; what was carried opens, and nobody was told less than is lost.
async fn holds(store: &Path, to: &Path, sent: u64, what: &str) {
    let before = files(store);
    let found = crate::check(store).unwrap_or_else(|why| panic!("{what}: {why}"));
    let carried = crate::salvage(store, to).unwrap_or_else(|why| panic!("{what}: {why}"));
    assert!(files(store) == before, "{what}: the store was changed");
    assert_eq!(carried.found, found, "{what}");
    assert!(!to.join("aside").exists(), "{what}: a copy was left behind");
    let waiting = found.contents.mailboxes.iter().find(|of| of.name == "a").map_or(0, |of| of.waiting);
    // the last write of a store that was killed cannot be told from one that was cut short
    let told = found.worst() >= Some(Severity::Doubt) || waiting >= sent.min(159);
    assert!(told, "{what}: {waiting} of {sent} are there, and nobody says so: {found:#?}");
    let system = open(to).await;
    assert_eq!(bound(&system, "a").await.waiting(), waiting, "{what}");
    let log = Log::new();
    let actor = scribe(&system, "a", &log).await;
    until("the mailbox to be empty", || actor.waiting() == 0).await;
    system.shutdown(secs(60)).await.expect("shuts down");
    let numbers: Vec<u64> = log
        .all()
        .iter()
        .map(|text| text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
        .collect();
    assert!(numbers.is_sorted() && numbers.len() as u64 == waiting, "{what}: {numbers:?}");
}

fn damage(file: &Path, how: u64, chance: &mut u64) -> String {
    let mut bytes = fs::read(file).expect("reads");
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    *chance = crate::clock::mix(chance.wrapping_add(0x9E37_79B9));
    let at = (*chance % end as u64) as usize;
    let what = match how {
        0 => {
            fs::remove_file(file).expect("removes");
            return "deleted".into();
        }
        1 => {
            bytes[at] ^= 1 << (at % 8);
            format!("a bit of byte {at}")
        }
        _ => {
            let start = at / 4096 * 4096;
            let end = bytes.len().min(start + 4096);
            bytes[start..end].fill(0);
            format!("a block of zeros at {start}")
        }
    };
    fs::write(file, bytes).expect("writes");
    what
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists") {
        let path = entry.expect("is an entry").path();
        let to = to.join(path.file_name().expect("has a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copies");
        }
    }
}
