//! What is left of a damaged store: all that can be read before the first hole, under its own name and at its own place, and a
//! word about everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::world::*;
use crate::durable::RECORDS;
use crate::store::salvage::{self, CheckReport, Contents, SalvageReport, Severity};
use crate::store::{Place, SimulatedDisk};
use crate::testkit::run_until_idle;
use crate::{ActorRef, Failure, StartFrom, System};

fn check(disk: &SimulatedDisk) -> CheckReport {
    let to = Place::simulated(&SimulatedDisk::new(1));
    salvage::check(Place::simulated(disk), to, Path::new("aside"), &RECORDS).expect("is looked through")
}

/// The report, and the machine with the new store.
fn salvage(disk: &SimulatedDisk) -> (SalvageReport, SimulatedDisk) {
    let to = SimulatedDisk::new(2);
    let report =
        salvage::salvage(Place::simulated(disk), Place::simulated(&to), Path::new("aside"), &RECORDS);
    (report.expect("is carried"), to)
}

/// Mail for two mailboxes nobody reads and by whom it was sent: name, text, and the commit it was accepted with.
type Sent = Vec<(String, String, u64)>;

/// Counts what it is told in its state, and gives the number of before.
async fn counter(system: &System) -> ActorRef<Probe> {
    let spawn = probe(system, "worker", |turn| {
        Box::pin(async move {
            if turn.note == "bad" {
                return Err(Failure::new("bad").terminal());
            }
            let total = turn.ctx.state().get(&TOTAL)?.unwrap_or(0);
            turn.ctx.state().set(&TOTAL, &(total + 1))?;
            Ok(total)
        })
    });
    spawn.await.expect("spawns")
}

/// A store with something of everything. What was sent to nobody is told.
async fn lay(world: &World) -> (System, Sent) {
    let system =
        world.builder().overlay(24 << 10).journal_segment(256 << 10).open_simulated(&world.disk).await;
    let system = system.expect("opens");
    let topic = system.topic::<Note>("news").await.expect("opens");
    let log = Log::new();
    let reader = {
        let log = log.clone();
        probe(&system, "reader", move |turn| {
            log.say(turn.note);
            Box::pin(async { Ok(0) })
        })
    };
    let reader = reader.subscribe(&topic, StartFrom::Earliest).await.expect("spawns");
    let worker = counter(&system).await;
    let mut sent = Sent::new();
    for round in 0..60 {
        worker.tell(note(if round % 20 == 7 { "bad" } else { "count" })).await.expect("accepted");
        topic.publish(note(format!("event {round}"))).await.expect("accepted");
        for name in ["a", "b"] {
            let text = format!("{name} {round} {}", "x".repeat(900));
            bound(&system, name).await.tell(note(&text)).await.expect("accepted");
            sent.push((name.into(), text, number(&system).await));
        }
    }
    soon(run_until_idle(&system)).await.expect("runs");
    reader.stop().await;
    worker.stop().await;
    for round in 60..70 {
        topic.publish(note(format!("event {round}"))).await.expect("accepted");
        let text = format!("a {round} {}", "x".repeat(3000));
        bound(&system, "a").await.tell(note(&text)).await.expect("accepted");
        sent.push(("a".into(), text, number(&system).await));
    }
    bound(&system, "later").await.tell(note("later")).delay(secs(50)).await.expect("accepted");
    (system, sent)
}

/// The last commit there is.
async fn number(system: &System) -> u64 {
    bound(system, "a").await.runtime.ledger.store().last_number()
}

/// What waits in a mailbox of a store, in order: opened, and read by an actor.
async fn drained(disk: &SimulatedDisk, world: &World, names: &[&str]) -> BTreeMap<String, Vec<String>> {
    let system = world.builder().open_simulated(disk).await.expect("the new store opens");
    let mut found = BTreeMap::new();
    for name in names {
        let log = Log::new();
        let actor = scribe(&system, name, &log).await;
        until("the mailbox to be empty", || actor.waiting() == 0).await;
        actor.stop().await;
        found.insert((*name).to_owned(), log.all());
    }
    system.shutdown(secs(60)).await.expect("shuts down");
    found
}

