//! What the records of this shelf do when they are read from bytes that are not theirs: they are refused, or come back as they
//! are. Each check is fed by a test here and by a target of `fuzz/`.

use super::cells::StoredCell;
use super::mailboxes::RegionRecord;
use super::marks::Aged;
use super::*;
use crate::clock::Timestamp;
use crate::codec::comes_back;
use crate::store::{Batch, keys};

/// A record of the class, in the place of its value; and where keys carry something, in the place of its key.
pub(crate) fn record(class: u8, bytes: &[u8]) {
    match class {
        keys::class::NOTE => drop(comes_back::<Vec<Timestamp>>(bytes)),
        keys::class::NAME => drop(comes_back::<MailboxRecord>(bytes)),
        keys::class::REGION => drop(comes_back::<RegionRecord>(bytes)),
        keys::class::CELL => cell(bytes),
        keys::class::ATTEMPTS => attempts(bytes),
        keys::class::MARK => drop(comes_back::<Mark>(bytes)),
        keys::class::MARK_AGE => drop(Aged::of(bytes)),
        keys::class::SUSPECT => suspicion(bytes),
        keys::class::SCHEDULE => scheduled(bytes),
        keys::class::DEAD => dead_letter(bytes),
        keys::class::SCHEMA => drop(comes_back::<u32>(bytes)),
        keys::class::PATTERN => pattern(bytes),
        _ => {}
    }
}

fn cell(bytes: &[u8]) {
    let cell = StoredCell { name: "cell", version: 2, shape: 7 };
    if let Ok(value) = cell.decode::<Vec<String>>(bytes, None) {
        let mut again = Vec::new();
        let read = cell.encode(&value, &mut again).and_then(|()| cell.decode::<Vec<String>>(&again, None));
        assert_eq!(read.ok(), Some(value));
    }
}

fn attempts(bytes: &[u8]) {
    let Some(mut attempts) = comes_back::<Attempts>(bytes) else { return };
    let Some(last) = attempts.last.last().cloned() else { return };
    attempts.add(last);
    assert!(attempts.count > 0);
}

fn suspicion(bytes: &[u8]) {
    let Some(held) = comes_back::<Suspicion>(bytes) else { return };
    for aborted in [false, true] {
        let life = crate::store::LastLife { unclean: true, aborted, roll: Vec::new() };
        assert!(!held.run().after(&life).running);
    }
    let _ = held.waits();
}

fn scheduled(bytes: &[u8]) {
    let _ = schedule::read(bytes, &[]);
    if let Ok(entry) = schedule::read(&keys::schedule(9, [5; 16]), bytes) {
        entry.fire(Timestamp::from_millis(u64::MAX), &mut Batch::default());
        let _ = comes_back::<Scheduled>(bytes);
    }
}

fn dead_letter(bytes: &[u8]) {
    let _ = dead_letter::read(bytes, bytes);
    if let Ok(letter) = dead_letter::read(&keys::dead(1, 9, [5; 16]), bytes) {
        let back = comes_back::<DeadLetter>(bytes);
        assert!(back.is_some_and(|back| back.id == letter.id && back.attempts == letter.attempts));
    }
}

