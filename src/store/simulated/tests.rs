//! What the simulated machine does beyond the contract of a medium: its map, its faults, its copies.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;

use super::super::engine::{Engine, EngineError, MAX_VALUE, Write};
use super::SimulatedDisk;

type Tested = Result<(), Box<dyn std::error::Error>>;

fn put(key: u64, value: u64) -> Write {
    Write::Put(key.to_be_bytes().to_vec(), value.to_be_bytes().to_vec())
}

fn values(engine: &dyn Engine) -> Result<Vec<u64>, EngineError> {
    let pairs = engine.range(&[], &[0xFF; 9], usize::MAX)?;
    let number = |value: &[u8]| value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(pairs.iter().map(|(_, value)| number(value)).collect())
}

#[test]
fn after_a_crash_the_map_holds_a_prefix_of_whole_batches_at_least_up_to_the_flush() -> Tested {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = SimulatedDisk::new(seed);
        let engine = disk.engine_kind().create()?;
        for batch in 1..=6 {
            // each batch replaces one pair, takes one away and adds one
            engine.apply(vec![
                put(0, batch),
                Write::Delete(batch.to_be_bytes().to_vec()),
                put(batch + 1, batch),
            ])?;
            if batch == 3 {
                engine.flush()?;
            }
        }
        assert_eq!(values(&*engine)?, [6, 6]);
        disk.crash();
        let after = values(&*disk.engine_kind().open(None)?)?;
        assert_eq!(after.len(), 2);
        assert_eq!(after[0], after[1], "a batch was torn");
        seen.insert(after[0]);
    }
    assert_eq!(seen, BTreeSet::from([3, 4, 5, 6]));
    Ok(())
}

#[test]
fn a_power_cut_leaves_a_batch_whole_or_not_at_all() -> Tested {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimulatedDisk::new(seed);
        let engine = disk.engine_kind().create()?;
        disk.cut_power_at(2);
        assert!(engine.apply(vec![put(1, 1), put(2, 1)]).is_err());
        assert!(engine.get(b"").is_err(), "a read got through without power");
        disk.crash();
        seen.insert(values(&*disk.engine_kind().open(None)?)?);
    }
    assert_eq!(seen, BTreeSet::from([vec![], vec![1, 1]]));
    Ok(())
}

#[test]
fn a_kill_leaves_what_was_written_and_a_prefix_of_what_the_engine_had_not_flushed() -> Tested {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimulatedDisk::new(seed);
        let (medium, engine) = (disk.medium(), disk.engine_kind().create()?);
        medium.create("file")?.write_at(0, b"unsynced")?;
        engine.apply(vec![put(1, 1)])?;
        engine.flush()?;
        engine.apply(vec![put(2, 2)])?;
        disk.kill();
        assert!(medium.open("file").is_err(), "a handle of the process that is gone");
        let mut read = [0; 8];
        disk.medium().open("file")?.read_at(0, &mut read)?;
        assert_eq!(&read, b"unsynced");
        seen.insert(values(&*disk.engine_kind().open(None)?)?);
    }
    assert_eq!(seen, BTreeSet::from([vec![1], vec![1, 2]]));
    Ok(())
}

#[test]
fn a_write_is_torn_when_a_part_of_it_is_there_and_not_all() -> Tested {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = SimulatedDisk::new(seed);
        let file = disk.medium().create("file")?;
        file.write_at(0, &[0; 2048])?;
        file.sync()?;
        disk.medium().sync_dir("")?;
        disk.cut_power_at(disk.operations() + 1);
        assert!(file.write_at(0, &[1; 2048]).is_err());
        disk.crash();
        let mut read = [0; 2048];
        disk.medium().open("file")?.read_at(0, &mut read)?;
        let there = read.iter().filter(|byte| **byte == 1).count();
        assert_eq!(disk.torn_writes() > 0, (1..2048).contains(&there), "seed {seed}: {there}");
        seen.insert(disk.torn_writes() > 0);
    }
    assert_eq!(seen, BTreeSet::from([false, true]));
    Ok(())
}