fn texts(sent: &Sent, name: &str) -> Vec<String> {
    sent.iter().filter(|(to, ..)| to == name).map(|(_, text, _)| text.clone()).collect()
}

fn is_as_laid(contents: &Contents) {
    let waiting: Vec<_> =
        contents.mailboxes.iter().map(|of| (&*of.name, of.waiting, of.dead_letters)).collect();
    assert_eq!(waiting, [("worker", 0, 3), ("a", 70, 0), ("b", 60, 0)]);
    let [topic] = &contents.topics[..] else { panic!("{:?}", contents.topics) };
    assert_eq!((&*topic.name, topic.events, topic.next), ("news", 70, 70));
    let [subscription] = &topic.subscriptions[..] else { panic!("{:?}", topic.subscriptions) };
    assert_eq!((&*subscription.reader, subscription.front, subscription.waiting), ("reader", 60, 10));
    assert_eq!((contents.dead_letters, contents.scheduled, contents.cells), (3, 1, 1));
}

#[tokio::test]
async fn a_store_without_damage_is_carried_whole_whether_it_was_closed_or_not() {
    for cleanly in [true, false] {
        let world = World::new();
        let (system, sent) = lay(&world).await;
        if cleanly {
            system.shutdown(secs(60)).await.expect("shuts down");
        } else {
            world.disk.crash();
            drop(system);
        }
        let before = contents_of(&world.disk);
        let report = check(&world.disk);
        assert_eq!(report.findings, [], "closed: {cleanly}");
        assert_eq!((report.closed_cleanly, report.lost_commits), (cleanly, None));
        is_as_laid(&report.contents);
        let (carried, to) = salvage(&world.disk);
        assert_eq!(carried.found, report);
        assert!(contents_of(&world.disk) == before, "the store was changed");
        let again = check(&to);
        assert_eq!((again.findings.as_slice(), &again.contents), (&[][..], &report.contents));
        assert!(again.closed_cleanly && again.store == carried.store && again.store != report.store);

        let found = drained(&to, &world, &["a", "b"]).await;
        assert_eq!(found["a"], texts(&sent, "a"));
        assert_eq!(found["b"], texts(&sent, "b"));
        let system = world.builder().open_simulated(&to).await.expect("opens");
        let log = Log::new();
        let reader = scribe(&system, "reader", &log).await;
        let events: Vec<_> = (60..70).map(|round| format!("event {round}")).collect();
        assert_eq!(log.lines(10).await, events, "the subscription goes on where it was");
        let worker = counter(&system).await;
        assert_eq!(worker.ask(note("count")).await.expect("answers"), 57);
        world.pass(secs(60));
        let later = scribe(&system, "later", &log).await;
        log.lines(11).await;
        drop((reader, later));
        system.shutdown(secs(60)).await.expect("shuts down");
    }
}

