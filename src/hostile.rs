//! Bytes as nobody should have written them, for the tests of whatever decodes: arbitrary ones, and valid ones that were
//! changed where it hurts.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

/// Feeds `check` the valid bytes as they are, changed, and arbitrary ones in their place.
pub(crate) fn survives(valid: &[Vec<u8>], check: impl Fn(&[u8])) {
    valid.iter().for_each(|bytes| check(bytes));
    let changed = (select(valid.to_vec()), vec(change(), 1..4));
    let changed =
        changed.prop_map(|(bytes, changes)| changes.iter().fold(bytes, |bytes, change| change.of(bytes)));
    let hostile = prop_oneof![3 => changed, 1 => likely_bytes()];
    let ran = TestRunner::default().run(&hostile, |bytes| {
        check(&bytes);
        Ok(())
    });
    assert!(ran.is_ok(), "{}", ran.err().map(|why| why.to_string()).unwrap_or_default());
}

/// Bytes that look like lengths, tags and small numbers more often than random ones do.
pub(crate) fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..4, 2 => any::<u8>(), 1 => 250_u8..=255];
    vec(byte, 0..400)
}

#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Extend(Vec<u8>),
    /// A number of so many bytes becomes the largest there is, or the largest but one.
    Largest(Index, usize, u8),
    /// A length of the codec becomes the largest it can write.
    LargestLength(Index),
    Remove(Index),
    Insert(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        any::<Index>().prop_map(Change::Cut),
        vec(any::<u8>(), 1..40).prop_map(Change::Extend),
        (any::<Index>(), select(vec![1, 2, 4, 8]), 0xfe..=0xff_u8)
            .prop_map(|(at, len, last)| Change::Largest(at, len, last)),
        any::<Index>().prop_map(Change::LargestLength),
        any::<Index>().prop_map(Change::Remove),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
    ]
}

impl Change {
    fn of(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Change::Flip(at, bits) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Extend(more) => bytes.extend_from_slice(more),
            Change::Largest(at, len, last) => {
                let at = place(at);
                let end = (at + len).min(bytes.len());
                bytes[at..end].fill(0xff);
                bytes[at..end].iter_mut().rev().take(1).for_each(|byte| *byte = *last);
            }
            Change::LargestLength(at) => {
                let at = place(at);
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, [253, 255, 255, 255, 255, 255, 255, 255, 255]);
            }
            Change::Remove(at) if !bytes.is_empty() => {
                bytes.remove(at.index(bytes.len()));
            }
            Change::Insert(at, byte) => bytes.insert(place(at), *byte),
            Change::Flip(..) | Change::Remove(_) => {}
        }
        bytes
    }
}

/// Runs the test named `test` alone in a process that may grow by `mebibytes` only, where an allocation that
/// fails aborts. True inside that process.
#[cfg(target_os = "linux")]
pub(crate) fn with_memory_limit(test: &str, mebibytes: u64) -> bool {
    use rustix::process::{Resource, Rlimit, setrlimit};
    const INSIDE: &str = "STEADFAST_TEST_MEMORY_LIMIT";
    if std::env::var_os(INSIDE).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads=1"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && printed.contains("1 passed"), "{child:?}");
        return false;
    }
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let limit = pages * 4096 + mebibytes * 1024 * 1024;
    setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    true
}