#[test]
fn the_map_answers_ranges_and_the_last_pair_of_one() -> Tested {
    let engine = SimulatedDisk::new(1).engine_kind().create()?;
    engine.apply((1..=5).map(|key| Write::Put(vec![key], vec![key])).collect())?;
    let pair = |key: u8| (vec![key], vec![key]);
    assert_eq!(engine.get(&[3])?, Some(vec![3]));
    assert_eq!(engine.get(&[6])?, None);
    assert_eq!(engine.range(&[2], &[5], 9)?, [pair(2), pair(3), pair(4)]);
    assert_eq!(engine.range(&[2], &[5], 2)?, [pair(2), pair(3)]);
    assert_eq!(engine.range(&[5], &[2], 9)?, []);
    assert_eq!(engine.last(&[2], &[4])?, Some(pair(4)));
    assert_eq!(engine.last(&[4], &[2])?, None);
    assert_eq!(engine.last(&[6], &[9])?, None);
    Ok(())
}

#[test]
fn an_engine_is_made_once_and_found_until_it_is_removed() -> Tested {
    let kind = SimulatedDisk::new(1).engine_kind();
    assert!(!kind.exists()?);
    assert!(kind.open(None).is_err());
    kind.create()?.apply(vec![put(1, 1)])?;
    assert!(kind.exists()?);
    assert!(kind.create().is_err());
    kind.remove()?;
    assert!(!kind.exists()?);
    assert!(values(&*kind.create()?)?.is_empty());
    Ok(())
}

#[test]
fn a_seal_tells_a_changed_pair() -> Tested {
    let disk = SimulatedDisk::new(1);
    let engine = disk.engine_kind().create()?;
    engine.apply(vec![Write::Put(b"ab".to_vec(), b"c".to_vec())])?;
    let seal = engine.close()?;
    assert_eq!((seal.files[0].name.as_str(), seal.files[0].len), ("map", 1));
    disk.crash();
    disk.engine_kind().open(Some(&seal))?;
    // the same bytes, cut at another place
    disk.damage_engine(|map| {
        map.clear();
        map.insert(b"a".to_vec(), b"bc".to_vec());
    });
    let opened = disk.engine_kind().open(Some(&seal));
    assert!(matches!(opened.err(), Some(EngineError::Damaged { .. })));
    disk.engine_kind().open(None)?;
    Ok(())
}

#[test]
fn an_engine_without_room_stays_full_until_it_is_opened_again() -> Tested {
    let disk = SimulatedDisk::new(1);
    let kind = disk.engine_kind();
    let engine = kind.create()?;
    disk.set_free_space(Some(31));
    engine.apply(vec![put(1, 1)])?;
    assert_eq!(disk.medium().free_space()?, 15);
    let is_full = |answer: Result<(), EngineError>| matches!(answer, Err(EngineError::Full { .. }));
    assert!(is_full(engine.apply(vec![Write::Delete(1_u64.to_be_bytes().to_vec()), put(2, 2)])));
    disk.set_free_space(None);
    assert!(is_full(engine.apply(vec![])));
    assert!(is_full(engine.flush()));
    let again = kind.open(None)?;
    assert_eq!(values(&*again)?, [1], "a refused batch left something");
    again.apply(vec![put(2, 2)])?;
    Ok(())
}

#[test]
fn a_pair_that_is_too_long_is_refused() -> Tested {
    let engine = SimulatedDisk::new(1).engine_kind().create()?;
    engine.apply(vec![Write::Put(vec![0; 1_024], vec![0; MAX_VALUE])])?;
    assert!(engine.apply(vec![Write::Put(vec![0; 1_025], vec![])]).is_err());
    assert!(engine.apply(vec![Write::Put(vec![], vec![0; MAX_VALUE + 1])]).is_err());
    Ok(())
}

#[test]
fn files_and_map_share_one_count_and_reads_are_not_counted() -> Tested {
    let disk = SimulatedDisk::new(1);
    let medium = disk.medium();
    medium.create_dir("d")?;
    let file = medium.create("d/a")?;
    file.write_at(0, b"a")?;
    file.sync()?;
    medium.rename("d/a", "d/b")?;
    medium.sync_dir("d")?;
    assert_eq!(disk.operations(), 6);
    let kind = disk.engine_kind();
    let engine = kind.create()?;
    engine.apply(vec![put(1, 1)])?;
    engine.flush()?;
    engine.close()?;
    medium.remove("d/b")?;
    assert_eq!(disk.operations(), 11);
    medium.list("d")?;
    medium.free_space()?;
    kind.open(None)?.get(b"a")?;
    assert_eq!(disk.operations(), 11);
    assert_eq!(disk.syncs(), 1);
    assert_eq!(disk.files(), Vec::<String>::new());
    Ok(())
}

