//! The contract of [`Medium`], promise by promise, for every implementation. What a crash may do is asked of the
//! simulated machine alone: a real one cannot be crashed from a test. There it is also asked that everything the
//! contract allows does happen for some seed, since a machine that loses nothing would prove nothing.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::disk::Disk;
use super::medium::{Medium, MediumFile};
use super::simulated::SimulatedDisk;

const SEEDS: u64 = 200;

/// Asks a promise of every implementation.
fn everywhere(promise: impl Fn(&dyn Medium) -> io::Result<()>) -> io::Result<()> {
    let temporary = tempfile::tempdir()?;
    promise(&Disk::new(temporary.path()))?;
    promise(&*SimulatedDisk::new(1).medium())
}

/// What each seed made of the same calls. `setup` ends where the power goes, `look` sees the machine after.
fn outcomes<T: Ord>(
    setup: impl Fn(&dyn Medium) -> io::Result<()>,
    look: impl Fn(&dyn Medium) -> io::Result<T>,
) -> io::Result<BTreeSet<T>> {
    let outcome = |seed| {
        let disk = SimulatedDisk::new(seed);
        setup(&*disk.medium())?;
        disk.crash();
        look(&*disk.medium())
    };
    (0..SEEDS).map(outcome).collect()
}

fn create(medium: &dyn Medium, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn MediumFile>> {
    let file = medium.create(name)?;
    file.write_at(0, bytes)?;
    Ok(file)
}

/// A file that a crash cannot touch, but for what is done to it later.
fn create_durable(medium: &dyn Medium, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn MediumFile>> {
    let file = create(medium, name, bytes)?;
    file.sync()?;
    medium.sync_dir("")?;
    Ok(file)
}

fn read(medium: &dyn Medium, name: &str) -> io::Result<Vec<u8>> {
    let file = medium.open(name)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn kind<T>(answer: io::Result<T>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}

/// One letter per sector, `.` for zeros.
fn sectors(letters: &str) -> Vec<u8> {
    letters.bytes().flat_map(|letter| [if letter == b'.' { 0 } else { letter }; 512]).collect()
}

/// The same backwards, `?` for a sector that is a mixture.
fn letters(bytes: &[u8]) -> String {
    let letter = |sector: &[u8]| match sector {
        [0, rest @ ..] if rest.iter().all(|byte| *byte == 0) => '.',
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => char::from(*first),
        _ => '?',
    };
    bytes.chunks(512).map(letter).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn promise_1_what_was_written_is_read_back_at_once() -> io::Result<()> {
    everywhere(|medium| {
        let file = create(medium, "a", b"abcdef")?;
        file.write_at(2, b"XY")?;
        assert_eq!(read(medium, "a")?, b"abXYef");
        file.sync()?;
        file.write_at(5, b"Z!")?;
        assert_eq!(read(medium, "a")?, b"abXYeZ!");
        assert_eq!(file.len()?, 7);
        // a gap reads as zeros
        file.write_at(9, b"9")?;
        assert_eq!(read(medium, "a")?, b"abXYeZ!\0\09");
        Ok(())
    })
}

#[test]
fn promise_1_a_read_is_whole_or_an_error() -> io::Result<()> {
    everywhere(|medium| {
        let file = create(medium, "a", b"abc")?;
        file.read_at(3, &mut [])?;
        for (offset, len) in [(0, 4), (3, 1), (1 << 40, 1)] {
            assert_eq!(kind(file.read_at(offset, &mut vec![0; len])), Some(ErrorKind::UnexpectedEof));
        }
        Ok(())
    })
}

#[test]
fn promise_1_an_open_file_outlives_its_name() -> io::Result<()> {
    everywhere(|medium| {
        let file = create(medium, "a", b"abc")?;
        medium.remove("a")?;
        medium.sync_dir("")?;
        let mut bytes = [0; 3];
        file.read_at(0, &mut bytes)?;
        assert_eq!(&bytes, b"abc");
        Ok(())
    })
}

#[test]
fn promise_2_synced_bytes_and_their_length_survive() -> io::Result<()> {
    let written = sectors("abcde");
    let setup = |medium: &dyn Medium| {
        let file = create_durable(medium, "a", &written)?;
        // around and beside what must stay
        file.write_at(512, &sectors("X"))?;
        file.write_at(2_560, &sectors("YZ"))
    };
    for after in outcomes(setup, |medium| read(medium, "a"))? {
        assert!(after.len() >= written.len());
        assert_eq!(after[..512], written[..512]);
        assert_eq!(after[1_024..2_560], written[1_024..]);
        assert!(after[512] == b'b' || after[512] == b'X');
    }
    Ok(())
}

#[test]
fn promise_2_a_sync_also_covers_what_another_handle_wrote() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        create_durable(medium, "a", b"")?.write_at(0, b"abc")?;
        medium.open("a")?.sync()
    };
    assert_eq!(outcomes(setup, |medium| read(medium, "a"))?, BTreeSet::from([b"abc".to_vec()]));
    Ok(())
}

#[test]
fn promise_3_unsynced_writes_are_lost_torn_and_reordered() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        let file = create_durable(medium, "a", &sectors("...."))?;
        file.write_at(0, &sectors("ab"))?;
        file.write_at(1_024, &sectors("cd"))
    };
    let seen = outcomes(setup, |medium| Ok(letters(&read(medium, "a")?)))?;
    assert!(seen.contains("...."), "nothing was ever lost");
    assert!(seen.contains("abcd"), "nothing was ever kept");
    assert!(seen.contains("a...") && seen.contains(".b.."), "no write was ever torn");
    assert!(seen.contains("..cd"), "the later write was never there without the earlier one");
    assert_eq!(seen.len(), 16, "some subset of the four sectors never came: {seen:?}");
    Ok(())
}

