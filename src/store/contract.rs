//! One suite for every [`EngineKind`]: each promise of the engine's contract that can be asked for without a
//! crash, as a test named after it. What a crash leaves (promises 1 to 3 in full) is asked by whoever can
//! make one.

use std::any::Any;
use std::collections::BTreeMap;

use super::engine::{Engine, EngineError, EngineKind, MAX_VALUE, Pair, Which, Write};

/// Somewhere an engine can be made, where none is yet.
pub(crate) struct Place {
    pub(crate) kind: Box<dyn EngineKind>,
    /// Dropped after the engine, such as the directory it is in.
    pub(crate) keep: Box<dyn Any>,
}

/// The suite for one kind, as a module of tests: `engine_contract!(sled, || Place { .. })`.
macro_rules! engine_contract {
    ($kind:ident, $place:expr) => {
        mod $kind {
            use super::*;
            $crate::store::contract::engine_contract!(@tests $place;
                an_engine_is_there_once_created_until_removed
                create_refuses_where_an_engine_is
                open_refuses_where_none_is
                reads_see_every_applied_batch_flushed_or_not
                the_last_write_of_a_key_in_a_batch_wins
                keys_are_ordered_as_bytes
                a_range_holds_from_and_ends_before_to
                a_range_that_is_empty_or_backwards_holds_nothing
                last_finds_both_ends
                reads_agree_with_a_map_after_random_batches
                the_longest_key_and_value_are_kept
                what_is_over_the_limits_is_an_error_and_writes_nothing
                a_clean_close_keeps_everything
                an_engine_dropped_open_keeps_whole_batches_in_order_up_to_a_flush
                a_seal_that_tells_of_other_bytes_is_an_error
                reads_and_writes_from_many_threads_do_not_disturb_each_other
                a_copy_holds_what_is_there_and_is_written_without_it
            );
        }
    };
    (@tests $place:expr; $($fact:ident)+) => {
        $(#[test]
        fn $fact() {
            let place: $crate::store::contract::Place = $place();
            $crate::store::contract::$fact(&*place.kind);
            drop(place.keep);
        })+
    };
}
pub(crate) use engine_contract;

pub(crate) fn an_engine_is_there_once_created_until_removed(kind: &dyn EngineKind) {
    assert!(!kind.exists().unwrap());
    kind.create().unwrap().close().unwrap();
    assert!(kind.exists().unwrap());
    kind.remove().unwrap();
    assert!(!kind.exists().unwrap());
    let engine = kind.create().unwrap();
    assert_eq!(all(&*engine), []);
}

pub(crate) fn a_copy_holds_what_is_there_and_is_written_without_it(kind: &dyn EngineKind) {
    let aside = tempfile::tempdir().unwrap();
    let below = |name: &str| aside.path().join(name);
    assert!(kind.open_copy(Which::Present, &below("none")).unwrap().is_none());
    let engine = kind.create().unwrap();
    engine.apply(vec![put("a", "1")]).unwrap();
    let seal = engine.close().unwrap();
    let copy = kind.open_copy(Which::Present, &below("copy")).unwrap().unwrap();
    assert_eq!(all(&*copy), [pair("a", "1")]);
    copy.apply(vec![put("b", "2")]).unwrap();
    copy.close().unwrap();
    assert!(kind.open_copy(Which::PutAside, &below("before")).unwrap().is_none());
    // not a byte of it has changed
    assert_eq!(all(&*kind.open(Some(&seal)).unwrap()), [pair("a", "1")]);
}

pub(crate) fn create_refuses_where_an_engine_is(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    engine.apply(vec![put("a", "1")]).unwrap();
    let seal = engine.close().unwrap();
    assert!(kind.create().is_err());
    assert_eq!(all(&*kind.open(Some(&seal)).unwrap()), [pair("a", "1")]);
}

pub(crate) fn open_refuses_where_none_is(kind: &dyn EngineKind) {
    assert!(kind.open(None).is_err());
    assert!(!kind.exists().unwrap());
}

pub(crate) fn reads_see_every_applied_batch_flushed_or_not(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    engine.apply(vec![put("a", "1"), put("b", "1")]).unwrap();
    engine.flush().unwrap();
    engine.apply(vec![put("b", "2"), delete("a"), delete("never there")]).unwrap();
    assert_eq!(engine.get(b"a").unwrap(), None);
    assert_eq!(engine.get(b"b").unwrap(), Some(b"2".to_vec()));
    assert_eq!(all(&*engine), [pair("b", "2")]);
    assert_eq!(engine.last(b"", b"z").unwrap(), Some(pair("b", "2")));
    engine.apply(vec![]).unwrap();
    engine.flush().unwrap();
    assert_eq!(all(&*engine), [pair("b", "2")]);
}