#[test]
fn the_same_seed_and_calls_give_the_same_outcome_and_each_crash_another() -> Tested {
    let run = |seed| {
        let disk = SimulatedDisk::new(seed);
        let mut seen = Vec::new();
        for _ in 0..20 {
            // each round finds the machine as the one before did: only the crash can differ
            let file = disk.medium().create("a")?;
            disk.medium().sync_dir("")?;
            file.write_at(0, &[1; 4 * 512])?;
            disk.crash();
            let file = disk.medium().open("a")?;
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
            file.read_at(0, &mut bytes)?;
            seen.push(bytes);
            disk.medium().remove("a")?;
            disk.medium().sync_dir("")?;
        }
        Ok::<_, io::Error>(seen)
    };
    let first = run(3)?;
    assert_eq!(first, run(3)?);
    assert_ne!(first, run(4)?);
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 4, "the crashes were all alike");
    Ok(())
}

#[test]
fn after_a_power_cut_nothing_answers_and_after_the_crash_only_what_is_opened_anew() -> Tested {
    let disk = SimulatedDisk::new(1);
    let (medium, kind) = (disk.medium(), disk.engine_kind());
    let file = medium.create("a")?;
    file.sync()?;
    medium.sync_dir("")?;
    let engine = kind.create()?;
    disk.cut_power_at(disk.operations() + 1);
    assert!(!disk.is_cut());
    assert!(file.write_at(0, b"a").is_err_and(|error| error.to_string() == "power cut"));
    assert!(disk.is_cut());
    let all_dead = || {
        file.len().is_err()
            && file.sync().is_err()
            && medium.list("").is_err()
            && medium.create("b").is_err()
            && kind.exists().is_err()
            && engine.get(b"").is_err()
            && engine.apply(vec![]).is_err()
    };
    assert!(all_dead());
    assert_eq!(disk.operations(), 5, "a call without power was counted");
    disk.crash();
    assert!(!disk.is_cut());
    assert!(all_dead(), "a handle of the life before reached into this one");
    assert_eq!(disk.operations(), 5);
    disk.medium().open("a")?.write_at(0, b"a")?;
    disk.engine_kind().open(None)?.apply(vec![put(1, 1)])?;
    assert_eq!(disk.operations(), 7);
    Ok(())
}

#[test]
fn an_operation_that_is_told_to_fail_fails_once() -> Tested {
    let disk = SimulatedDisk::new(1);
    let medium = disk.medium();
    disk.fail_at(1, ErrorKind::PermissionDenied);
    disk.fail_at(4, ErrorKind::StorageFull);
    let kind = |answer: io::Result<()>| answer.err().map(|error| error.kind());
    assert_eq!(kind(medium.create("a").map(drop)), Some(ErrorKind::PermissionDenied));
    assert_eq!(disk.files(), Vec::<String>::new());
    medium.create("a")?;
    let engine = disk.engine_kind().create()?;
    assert!(matches!(engine.apply(vec![put(1, 1)]), Err(EngineError::Full { .. })));
    assert!(values(&*disk.engine_kind().open(None)?)?.is_empty());
    Ok(())
}

#[test]
fn syncs_that_fail_make_nothing_durable() -> Tested {
    let (mut file_lost, mut map_lost) = (false, false);
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let medium = disk.medium();
        let file = medium.create("a")?;
        medium.sync_dir("")?;
        let engine = disk.engine_kind().create()?;
        file.write_at(0, b"a")?;
        engine.apply(vec![put(1, 1)])?;
        disk.fail_syncs(true);
        assert!(file.sync().is_err());
        assert!(engine.flush().is_err());
        assert!(engine.close().is_err());
        assert_eq!(disk.syncs(), 0);
        disk.crash();
        file_lost |= disk.medium().open("a")?.len()? == 0;
        map_lost |= values(&*disk.engine_kind().open(None)?)?.is_empty();
        disk.fail_syncs(false);
        disk.medium().open("a")?.sync()?;
    }
    assert!(file_lost && map_lost);
    Ok(())
}