fn pattern(bytes: &[u8]) {
    let _ = comes_back::<StartFrom>(bytes);
    if let Some((reader, pattern, event)) = patterns::read_key(bytes) {
        let again = keys::pattern(reader, pattern.text(), event);
        assert_eq!(again[1..], bytes[1..]);
        let _ = pattern.matches(event);
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::codec;
    use crate::envelope::MessageId;
    use crate::hostile::survives;
    use crate::policy::{Decision, FailureClass, OnActor, OnMessage};
    use crate::store::LogId;

    const LOG: LogId = LogId { mailbox: 1, lane: 1 };

    fn id() -> MessageId {
        MessageId::from_bytes([5; 16])
    }

    fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_into(value, &mut bytes).expect("can be encoded");
        bytes
    }

    /// The valid records are of this class, and so is what they are changed to.
    fn class_survives(class: u8, valid: &[Vec<u8>]) {
        survives(valid, |bytes| record(class, bytes));
    }

    fn some_attempts(count: u32) -> Attempts {
        let decision = Decision { message: OnMessage::Retry, actor: OnActor::Rebuild };
        let at = Timestamp::from_millis(9);
        let attempt =
            Attempt { at, class: FailureClass::Error, error: "no".into(), decision, trace: Some("t".into()) };
        Attempts { count, last: vec![attempt], not_before: at }
    }

    #[test]
    fn hostile_names_and_notes_are_refused_or_read_as_they_are() {
        let (created, actor) = (Timestamp::from_millis(9), String::from("actor"));
        class_survives(keys::class::NOTE, &[encoded(&vec![created, created])]);
        class_survives(keys::class::REGION, &[encoded(&(created, &actor))]);
        class_survives(keys::class::NAME, &[encoded(&MailboxRecord { id: 7, created, actor })]);
        class_survives(keys::class::SCHEMA, &[encoded(&u32::MAX)]);
    }

    #[test]
    fn a_hostile_cell_is_refused_or_read_as_it_is() {
        let mut bytes = Vec::new();
        let cell = StoredCell { name: "cell", version: 2, shape: 7 };
        cell.encode(&vec!["a", "b"], &mut bytes).expect("can be encoded");
        class_survives(keys::class::CELL, &[bytes]);
    }

    #[test]
    fn hostile_attempts_are_refused_or_counted_on() {
        class_survives(
            keys::class::ATTEMPTS,
            &[encoded(&some_attempts(1)), encoded(&some_attempts(u32::MAX))],
        );
    }

    #[test]
    fn a_hostile_mark_is_refused_or_read_as_it_is() {
        let outcomes = [Outcome::Pending, Outcome::Replied(vec![1; 9]), Outcome::Published([1; 8])];
        let at = Timestamp::from_millis(9);
        let marks = outcomes.map(|outcome| encoded(&Mark { id: id(), payload: [3; 16], at, outcome }));
        class_survives(keys::class::MARK, &marks);
        class_survives(keys::class::MARK_AGE, &[keys::mark_age(1, 9, [3; 16])]);
    }

    #[test]
    fn a_hostile_suspicion_is_refused_or_counted_on() {
        let most = Suspicion { runs: u32::MAX, running: true, deaths: u32::MAX, unexplained: u32::MAX };
        class_survives(keys::class::SUSPECT, &[encoded(&Suspicion::default()), encoded(&most)]);
    }

    #[test]
    fn a_hostile_entry_of_the_schedule_is_refused_or_fires() {
        let entry = |is_event| Scheduled { target: LOG, envelope: vec![1; 40], is_event };
        let short = Scheduled { target: LOG, envelope: vec![1], is_event: true };
        class_survives(
            keys::class::SCHEDULE,
            &[encoded(&entry(true)), encoded(&entry(false)), encoded(&short)],
        );
    }

    #[test]
    fn a_hostile_dead_letter_is_refused_or_read_as_it_is() {
        let id = DeadLetterId::new(1, Timestamp::from_millis(9), id());
        let record = |reason: Reason, body: Vec<u8>, envelope: Vec<u8>| {
            let names = (String::from("mailbox"), String::from("message"), Timestamp::from_millis(9));
            encoded(&(id, names, reason, some_attempts(1), body, 1_u8, envelope))
        };
        let letters = [
            record(Reason::KilledTheProcess { deaths: 3 }, Vec::new(), vec![1; 40]),
            record(Reason::Buried("why".into()), vec![1; 40], Vec::new()),
        ];
        letters.iter().for_each(|bytes| assert!(comes_back::<DeadLetter>(bytes).is_some()));
        class_survives(keys::class::DEAD, &letters);
    }

    #[test]
    fn a_hostile_pattern_is_refused_or_read_as_it_is() {
        let valid = [keys::pattern(1, "orders.*", "placed"), encoded(&StartFrom::Earliest)];
        class_survives(keys::class::PATTERN, &valid);
    }
}
