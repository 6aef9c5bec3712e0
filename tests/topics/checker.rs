//! What must hold of topics and their subscribers, whatever was killed when: asked of what the child acknowledged and of what
//! the store holds in the end. It finds everything that is wrong, and says of which kind it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::life::TELLERS;
use super::plan::{Happened, PLAIN, SHORT};
use super::readers::Got;

/// What was acknowledged and what was found.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) acknowledged: Acknowledged,
    pub(crate) records: Vec<Record>,
    /// The sequence number that each topic's next event will have.
    pub(crate) next: BTreeMap<String, u64>,
}

/// What the child said before it was killed.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Events by topic and sequence number.
    pub(crate) published: BTreeMap<(String, u64), Happened>,
    /// Sources and numbers of what a turn was to publish.
    pub(crate) told: BTreeSet<(u32, u64)>,
    pub(crate) wrong: Vec<Wrong>,
}

/// What one subscriber has in its state, and where its subscription is.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) got: Vec<Got>,
    pub(crate) position: u64,
    pub(crate) lag: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event that was acknowledged, or that others got, did not come.
    Lost,
    Twice,
    /// An event came where another should have.
    Order,
    /// A gap that is none, or was told wrongly.
    Gap,
    /// What was published together does not lie together.
    Torn,
    /// A subscription's place is not what the state says.
    Position,
}

#[derive(Debug, Clone)]
pub(crate) struct Wrong {
    pub(crate) kind: Kind,
    what: String,
}

impl Wrong {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Wrong { kind, what: what.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

impl Acknowledged {
    /// Takes a line of the child in.
    pub(crate) fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().unwrap_or_else(|why| panic!("{why}: {line:?}"));
        let (source, sent) = (words.len() - 2, words.len() - 1);
        if words[0] == "told" {
            self.told.insert((number(words[source]) as u32, number(words[sent])));
            return;
        }
        let (topic, source, sent) = (words[1], number(words[2]) as u32, number(words[3]));
        let sequences: Vec<u64> = words[4..].iter().map(|word| number(word)).collect();
        let of = sequences.len() as u32;
        if sequences.windows(2).any(|two| two[1] != two[0] + 1) {
            let what =
                format!("{topic}: {sent} of {source} was published together and lies at {sequences:?}");
            self.wrong.push(Wrong::new(Kind::Torn, what));
        }
        for (part, sequence) in (0..).zip(sequences) {
            let event = Happened { source, number: sent, part, of };
            if let Some(before) = self.published.insert((topic.to_owned(), sequence), event) {
                let what = format!("{topic}: {sent} of {source} was given {sequence}, as {before:?} was");
                self.wrong.push(Wrong::new(Kind::Lost, what));
            }
        }
    }
}

impl Record {
    /// The events by the sequence numbers that follow from the gaps.
    fn events(&self) -> impl Iterator<Item = (u64, &Happened)> {
        let mut at = 0;
        self.got.iter().filter_map(move |got| match got {
            Got::Event(event, _) => {
                at += 1;
                Some((at - 1, event))
            }
            Got::Gap { to, .. } => {
                at = *to;
                None
            }
        })
    }

    pub(crate) fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        self.got.iter().filter_map(|got| match got {
            Got::Gap { from, to } => Some((*from, *to)),
            Got::Event(..) => None,
        })
    }

    /// Each event once, in order of its source, with gaps only where there can be some.
    fn check_alone(&self, next: u64, wrong: &mut Vec<Wrong>) {
        let Record { name, topic, .. } = self;
        let mut add = |kind, what: String| wrong.push(Wrong::new(kind, format!("{name}: {what}")));
        let (mut seen, mut last, mut at) = (BTreeSet::new(), BTreeMap::new(), 0);
        for got in &self.got {
            match got {
                Got::Event(event, sequence) => {
                    if sequence.is_some_and(|sequence| sequence != at) {
                        add(Kind::Order, format!("{event:?} came at {at} as {sequence:?}"));
                    }
                    if !seen.insert(event) {
                        add(Kind::Twice, format!("{event:?} came again at {at}"));
                    } else if let Some(before) = last.insert(event.source, event)
                        && before > event
                    {
                        add(Kind::Order, format!("{event:?} at {at} came after {before:?}"));
                    }
                    at += 1;
                }
                Got::Gap { from, to } => {
                    if topic != SHORT {
                        add(Kind::Gap, format!("{from}..{to} in a topic that keeps all"));
                    }
                    if *from != at || to <= from {
                        add(Kind::Gap, format!("{from}..{to} was told at {at}"));
                    }
                    at = *to;
                }
            }
        }
        if (at, at, 0) != (self.position, next, self.lag) {
            let (position, lag) = (self.position, self.lag);
            let what = format!(
                "its state ends at {at}, its place is {position} with a lag of {lag}, the topic ends at {next}"
            );
            add(Kind::Position, what);
        }
    }

