//! Patterns of topic names: parts between dots, of which `*` stands for any one and `>` at the end for one or more.
//!
//! # Invariants
//! - A pattern is stored with the mailbox that reads what matches it and with the type of event it understands: what matches by
//!   name alone is nothing to it.

use super::ledger::Ledger;
use super::names::check_name;
use crate::error::BadPattern;
use crate::store::{MailboxId, StoreError, keys};

const ONE: &str = "*";
const REST: &str = ">";

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        let bad = |why| Err(BadPattern { pattern: text.chars().take(128).collect(), why });
        let literal: String = text
            .split('.')
            .map(|part| if part == ONE || part == REST { "x" } else { part })
            .collect::<Vec<_>>()
            .join(".");
        if check_name(&literal).is_err() {
            return bad("its parts are not 1 to 128 characters of A-Z a-z 0-9 . _ : / - in all, `*` or `>`");
        }
        let parts: Vec<_> = text.split('.').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return bad("a part between two dots is empty");
        }
        if parts.iter().rev().skip(1).any(|part| *part == REST) {
            return bad("`>` stands for all that follows, so nothing can follow it");
        }
        Ok(Pattern(text.to_owned()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        let mut parts = topic.split('.');
        for wanted in self.0.split('.') {
            let part = parts.next();
            match (wanted, part) {
                (_, None) => return false,
                (REST, Some(_)) => return true,
                (ONE, Some(_)) => {}
                (wanted, Some(part)) if wanted == part => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }
}

/// What the key of a stored pattern says: whose it is, the pattern, and the event.
pub(super) fn read_key(key: &[u8]) -> Option<(MailboxId, Pattern, &str)> {
    let reader = u32::from_be_bytes(*key.get(1..)?.first_chunk()?);
    let (pattern, event) = std::str::from_utf8(key.get(5..)?).ok()?.split_once('\0')?;
    Some((reader, Pattern::new(pattern).ok()?, event))
}

impl Ledger {
    /// Who reads a topic of this name and type of event as soon as it is made.
    pub(super) async fn readers_of(&self, topic: &str, event: &str) -> Result<Vec<MailboxId>, StoreError> {
        let first = keys::patterns(0);
        let stored = self.scan(first[..1].to_vec(), keys::after_prefix(&first[..1]), usize::MAX).await?;
        let mut readers = Vec::new();
        for (key, _) in &stored {
            let (reader, pattern, of) = read_key(key)
                .ok_or_else(|| StoreError::value("the key of a pattern of topics cannot be read"))?;
            if of == event && pattern.matches(topic) && !readers.contains(&reader) {
                readers.push(reader);
            }
        }
        Ok(readers)
    }

    /// The patterns of a mailbox.
    pub(crate) async fn patterns(&self, reader: MailboxId) -> Result<Vec<String>, StoreError> {
        let prefix = keys::patterns(reader);
        let stored = self.scan(prefix.clone(), keys::after_prefix(&prefix), usize::MAX).await?;
        let mut patterns: Vec<_> = stored.iter().filter_map(|(key, _)| Some(read_key(key)?.1.0)).collect();
        patterns.dedup();
        Ok(patterns)
    }

    /// Under which keys a pattern of a mailbox lies: one for each type of event.
    pub(super) async fn pattern_keys(
        &self,
        reader: MailboxId,
        pattern: &Pattern,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let prefix = keys::pattern(reader, pattern.text(), "");
        let stored = self.scan(prefix.clone(), keys::after_prefix(&prefix), usize::MAX).await?;
        Ok(stored.into_iter().map(|(key, _)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_part_and_an_angle_all_that_follow() {
        let matches = |pattern: &str, topic: &str| Pattern::new(pattern).expect("a pattern").matches(topic);
        for (pattern, topic) in [
            ("orders.*", "orders.eu"),
            ("orders.>", "orders.eu"),
            ("orders.>", "orders.eu.berlin"),
            ("*.eu.*", "orders.eu.berlin"),
            (">", "orders"),
            (">", "orders.eu"),
            ("orders.eu", "orders.eu"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("orders.*", "orders"),
            ("orders.*", "orders.eu.berlin"),
            ("orders.>", "orders"),
            ("orders.>", "ordersx.eu"),
            ("*", "orders.eu"),
            ("orders.eu", "orders.eu.berlin"),
            ("orders.eu.berlin", "orders.eu"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_the_reason_said() {
        for bad in
            ["", ".", "orders..eu", "orders.", ".eu", "orders.>.eu", "or*", "orders.>>", "a b.*", "ä", "a\0b"]
        {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
        let why = Pattern::new("orders.>.eu").map_err(|bad| bad.to_string());
        assert_eq!(why, Err("`orders.>.eu` is no pattern of topics: `>` stands for all that follows, so nothing can follow it".into()));
    }
}