#[test]
fn promise_3_an_unsynced_length_may_be_there_without_its_bytes() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        let file = create_durable(medium, "a", &sectors("a"))?;
        file.write_at(512, &sectors("b"))?;
        file.write_at(1_024, &sectors("c"))
    };
    let seen = outcomes(setup, |medium| Ok(letters(&read(medium, "a")?)))?;
    assert_eq!(seen, set(["a", "a.", "ab", "a..", "ab.", "a.c", "abc"]));
    Ok(())
}

#[test]
fn promise_3_of_two_unsynced_writes_to_one_place_either_may_be_there() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        let file = create_durable(medium, "a", &sectors("a"))?;
        file.write_at(0, &sectors("b"))?;
        file.write_at(0, &sectors("c"))
    };
    let seen = outcomes(setup, |medium| Ok(letters(&read(medium, "a")?)))?;
    assert_eq!(seen, set(["a", "b", "c"]));
    Ok(())
}

#[test]
fn promise_4_what_a_directory_sync_covered_survives() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        medium.create_dir("d")?;
        for name in ["made", "old", "gone", "d/made"] {
            medium.create(name)?;
        }
        medium.sync_dir("d")?;
        medium.sync_dir("")?;
        medium.rename("old", "new")?;
        medium.remove("gone")?;
        medium.sync_dir("")?;
        // not synced, and about other names
        medium.create("later").map(drop)
    };
    let look = |medium: &dyn Medium| {
        let mut names = medium.list("")?;
        names.retain(|name| name != "later");
        Ok((names, medium.list("d")?))
    };
    let expected = (vec!["made".to_owned(), "new".to_owned()], vec!["made".to_owned()]);
    assert_eq!(outcomes(setup, look)?, BTreeSet::from([expected]));
    Ok(())
}

#[test]
fn promise_4_what_no_directory_sync_covered_may_or_may_not_have_happened() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        create_durable(medium, "old", b"")?;
        create_durable(medium, "gone", b"")?;
        medium.create("made")?;
        medium.rename("old", "new")?;
        medium.remove("gone")
    };
    let seen = outcomes(setup, |medium| Ok(medium.list("")?.join(" ")))?;
    let mut expected = BTreeSet::new();
    for gone in ["", "gone "] {
        for made in ["", "made "] {
            for renamed in ["new", "old"] {
                expected.insert(format!("{gone}{made}{renamed}"));
            }
        }
    }
    assert_eq!(seen, expected);
    Ok(())
}

