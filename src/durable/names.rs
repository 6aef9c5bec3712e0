//! Names: of actors and messages, and of entities, whose keys are any bytes.
//!
//! # Invariants
//! - An entity's name is its region, `#` and its key; a key has one name, and the names of a region sort as its keys do.
//! - No other name has a `#`.

use crate::error::{BadName, KeyTooLong};
use crate::store::{KEY_MARK, region_of};

/// What the name of a topic's log begins with; no other name does.
pub(crate) const TOPIC_MARK: char = '@';

const LONGEST: usize = 128;
/// The longest key of an entity, in bytes.
const LONGEST_KEY: usize = 256;
/// Bytes up to this one are written as `!` and two digits: `!` itself, and what sorts before it.
const LOW: u8 = b'!';
/// Bytes from this one on are written as `~` and two digits.
const HIGH: u8 = b'~';

/// Refuses what is not 1 to 128 characters of `A-Z a-z 0-9 . _ : / -`.
pub(crate) fn check_name(name: &str) -> Result<(), BadName> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    match !name.is_empty() && name.len() <= LONGEST && name.bytes().all(valid) {
        true => Ok(()),
        false => Err(BadName { name: name.chars().take(LONGEST).collect() }),
    }
}

/// Refuses what names neither an actor, nor an entity, nor a topic.
pub(crate) fn check_address(name: &str) -> Result<(), BadName> {
    if let Some(topic) = name.strip_prefix(TOPIC_MARK) {
        return check_name(topic);
    }
    let Some(region) = region_of(name) else { return check_name(name) };
    check_name(region)?;
    match key_of(region, name).is_some_and(|key| key.len() <= LONGEST_KEY) {
        true => Ok(()),
        false => Err(BadName { name: name.chars().take(LONGEST).collect() }),
    }
}

/// The name under which a topic's log lies.
pub(crate) fn topic_name(topic: &str) -> Result<String, BadName> {
    check_name(topic)?;
    Ok(format!("{TOPIC_MARK}{topic}"))
}

/// Whether a topic's log lies under this name.
pub(crate) fn is_topic(name: &str) -> bool {
    name.starts_with(TOPIC_MARK)
}

/// The name of the entity with this key.
pub(crate) fn entity_name(region: &str, key: &[u8]) -> Result<String, KeyTooLong> {
    if key.len() > LONGEST_KEY {
        return Err(KeyTooLong { region: region.into(), len: key.len(), limit: LONGEST_KEY });
    }
    let mut name = format!("{region}{KEY_MARK}");
    for &byte in key {
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half & 15)]);
        match byte {
            ..=LOW => name.extend([char::from(LOW), digit(byte >> 4), digit(byte)]),
            HIGH.. => name.extend([char::from(HIGH), digit(byte >> 4), digit(byte)]),
            literal => name.push(char::from(literal)),
        }
    }
    Ok(name)
}

/// The key in an entity's name; none if it is no name of this region's.
pub(crate) fn key_of(region: &str, name: &str) -> Option<Vec<u8>> {
    let mut rest = name.strip_prefix(region)?.strip_prefix(KEY_MARK)?.bytes();
    let mut key = Vec::new();
    while let Some(byte) = rest.next() {
        key.push(match byte {
            LOW => escaped(&mut rest).filter(|byte| *byte <= LOW)?,
            HIGH => escaped(&mut rest).filter(|byte| *byte >= HIGH)?,
            literal if (LOW..HIGH).contains(&literal) => literal,
            _ => return None,
        });
    }
    Some(key)
}

fn escaped(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || match rest.next()? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(digit()? << 4 | digit()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_what_the_rule_says() {
        for good in ["a", "warehouse-1", "orders.placed", "a:b/c_d", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a\n", "a\0", "a*", "a#b", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_entity_is_named_by_its_region_and_a_readable_key() {
        let name = |key: &[u8]| entity_name("accounts", key).expect("not too long");
        assert_eq!(name(b"john@example.com"), "accounts#john@example.com");
        assert_eq!(name(&7u16.to_be_bytes()), "accounts#!00!07");
        assert_eq!(name("ä !~#".as_bytes()), "accounts#~c3~a4!20!21~7e#");
        assert_eq!(name(b""), "accounts#");
        assert!(entity_name("accounts", &[0; 257]).is_err());
    }

    #[test]
    fn an_address_is_a_name_or_that_of_one_key() {
        for good in ["accounts#", "accounts#a", "a.b#x#y", "a#!00", "a#~ff"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in
            ["#a", "a b#c", "a#!", "a#!0", "a#!0g", "a#!0A", "a#!22", "a#~7d", "a#ä", "a# ", "a#\u{7f}"]
        {
            assert!(check_address(bad).is_err(), "{bad:?}");
        }
        assert!(check_address(&format!("a#{}", "!00".repeat(256))).is_ok());
        assert!(check_address(&format!("a#{}", "!00".repeat(257))).is_err());
    }

    proptest! {
        #[test]
        fn names_sort_as_keys_do_and_lead_back_to_them(
            one in proptest::collection::vec(any::<u8>(), 0..12),
            other in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let name = |key: &[u8]| entity_name("r", key).expect("not too long");
            prop_assert_eq!(name(&one).cmp(&name(&other)), one.cmp(&other));
            prop_assert_eq!(key_of("r", &name(&one)), Some(one.clone()));
            prop_assert!(check_address(&name(&one)).is_ok());
        }

        #[test]
        fn any_text_is_the_one_name_of_its_key_or_none(text in "[!-~]{0,20}|.{0,20}") {
            if let Some(key) = key_of("r", &format!("r#{text}")) {
                prop_assert_eq!(entity_name("r", &key).expect("not too long"), format!("r#{text}"));
            }
        }
    }
}