    /// Every event that anybody knows of came, where it lies, or is told as a gap.
    fn check_against(&self, log: &BTreeMap<u64, &Happened>, wrong: &mut Vec<Wrong>) {
        let mine: BTreeMap<u64, &Happened> = self.events().collect();
        let places: BTreeMap<&Happened, u64> = mine.iter().map(|(at, event)| (*event, *at)).collect();
        let gaps: Vec<_> = self.gaps().collect();
        for (sequence, event) in log {
            if mine.get(sequence) == Some(event) {
                continue;
            }
            let told = gaps.iter().any(|(from, to)| (*from..*to).contains(sequence));
            let (kind, what) = match places.get(event) {
                None if told => continue,
                None => (Kind::Lost, format!("{event:?}, which lies at {sequence}, did not come")),
                Some(at) => (Kind::Order, format!("{event:?}, which lies at {sequence}, came at {at}")),
            };
            wrong.push(Wrong::new(kind, format!("{}: {what}", self.name)));
        }
    }
}

impl Evidence {
    /// Everything that is wrong.
    pub(crate) fn check(&self) -> Vec<Wrong> {
        let mut wrong = self.acknowledged.wrong.clone();
        let mut published: BTreeMap<&str, BTreeSet<(u32, u64)>> = BTreeMap::new();
        for (topic, next) in &self.next {
            let log = self.log(topic, &mut wrong);
            for record in self.records_of(topic) {
                record.check_alone(*next, &mut wrong);
                record.check_against(&log, &mut wrong);
            }
            check_groups(topic, &log, &mut wrong);
            let in_turns = log.values().filter(|event| event.source >= TELLERS);
            published.insert(topic, in_turns.map(|event| (event.source, event.number)).collect());
        }
        self.check_turns(&published, &mut wrong);
        wrong
    }

    pub(crate) fn records_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.topic == topic)
    }

    /// A topic's events: what was acknowledged, and what anybody got.
    fn log<'a>(&'a self, topic: &'a str, wrong: &mut Vec<Wrong>) -> BTreeMap<u64, &'a Happened> {
        let of_topic = self.acknowledged.published.iter().filter(|((name, _), _)| name == topic);
        let mut log: BTreeMap<u64, &Happened> = of_topic.map(|((_, at), event)| (*at, event)).collect();
        for record in self.records_of(topic) {
            for (at, event) in record.events() {
                let known = *log.entry(at).or_insert(event);
                if known != event {
                    let what = format!("{}: {event:?} came at {at}, where {known:?} lies", record.name);
                    wrong.push(Wrong::new(Kind::Order, what));
                    // what follows is wrong too, and says no more
                    break;
                }
            }
        }
        log
    }

    /// What a turn published is in both topics or in none, and there if it was told to.
    fn check_turns(&self, published: &BTreeMap<&str, BTreeSet<(u32, u64)>>, wrong: &mut Vec<Wrong>) {
        let [first, second] = PLAIN.map(|topic| &published[topic]);
        for (source, number) in first.symmetric_difference(second) {
            let what = format!("{number} of {source} lies in one topic of two");
            wrong.push(Wrong::new(Kind::Torn, what));
        }
        for (source, number) in self.acknowledged.told.difference(first) {
            wrong.push(Wrong::new(Kind::Lost, format!("{number} of {source} was not published")));
        }
    }
}

/// What was published together lies together.
fn check_groups(topic: &str, log: &BTreeMap<u64, &Happened>, wrong: &mut Vec<Wrong>) {
    let mut checked = BTreeSet::new();
    for (at, event) in log {
        let Some(begin) = at.checked_sub(event.part.into()) else {
            wrong.push(Wrong::new(Kind::Torn, format!("{topic}: {event:?} lies at {at}")));
            continue;
        };
        if !checked.insert((event.source, event.number, begin)) {
            continue;
        }
        for part in 0..event.of {
            let expected = Happened { part, ..(*event).clone() };
            match log.get(&(begin + u64::from(part))) {
                Some(found) if **found == expected => {}
                // retention took it before anybody came to it
                None if topic == SHORT => {}
                found => {
                    let what =
                        format!("{topic}: {expected:?} belongs to {event:?}; in its place lies {found:?}");
                    wrong.push(Wrong::new(Kind::Torn, what));
                }
            }
        }
    }
}