#[test]
fn promise_4_a_change_never_survives_without_those_it_builds_on() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        create_durable(medium, "a", b"1")?;
        medium.rename("a", "b")?;
        create(medium, "a", b"2")?.sync()
    };
    let look = |medium: &dyn Medium| {
        let names = medium.list("")?;
        let read = |name: &String| Ok(format!("{name}{}", String::from_utf8_lossy(&read(medium, name)?)));
        names.iter().map(read).collect::<io::Result<String>>()
    };
    // never the new `a` alone: the file that was durable as `a` is always somewhere
    assert_eq!(outcomes(setup, look)?, set(["a1", "b1", "a2b1"]));
    Ok(())
}

#[test]
fn promise_4_a_sync_of_one_directory_leaves_the_other_undecided() -> io::Result<()> {
    let setup = |medium: &dyn Medium| {
        medium.create_dir("d")?;
        medium.create("d/a")?;
        medium.sync_dir("d")?;
        medium.create("b")?;
        medium.create("d/c")?;
        medium.sync_dir("")
    };
    let look = |medium: &dyn Medium| Ok([medium.list("")?, medium.list("d")?].concat().join(" "));
    assert_eq!(outcomes(setup, look)?, set(["b a", "b a c"]));
    Ok(())
}

#[test]
fn promise_4_a_rename_across_directories_needs_both_synced() -> io::Result<()> {
    let across = |synced: &'static [&'static str]| {
        let setup = move |medium: &dyn Medium| {
            medium.create_dir("d")?;
            medium.create("d/a")?;
            medium.sync_dir("d")?;
            medium.rename("d/a", "b")?;
            synced.iter().try_for_each(|dir| medium.sync_dir(dir))
        };
        outcomes(setup, |medium| Ok([medium.list("")?, medium.list("d")?].concat().join(" ")))
    };
    assert_eq!(across(&["d"])?, set(["a", "b"]));
    assert_eq!(across(&[""])?, set(["a", "b"]));
    assert_eq!(across(&["", "d"])?, set(["b"]));
    Ok(())
}

#[test]
fn promise_5_a_rename_replaces_its_target() -> io::Result<()> {
    everywhere(|medium| {
        create(medium, "a", b"new")?;
        create(medium, "b", b"old")?;
        medium.rename("a", "b")?;
        assert_eq!(medium.list("")?, ["b"]);
        assert_eq!(read(medium, "b")?, b"new");
        medium.rename("b", "b")?;
        assert_eq!(read(medium, "b")?, b"new");
        medium.create_dir("d")?;
        medium.rename("b", "d/c")?;
        assert_eq!(read(medium, "d/c")?, b"new");
        assert_eq!(kind(medium.rename("b", "c")), Some(ErrorKind::NotFound));
        assert_eq!(kind(medium.rename("d/c", "e/c")), Some(ErrorKind::NotFound));
        Ok(())
    })
}

/// What a reader finds under `target` when the power goes at any one operation of replacing it.
fn replaced(sync_first: bool) -> io::Result<BTreeSet<String>> {
    let start = SimulatedDisk::new(7);
    create_durable(&*start.medium(), "target", &sectors("old"))?;
    let replace = |disk: &SimulatedDisk| {
        let medium = disk.medium();
        let file = create(&*medium, "temporary", &sectors("NEW"))?;
        if sync_first {
            file.sync()?;
        }
        medium.rename("temporary", "target")?;
        medium.sync_dir("")
    };
    let whole = start.fork();
    replace(&whole)?;
    let mut seen = BTreeSet::new();
    for operation in start.operations() + 1..=whole.operations() + 1 {
        for _ in 0..30 {
            let disk = start.fork();
            disk.cut_power_at(operation);
            assert_eq!(replace(&disk).is_ok(), operation > whole.operations());
            disk.crash();
            seen.insert(letters(&read(&*disk.medium(), "target")?));
        }
    }
    Ok(seen)
}