fn contents_of(disk: &SimulatedDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &String| {
        let file = disk.medium().open(name).expect("is there");
        let mut bytes = vec![0; file.len().expect("has a length") as usize];
        file.read_at(0, &mut bytes).expect("reads");
        bytes
    };
    disk.files().into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// Whether the report speaks of a letter that was not carried.
fn is_told(report: &CheckReport, name: &str, position: u64, number: u64) -> bool {
    let lost = |lost: &salvage::LostMessages| {
        lost.mailbox == name && (lost.first..lost.first + lost.count).contains(&position)
    };
    let without_name = || {
        let speaks = |finding: &salvage::Finding| {
            finding.severity == Severity::Loss
                && (finding.place.contains("mailbox number") || finding.place == format!("mailbox {name}"))
        };
        report.findings.iter().any(speaks)
    };
    let engine_is_lost = || {
        let is_whole =
            |finding: &salvage::Finding| finding.place.is_empty() && finding.file.ends_with("memory");
        report.findings.iter().any(|finding| finding.severity == Severity::Loss && is_whole(finding))
    };
    report.lost_messages.iter().any(lost)
        || report.lost_commits.is_some_and(|lost| number > lost.after)
        || without_name()
        || engine_is_lost()
}

/// Damages a copy of the machine, salvages it, and holds what came of it to what was said.
async fn case(world: &World, sent: &Sent, what: &str, damage: impl FnOnce(&SimulatedDisk)) -> CheckReport {
    let disk = world.disk.fork();
    damage(&disk);
    let before = contents_of(&disk);
    let looked = catch_unwind(AssertUnwindSafe(|| (check(&disk), salvage(&disk))));
    let (report, (carried, to)) = looked.unwrap_or_else(|_| panic!("{what}: it panics"));
    assert!(contents_of(&disk) == before, "{what}: the store was changed");
    assert_eq!(carried.found, report, "{what}");
    let again = check(&to);
    let stays = |finding: &salvage::Finding| finding.what.contains("record is lost");
    assert!(again.findings.iter().all(stays), "{what}: the new store is not whole: {:#?}", again.findings);
    assert_eq!(again.contents, report.contents, "{what}: what is said to be carried");
    let known: BTreeSet<_> = report.contents.mailboxes.iter().map(|of| of.name.as_str()).collect();
    let found = drained(&to, world, &["a", "b"]).await;
    for name in ["a", "b"] {
        let expected = texts(sent, name);
        let mut rest = expected.iter();
        for text in &found[name] {
            assert!(
                rest.any(|one| one == text),
                "{what}: {name} has {text:.9}, which was not sent or not in this place"
            );
        }
        let numbers = sent.iter().filter(|(to, ..)| to == name).map(|(.., number)| *number);
        for ((text, number), position) in expected.iter().zip(numbers).zip(0..) {
            let is_there = found[name].contains(text);
            let told = is_told(&report, name, position, number);
            assert!(
                is_there || told,
                "{what}: message {position} of {name} is lost, and nobody says so: {report:#?}"
            );
        }
        let said = report.contents.mailboxes.iter().find(|of| of.name == name).map_or(0, |of| of.waiting);
        assert!(found[name].len() as u64 == said || !known.contains(name), "{what}: {said} of {name}");
    }
    report
}

#[tokio::test]
async fn whatever_is_damaged_what_is_said_to_be_carried_is_there_and_the_rest_is_told() {
    let world = World::new();
    let (system, sent) = lay(&world).await;
    system.shutdown(secs(60)).await.expect("shuts down");
    let mut chance = 7;
    let mut losses = 0;
    for name in world.disk.files() {
        let len = contents_of(&world.disk)[&name].len();
        if len == 0 || name.contains("spare") {
            continue;
        }
        let end = contents_of(&world.disk)[&name].iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        for how in 0..7 {
            let at = draw(&mut chance, end) as usize;
            let what = format!("{name}, way {how}, byte {at}");
            let report = case(&world, &sent, &what, |disk| match how {
                0 => remove(disk, &name),
                1 => change(disk, &name, |bytes| bytes.truncate(at)),
                2 => change(disk, &name, |bytes| {
                    bytes[at / 4096 * 4096..].iter_mut().take(4096).for_each(|b| *b = 0)
                }),
                _ => change(disk, &name, |bytes| bytes[at] ^= 1 << (at % 8)),
            });
            losses += u64::from(report.await.has_losses());
        }
    }
    assert!(losses > 10, "{losses}");
}

/// As above, of the values in the engine and of a journal with much in it.
#[tokio::test]
async fn whatever_is_damaged_after_a_crash_or_in_the_engine_is_told_too() {
    let world = World::new();
    let (system, sent) = lay(&world).await;
    world.disk.crash();
    drop(system);
    let mut pairs = 0;
    world.disk.fork().damage_engine(|map| pairs = map.len());
    let mut chance = 9;
    for _ in 0..40 {
        let (at, how) = (draw(&mut chance, pairs as u64) as usize, draw(&mut chance, 3));
        let what = format!("pair {at} of the engine, way {how}");
        case(&world, &sent, &what, |disk| {
            disk.damage_engine(|map| {
                let key = map.keys().nth(at).cloned().expect("is there");
                match how {
                    0 => drop(map.remove(&key)),
                    _ => {
                        let value = map.get_mut(&key).expect("is there");
                        let byte = at % value.len();
                        value[byte] ^= 1;
                    }
                }
            });
        })
        .await;
    }
    let segments: Vec<_> = world.disk.files().into_iter().filter(|name| name.ends_with(".seg")).collect();
    for name in &segments {
        let bytes = contents_of(&world.disk)[name].clone();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        for _ in 0..6 {
            let at = draw(&mut chance, end) as usize;
            // the last group of a store that crashed cannot be told from one that was never finished
            let last = bytes.windows(4).rposition(|magic| magic == b"SFG1").unwrap_or(0);
            if at < last {
                case(&world, &sent, &format!("{name}, byte {at}"), |disk| {
                    change(disk, name, |bytes| bytes[at] ^= 4)
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn what_was_committed_behind_a_hole_is_counted_and_not_carried() {
    let world = World::new();
    let system = world.open().await;
    let mut sent = Sent::new();
    for round in 0..30 {
        let text = format!("a {round}");
        bound(&system, "a").await.tell(note(&text)).await.expect("accepted");
        sent.push(("a".into(), text, number(&system).await));
    }
    world.disk.crash();
    drop(system);
    let segment = world.disk.files().into_iter().rfind(|name| name.ends_with(".seg")).expect("a segment");
    let bytes = contents_of(&world.disk)[&segment].clone();
    let is_of = |text: &str, at: usize| bytes[at..].starts_with(text.as_bytes());
    let tenth = (0..bytes.len()).find(|at| is_of("a 10", *at)).expect("is in the journal");
    let report =
        case(&world, &sent, "the tenth", |disk| change(disk, &segment, |bytes| bytes[tenth] ^= 1)).await;
    let lost = report.lost_commits.expect("is told");
    assert_eq!((lost.after, lost.until), (sent[9].2, sent[29].2));
    assert_eq!((lost.readable, lost.messages), (19, 19));
    assert_eq!(report.contents.mailboxes[0].waiting, 10);
}

#[tokio::test]
async fn a_lost_page_is_told_in_positions_and_its_mailbox_goes_on() {
    let world = World::new();
    let (system, sent) = lay(&world).await;
    system.shutdown(secs(60)).await.expect("shuts down");
    let mut pages = Vec::new();
    world.disk.fork().damage_engine(|map| pages.extend(map.keys().filter(|key| key[0] == 0x21).cloned()));
    let mut lost = 0;
    for key in &pages {
        let report =
            case(&world, &sent, "a page", |disk| disk.damage_engine(|map| drop(map.remove(key)))).await;
        assert!(report.has_losses() && report.lost_commits.is_none(), "{report:#?}");
        lost += report.lost_messages.iter().map(|lost| lost.count).sum::<u64>();
    }
    // each letter and each event lies in one page
    assert_eq!(lost, 70 + 60 + 70);
}

fn change(disk: &SimulatedDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    disk.damage(name, change).expect("is there");
}

fn remove(disk: &SimulatedDisk, name: &str) {
    let medium = disk.medium();
    medium.remove(name).expect("is there");
    for dir in ["", "journal", "pages"] {
        medium.sync_dir(dir).expect("syncs");
    }
}

/// A number drawn from `chance`, below `below`.
fn draw(chance: &mut u64, below: u64) -> u64 {
    *chance = crate::clock::mix(chance.wrapping_add(0x9E37_79B9));
    *chance % below.max(1)
}
