//! To which of several members a key belongs: the one with the highest score for it (rendezvous, or highest random weight, hashing:
//! Thaler and Ravishankar, *Using name-based mappings to increase hit rates*, 1998).
//!
//! # Invariants
//! - The same members give a key the same home, in every process and in whatever order they came.
//! - One that comes takes keys from all others, about evenly, and nobody else gets any; when it goes, nobody else loses any.

use super::order::Key;

/// Who is given the next letter of a key that nobody has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Whoever is free.
    AnyFree,
    /// The key's home.
    ByKey,
}

/// What of a name its scores are made from.
pub(crate) fn salt_of(name: &str) -> u64 {
    hash(name.as_bytes())
}

/// The home of a key; none without members. Of two members of the same name the later one counts.
pub(crate) fn home(key: &Key, members: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    let key = match key {
        Key::All => 0,
        Key::Named(name) => hash(name.as_bytes()),
        // it has no order with any other, so it needs no home
        Key::Own(_) => return None,
    };
    members.max_by_key(|(number, salt)| (mixed(key ^ mixed(*salt)), *number)).map(|(number, _)| number)
}

/// FNV-1a: the hasher of the standard library may be another in its next version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finish of splitmix64: every bit of what goes in changes about half of those that come out.
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: usize = 10_000;

    fn homes(members: &[&str]) -> Vec<u64> {
        let salts: Vec<_> = members.iter().map(|name| salt_of(name)).collect();
        let home_of = |key: usize| {
            let members = salts.iter().enumerate().map(|(number, salt)| (number as u64, *salt));
            home(&Key::Named(format!("customer-{key}").into()), members).expect("there are members")
        };
        (0..KEYS).map(home_of).collect()
    }

    #[test]
    fn keys_are_spread_about_evenly() {
        for members in [&["1", "2"][..], &["1", "2", "3", "4", "5", "6", "7"], &["eu-west", "eu-east", "us"]]
        {
            let homes = homes(members);
            let fair = KEYS / members.len();
            for number in 0..members.len() as u64 {
                let has = homes.iter().filter(|home| **home == number).count();
                assert!(has.abs_diff(fair) < fair / 8, "{has} of {KEYS} for one of {}", members.len());
            }
        }
    }

    #[test]
    fn one_that_comes_takes_its_share_and_no_key_goes_from_one_that_stays_to_another() {
        let names = ["1", "2", "3", "4", "5", "6"];
        for count in 1..names.len() {
            let (before, after) = (homes(&names[..count]), homes(&names[..=count]));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert!(moved.iter().all(|(_, after)| **after == count as u64));
            let share = KEYS / (count + 1);
            assert!(
                moved.len().abs_diff(share) < share / 8,
                "{} of {KEYS} moved to number {count}",
                moved.len()
            );
        }
    }

    #[test]
    fn nobody_is_at_home_nowhere() {
        assert_eq!(home(&Key::All, std::iter::empty()), None);
        assert_eq!(home(&Key::All, [(4, 1), (7, 1)].into_iter()), Some(7));
    }
}