pub(crate) fn the_last_write_of_a_key_in_a_batch_wins(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    engine.apply(vec![put("a", "1"), put("a", "2"), delete("b"), put("b", "1")]).unwrap();
    engine.apply(vec![put("c", "1"), delete("c")]).unwrap();
    assert_eq!(all(&*engine), [pair("a", "2"), pair("b", "1")]);
}

pub(crate) fn keys_are_ordered_as_bytes(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    let keys: [&[u8]; 7] = [&[], &[0], &[0, 0], &[0, 255], &[1], &[127, 255], &[255]];
    for key in keys.iter().rev() {
        engine.apply(vec![Write::Put(key.to_vec(), b"v".to_vec())]).unwrap();
    }
    let found: Vec<_> = engine.range(&[], &[255, 0], 100).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, keys);
}

pub(crate) fn a_range_holds_from_and_ends_before_to(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    engine.apply(["a", "b", "c", "d"].map(|key| put(key, key)).to_vec()).unwrap();
    assert_eq!(engine.range(b"b", b"d", 10).unwrap(), [pair("b", "b"), pair("c", "c")]);
    assert_eq!(engine.range(b"aa", b"cc", 10).unwrap(), [pair("b", "b"), pair("c", "c")]);
    assert_eq!(engine.range(b"b", b"d", 1).unwrap(), [pair("b", "b")]);
    assert_eq!(engine.range(b"b", b"d", 0).unwrap(), []);
    assert_eq!(engine.range(b"b", b"d", usize::MAX).unwrap().len(), 2);
}

pub(crate) fn a_range_that_is_empty_or_backwards_holds_nothing(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    assert_eq!(all(&*engine), []);
    assert_eq!(engine.last(b"", b"z").unwrap(), None);
    engine.apply(["a", "b", "c"].map(|key| put(key, key)).to_vec()).unwrap();
    assert_eq!(engine.range(b"b", b"b", 10).unwrap(), []);
    assert_eq!(engine.range(b"c", b"a", 10).unwrap(), []);
    assert_eq!(engine.range(b"d", b"z", 10).unwrap(), []);
    assert_eq!(engine.last(b"c", b"a").unwrap(), None);
    assert_eq!(engine.last(b"d", b"z").unwrap(), None);
    assert_eq!(engine.last(b"aa", b"ab").unwrap(), None);
}

pub(crate) fn last_finds_both_ends(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    engine.apply(["a", "b", "c"].map(|key| put(key, key)).to_vec()).unwrap();
    assert_eq!(engine.last(b"a", b"b").unwrap(), Some(pair("b", "b")));
    assert_eq!(engine.last(b"a", b"bb").unwrap(), Some(pair("b", "b")));
    assert_eq!(engine.last(b"b", b"b").unwrap(), Some(pair("b", "b")));
    assert_eq!(engine.last(b"", b"\xff").unwrap(), Some(pair("c", "c")));
}

/// Long shared prefixes and values of all sizes, so that an engine splits, merges and shortens its nodes.
pub(crate) fn reads_agree_with_a_map_after_random_batches(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    let mut map = BTreeMap::new();
    let mut dice = Dice(7);
    for round in 0..300 {
        let batch: Vec<_> = (0..dice.below(40)).map(|_| random_write(&mut dice)).collect();
        for write in &batch {
            match write.clone() {
                Write::Put(key, value) => map.insert(key, value),
                Write::Delete(key) => map.remove(&key),
            };
        }
        engine.apply(batch).unwrap();
        let (from, to, limit) = (random_key(&mut dice), random_key(&mut dice), dice.below(50));
        agrees(&*engine, &map, &from, &to, limit, round);
    }
    engine.flush().unwrap();
    assert_eq!(all(&*engine), map.into_iter().collect::<Vec<_>>());
}

fn agrees(
    engine: &dyn Engine,
    map: &BTreeMap<Vec<u8>, Vec<u8>>,
    from: &[u8],
    to: &[u8],
    limit: usize,
    round: u32,
) {
    let own = |pair: (&Vec<u8>, &Vec<u8>)| (pair.0.clone(), pair.1.clone());
    let inside = || map.iter().filter(|(key, _)| key.as_slice() >= from);
    let expected: Vec<_> = inside().filter(|(key, _)| key.as_slice() < to).take(limit).map(own).collect();
    assert_eq!(engine.range(from, to, limit).unwrap(), expected, "round {round}");
    let expected = inside().rfind(|(key, _)| key.as_slice() <= to).map(own);
    assert_eq!(engine.last(from, to).unwrap(), expected, "round {round}");
    assert_eq!(engine.get(from).unwrap(), map.get(from).cloned(), "round {round}");
}