#[test]
fn promise_5_a_file_replaced_by_a_synced_one_is_one_of_the_two() -> io::Result<()> {
    assert_eq!(replaced(true)?, set(["NEW", "old"]));
    Ok(())
}

#[test]
fn promise_5_without_the_sync_the_target_can_be_neither() -> io::Result<()> {
    let seen = replaced(false)?;
    assert!(seen.contains("") && seen.contains(".E."), "a forgotten sync was never seen: {seen:?}");
    Ok(())
}

#[test]
fn promise_6_create_refuses_what_is_there_and_open_what_is_not() -> io::Result<()> {
    everywhere(|medium| {
        create(medium, "a", b"kept")?;
        assert_eq!(kind(medium.create("a")), Some(ErrorKind::AlreadyExists));
        assert_eq!(read(medium, "a")?, b"kept");
        medium.create_dir("d")?;
        assert_eq!(kind(medium.create("d")), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(medium.create_dir("a")), Some(ErrorKind::AlreadyExists));
        for name in ["b", "d/b", "e/b"] {
            assert_eq!(kind(medium.open(name)), Some(ErrorKind::NotFound));
            assert_eq!(kind(medium.remove(name)), Some(ErrorKind::NotFound));
        }
        assert_eq!(kind(medium.create("e/b")), Some(ErrorKind::NotFound));
        assert_eq!(kind(medium.list("e")), Some(ErrorKind::NotFound));
        assert_eq!(kind(medium.sync_dir("e")), Some(ErrorKind::NotFound));
        Ok(())
    })
}

#[test]
fn promise_7_a_write_without_room_says_so_and_writes_no_more_than_there_is() -> io::Result<()> {
    let mut parts = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new(seed);
        let medium = disk.medium();
        let file = create(&*medium, "a", b"0123")?;
        disk.set_free_space(Some(4));
        assert_eq!(kind(file.write_at(2, b"abcdefg")), Some(ErrorKind::StorageFull));
        let now = read(&*medium, "a")?;
        assert_eq!(medium.free_space()?, 8 - now.len() as u64);
        let part = now.iter().filter(|byte| byte.is_ascii_lowercase()).count();
        assert_eq!(now[2..2 + part], b"abcdef"[..part]);
        parts.insert(part);
        // what needs no room still works, and a removal makes some
        file.write_at(0, b"XX")?;
        file.sync()?;
        medium.remove("a")?;
        assert_eq!(medium.free_space()?, 8);
        create(&*medium, "b", b"12345678")?;
        assert_eq!(medium.free_space()?, 0);
    }
    assert_eq!(parts, (0..=6).collect());
    Ok(())
}

#[test]
fn a_listing_is_sorted_and_shows_the_files_of_one_directory() -> io::Result<()> {
    everywhere(|medium| {
        medium.create_dir("d")?;
        medium.create_dir("d")?;
        for name in ["b", "a", "d/2", "d/1", "c"] {
            medium.create(name)?;
        }
        assert_eq!(medium.list("")?, ["a", "b", "c"]);
        assert_eq!(medium.list("d")?, ["1", "2"]);
        medium.remove("b")?;
        assert_eq!(medium.list("")?, ["a", "c"]);
        Ok(())
    })
}

#[test]
fn a_name_that_leads_out_of_the_store_is_refused_by_every_call() -> io::Result<()> {
    everywhere(|medium| {
        medium.create("a")?;
        for name in ["../a", "/a", "..", "", "a/b/c"] {
            let refused = [
                kind(medium.create(name)),
                kind(medium.open(name)),
                kind(medium.remove(name)),
                kind(medium.rename("a", name)),
                kind(medium.rename(name, "a")),
            ];
            assert_eq!(refused, [Some(ErrorKind::InvalidInput); 5], "{name:?}");
        }
        for dir in ["..", "/", "a/b"] {
            let refused = [kind(medium.list(dir)), kind(medium.create_dir(dir)), kind(medium.sync_dir(dir))];
            assert_eq!(refused, [Some(ErrorKind::InvalidInput); 3], "{dir:?}");
        }
        Ok(())
    })
}