/// Starts a sync that is held, and returns once it waits.
fn held_sync(disk: &SimulatedDisk) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    let file = disk.medium().create("a")?;
    disk.medium().sync_dir("")?;
    file.write_at(0, b"a")?;
    disk.hold_syncs();
    let waiting = thread::spawn(move || file.sync());
    while disk.waiting_syncs() == 0 {
        thread::yield_now();
    }
    Ok(waiting)
}

fn join(waiting: thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
    waiting.join().map_err(|_| io::Error::other("the thread panicked"))?
}

#[test]
fn a_held_sync_makes_nothing_durable_before_it_is_released() -> Tested {
    let mut lost = false;
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let waiting = held_sync(&disk)?;
        assert_eq!(disk.syncs(), 0);
        let copy = disk.fork();
        copy.crash();
        lost |= copy.medium().open("a")?.len()? == 0;
        disk.release_syncs();
        join(waiting)?;
        assert_eq!((disk.syncs(), disk.waiting_syncs()), (1, 0));
        disk.crash();
        assert_eq!(disk.medium().open("a")?.len()?, 1);
    }
    assert!(lost);
    Ok(())
}

#[test]
fn a_held_sync_ends_with_an_error_when_the_power_goes() -> Tested {
    let disk = SimulatedDisk::new(1);
    let waiting = held_sync(&disk)?;
    disk.cut_power_at(0);
    assert!(disk.medium().create("b").is_err());
    assert!(join(waiting).is_err());

    let disk = SimulatedDisk::new(1);
    let waiting = held_sync(&disk)?;
    disk.crash();
    assert!(join(waiting).is_err());
    // nothing is held after the crash, or recovery would hang
    disk.medium().open("a")?.sync()?;
    Ok(())
}

#[test]
fn copies_of_one_machine_crash_each_in_its_own_way_and_leave_it_alone() -> Tested {
    let disk = SimulatedDisk::new(1);
    let medium = disk.medium();
    let file = medium.create("a")?;
    medium.sync_dir("")?;
    file.write_at(0, &[1; 512])?;
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        let copy = disk.fork();
        assert_eq!(copy.operations(), disk.operations());
        copy.crash();
        seen.insert(copy.medium().open("a")?.len()?);
        copy.medium().create("b")?;
    }
    assert_eq!(seen, BTreeSet::from([0, 512]));
    assert_eq!((disk.operations(), disk.files()), (3, vec!["a".to_owned()]));
    file.sync()?;
    Ok(())
}

#[test]
fn damage_changes_what_is_durable_and_nothing_that_is_pending() -> Tested {
    let disk = SimulatedDisk::new(1);
    let file = disk.medium().create("a")?;
    file.write_at(0, b"durable")?;
    file.sync()?;
    file.write_at(1, b"P")?;
    disk.damage("a", |bytes| bytes.truncate(3))?;
    let mut bytes = [0; 3];
    file.read_at(0, &mut bytes)?;
    assert_eq!(&bytes, b"dPr");
    assert_eq!(file.len()?, 3);
    assert!(disk.damage("b", |_| {}).is_err());
    Ok(())
}

#[test]
fn a_removed_file_takes_no_memory_once_nothing_leads_to_it() -> Tested {
    let disk = SimulatedDisk::new(1);
    let medium = disk.medium();
    for _ in 0..10 {
        let file = medium.create("a")?;
        file.write_at(0, &[1; 512])?;
        drop(file);
        medium.remove("a")?;
        medium.sync_dir("")?;
    }
    assert_eq!(disk.state().files.kept(), 0);
    let open = medium.create("b")?;
    medium.remove("b")?;
    medium.sync_dir("")?;
    assert_eq!(disk.state().files.kept(), 1);
    drop(open);
    medium.sync_dir("")?;
    assert_eq!(disk.state().files.kept(), 0);
    Ok(())
}

#[test]
fn handles_go_between_threads() {
    fn check<T: Send + Sync>(_: &T) {}
    let disk = SimulatedDisk::new(1);
    check(&disk);
    check(&Arc::new(disk.medium()));
}