pub(crate) fn the_longest_key_and_value_are_kept(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    let (key, value) = (vec![7; 1024], vec![9; MAX_VALUE]);
    engine.apply(vec![Write::Put(key.clone(), value.clone())]).unwrap();
    let seal = engine.close().unwrap();
    let engine = kind.open(Some(&seal)).unwrap();
    assert_eq!(engine.get(&key).unwrap(), Some(value));
}

pub(crate) fn what_is_over_the_limits_is_an_error_and_writes_nothing(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    for bad in [
        Write::Put(b"b".to_vec(), vec![0; MAX_VALUE + 1]),
        Write::Put(vec![0; 1025], b"1".to_vec()),
        Write::Delete(vec![0; 1025]),
    ] {
        let refused = engine.apply(vec![put("a", "1"), bad]).unwrap_err();
        let EngineError::Io { source, .. } = refused else { panic!("{refused}") };
        assert_eq!(source.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(all(&*engine), []);
    engine.apply(vec![put("a", "2")]).unwrap();
    engine.flush().unwrap();
    assert_eq!(all(&*engine), [pair("a", "2")]);
}

pub(crate) fn a_clean_close_keeps_everything(kind: &dyn EngineKind) {
    let mut seal = kind.create().unwrap().close().unwrap();
    for round in 0..3 {
        let engine = kind.open(Some(&seal)).unwrap();
        assert_eq!(all(&*engine).len(), round);
        engine.apply(vec![put(&format!("{round}"), "1")]).unwrap();
        seal = engine.close().unwrap();
    }
    // a seal says what has not changed; without one it opens all the same
    assert_eq!(all(&*kind.open(None).unwrap()).len(), 3);
}

pub(crate) fn an_engine_dropped_open_keeps_whole_batches_in_order_up_to_a_flush(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    for number in 0..20u8 {
        let batch = [0, 1].map(|half| Write::Put(vec![number, half], vec![number]));
        engine.apply(batch.to_vec()).unwrap();
        if number == 9 {
            engine.flush().unwrap();
        }
    }
    drop(engine);
    let found = all(&*kind.open(None).unwrap());
    let batches = found.len() / 2;
    assert!(batches >= 10, "{batches} batches");
    let expected =
        (0..batches as u8).flat_map(|number| [0, 1].map(|half| (vec![number, half], vec![number])));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

pub(crate) fn a_seal_that_tells_of_other_bytes_is_an_error(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    engine.apply(vec![put("a", "1")]).unwrap();
    let seal = engine.close().unwrap();
    for index in 0..seal.files.len() {
        let (mut longer, mut other, mut missing) = (seal.clone(), seal.clone(), seal.clone());
        longer.files[index].len += 1;
        other.files[index].crc ^= 1;
        missing.files.remove(index);
        for wrong in [longer, other, missing] {
            let refused = kind.open(Some(&wrong)).err().expect("refused");
            assert!(matches!(refused, EngineError::Damaged { .. }), "{refused}");
        }
    }
    assert_eq!(all(&*kind.open(Some(&seal)).unwrap()), [pair("a", "1")]);
}

pub(crate) fn reads_and_writes_from_many_threads_do_not_disturb_each_other(kind: &dyn EngineKind) {
    let engine = kind.create().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let engine = &*engine;
            scope.spawn(move || {
                for number in 0..100u8 {
                    let batch = [0, 1].map(|half| Write::Put(vec![thread, half], vec![number]));
                    engine.apply(batch.to_vec()).unwrap();
                    assert_eq!(engine.get(&[thread, 1]).unwrap(), Some(vec![number]));
                    if number % 25 == 0 {
                        engine.flush().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(all(&*engine).len(), 8);
    assert!(all(&*engine).iter().all(|(_, value)| value == &[99]));
}

fn all(engine: &dyn Engine) -> Vec<Pair> {
    engine.range(&[], &[255; 8], usize::MAX).unwrap()
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), value.into())
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

fn pair(key: &str, value: &str) -> Pair {
    (key.into(), value.into())
}

fn random_write(dice: &mut Dice) -> Write {
    let key = random_key(dice);
    match dice.below(3) {
        0 => Write::Delete(key),
        _ => Write::Put(key, vec![dice.below(256) as u8; dice.below(400)]),
    }
}

fn random_key(dice: &mut Dice) -> Vec<u8> {
    let prefix = [&b""[..], b"mailbox/", b"mailbox/aaaaaaaaaaaaaaaaaaaaaaaa/", b"topic/"][dice.below(4)];
    let number = (dice.below(300) as u16).to_be_bytes();
    [prefix, &number[dice.below(2)..]].concat()
}

/// A small generator (SplitMix64), so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
