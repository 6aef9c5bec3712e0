//! Topics: events stored once, durable subscriptions, retention and gaps.

use super::world::{
    Gate, Log, Note, Probe, World, a_moment, at_once, bound, note, probe, scribe, secs, soon, until,
};
use crate::testkit::run_until_idle;
use crate::{
    Actor, Address, BatchHandler, Context, Failure, Gap, Handler, Item, Outcomes, Retention, Spawn,
    StartFrom, System, Topic,
};

async fn topic(system: &System) -> Topic<Note> {
    system.topic("notes").await.expect("opens")
}

async fn publish(topic: &Topic<Note>, range: std::ops::Range<u64>) {
    for number in range {
        let published = topic.publish(note(number)).await.expect("accepted");
        assert_eq!(published.sequence, Some(number));
    }
}

/// A subscriber that writes down each event.
async fn reader(system: &System, topic: &Topic<Note>, name: &str, from: StartFrom, log: &Log) {
    let log = log.clone();
    let spawn = probe(system, name, move |turn| {
        log.say(turn.note);
        Box::pin(async { Ok(0) })
    });
    spawn.subscribe(topic, from).await.expect("spawns");
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn every_subscriber_gets_every_event_in_order_and_a_late_one_what_came_before_it() {
    let world = World::new();
    let system = world.open().await;
    let topic = topic(&system).await;
    let logs = [Log::new(), Log::new(), Log::new(), Log::new()];
    reader(&system, &topic, "early", StartFrom::Earliest, &logs[0]).await;
    publish(&topic, 0..10).await;
    reader(&system, &topic, "late", StartFrom::Earliest, &logs[1]).await;
    reader(&system, &topic, "new", StartFrom::Latest, &logs[2]).await;
    reader(&system, &topic, "from-7", StartFrom::Sequence(7), &logs[3]).await;
    publish(&topic, 10..20).await;
    soon(run_until_idle(&system)).await.expect("runs");
    let firsts = [0, 0, 10, 7];
    for (log, first) in logs.iter().zip(firsts) {
        assert_eq!(log.all(), numbers(first..20));
    }
    let info = topic.info().await.expect("readable");
    assert_eq!((info.first, info.next), (0, 20));
}

#[tokio::test]
async fn a_subscriber_that_was_down_gets_what_it_missed_and_nothing_twice() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    reader(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    publish(&notes, 0..5).await;
    log.lines(5).await;
    let system = world.restart(system).await;
    let notes = topic(&system).await;
    publish(&notes, 5..9).await;
    let system = world.crash(system).await;
    let notes = topic(&system).await;
    publish(&notes, 9..12).await;
    // where it begins is for the first time alone
    reader(&system, &notes, "reader", StartFrom::Latest, &log).await;
    assert_eq!(log.lines(12).await, numbers(0..12));
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.len(), 12);
}

/// Sends a copy of each event in its turn, then waits at the gate.
fn copier<'s>(system: &'s System, log: &Log, gate: &Gate) -> Spawn<'s, Probe> {
    let (log, gate) = (log.clone(), gate.clone());
    let to = Address::<Probe>::new("copies").expect("a name");
    probe(system, "copier", move |turn| {
        let (log, gate) = (log.clone(), gate.clone());
        let sent = turn.ctx.tell(&to, note(format!("copy of {}", turn.note)));
        Box::pin(async move {
            sent?;
            log.say("began");
            gate.pass().await;
            Ok(0)
        })
    })
}

#[tokio::test]
async fn the_place_moves_with_the_effects_of_the_turn_or_not_at_all() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system).await;
    let copies = bound(&system, "copies").await;
    copier(&system, &log, &gate).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, 0..2).await;
    gate.let_one_pass();
    log.lines(2).await;
    assert_eq!(copies.waiting(), 1);
    // killed in the second turn: it is run again, the first is not
    let system = world.crash(system).await;
    let notes = topic(&system).await;
    gate.open();
    copier(&system, &log, &gate).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    let copied = Log::new();
    scribe(&system, "copies", &copied).await;
    assert_eq!(copied.lines(2).await, ["copy of 0", "copy of 1"]);
    a_moment().await;
    assert_eq!(copied.len(), 2);
}

#[tokio::test]
async fn an_event_published_in_a_turn_is_there_if_the_turn_is() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    reader(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    let to = notes.clone();
    let spawn = probe(&system, "publisher", move |turn| {
        let published = turn.ctx.publish(&to, note(format!("of {}", turn.note)));
        let bad = turn.note == "bad";
        Box::pin(async move {
            published?;
            if bad { Err(Failure::new("no")) } else { Ok(0) }
        })
    });
    let publisher = spawn.retry(at_once(2)).await.expect("spawns");
    publisher.tell_all([note("bad"), note("good")]).await.expect("accepted");
    assert_eq!(log.lines(1).await, ["of good"]);
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all(), ["of good"]);
    let refused = probe(&system, "direct", move |_| {
        let notes = notes.clone();
        Box::pin(async move {
            let refused = notes.publish(note("x")).await.expect_err("in a turn").to_string();
            Err(Failure::new(refused).terminal())
        })
    });
    let direct = refused.await.expect("spawns");
    let why = direct.ask(note("go")).await.expect_err("fails").to_string();
    assert!(why.contains("ctx.publish"), "{why}");
}

#[tokio::test]
async fn a_failing_event_holds_up_its_own_subscription_alone_and_ends_in_the_dead_letters() {
    let (world, log, other) = (World::new(), Log::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    let said = log.clone();
    let spawn = probe(&system, "failing", move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let bad = turn.note == "1";
        Box::pin(async move { if bad { Err(Failure::new("no")) } else { Ok(0) } })
    });
    let retry = super::world::every_ten_seconds(2);
    spawn.retry(retry).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    reader(&system, &notes, "other", StartFrom::Earliest, &other).await;
    publish(&notes, 0..3).await;
    assert_eq!(other.lines(3).await, numbers(0..3));
    log.lines(2).await;
    a_moment().await;
    assert_eq!(log.all(), ["0 1", "1 1"]);
    world.pass(secs(11));
    assert_eq!(log.lines(4).await, ["0 1", "1 1", "1 2", "2 1"]);
    let dead = system.dead_letters().page(Some("failing"), None, 9).await.expect("readable");
    assert_eq!((dead.len(), dead[0].attempts.count), (1, 2));
    system.dead_letters().redrive(dead[0].id).await.expect("there is one");
    assert_eq!(log.lines(5).await[4], "1 1");
}

#[tokio::test]
async fn direct_mail_to_a_subscriber_comes_before_events() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system).await;
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = probe(&system, "reader", move |turn| {
        said.say(turn.note);
        let pass = pass.clone();
        Box::pin(async move {
            pass.pass().await;
            Ok(0)
        })
    });
    let reader = spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, 0..2).await;
    log.lines(1).await;
    reader.tell(note("direct")).await.expect("accepted");
    gate.open();
    assert_eq!(log.lines(3).await, ["0", "direct", "1"]);
}

/// Counts gaps.
struct Gaps {
    log: Log,
    fails: bool,
}

impl Actor for Gaps {
    const NAME: &'static str = "test.gaps";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("gap {}..{}", gap.from, gap.to));
        match self.fails && self.log.count("mended") == 0 {
            true => Err(Failure::new("not now")),
            false => Ok(()),
        }
    }
}

impl Handler<Note> for Gaps {
    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.log.say(&note.0);
        Ok(0)
    }
}

fn gaps<'s>(system: &'s System, log: &Log, fails: bool) -> Spawn<'s, Gaps> {
    let log = log.clone();
    system.spawn("gaps", move || Gaps { log: log.clone(), fails })
}

#[tokio::test]
async fn what_retention_took_is_told_before_the_next_event_and_once() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().count(3)).await.expect("opens");
    let reader = gaps(&system, &log, false).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, 0..2).await;
    log.lines(2).await;
    reader.stop().await;
    publish(&notes, 2..10).await;
    world.pass(secs(2));
    until("retention has come", || {
        let progress = notes.clone();
        futures_util::FutureExt::now_or_never(
            async move { progress.info().await.ok().map(|info| info.first) },
        )
        .flatten()
            == Some(7)
    })
    .await;
    let subscription = system.subscription("gaps").await.expect("there is one");
    let info = subscription.info().await.expect("readable");
    assert_eq!((info.position, info.next, info.lag, info.lost), (7, 10, 3, 5));
    gaps(&system, &log, true).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    assert_eq!(log.lines(3).await[2..], ["gap 2..7"]);
    a_moment().await;
    assert_eq!(log.len(), 3, "an event came before the gap was taken note of");
    log.say("mended");
    world.pass(secs(2));
    assert_eq!(log.lines(8).await[4..], ["gap 2..7", "7", "8", "9"]);
    let system = world.restart(system).await;
    let notes = topic(&system).await;
    gaps(&system, &log, false).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, 10..11).await;
    assert_eq!(log.lines(9).await[8..], ["10"]);
}

#[tokio::test]
async fn events_go_by_age_bytes_or_interest_and_never_without_a_bound() {
    let world = World::new();
    let system = world.open().await;
    let open = async |name: &str, retention: Retention| {
        let topic: Topic<Note> = system.topic(name).retention(retention).await.expect("opens");
        topic.publish_all((0..10).map(note)).await.expect("accepted");
        topic
    };
    let all = open("all", Retention::forever()).await;
    let aged = open("aged", Retention::forever().age(secs(60))).await;
    let bytes = open("bytes", Retention::forever()).await;
    let size = bytes.info().await.expect("readable").bytes / 10;
    let bytes =
        system.topic::<Note>("bytes").retention(Retention::forever().bytes(4 * size)).await.expect("opens");
    let needed = open("needed", Retention::forever().interest()).await;
    let unread = open("unread", Retention::forever().interest()).await;
    let log = Log::new();
    reader(&system, &needed, "reader", StartFrom::Earliest, &log).await;
    log.lines(10).await;
    world.pass(secs(30));
    aged.publish(note("young")).await.expect("accepted");
    world.pass(secs(40));
    let first = async |topic: &Topic<Note>| topic.info().await.expect("readable").first;
    for _ in 0..200 {
        if first(&needed).await == 10 && first(&aged).await == 10 {
            break;
        }
        world.pass(secs(1));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let firsts = (
        first(&all).await,
        first(&aged).await,
        first(&bytes).await,
        first(&needed).await,
        first(&unread).await,
    );
    assert_eq!(firsts, (0, 10, 6, 10, 0));
}

#[tokio::test]
async fn a_subscription_goes_back_and_forth_while_its_actor_runs() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    reader(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    publish(&notes, 0..6).await;
    log.lines(6).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    subscription.seek(StartFrom::Sequence(4)).await.expect("moves");
    assert_eq!(log.lines(8).await[6..], ["4", "5"]);
    world.pass(secs(1));
    let noon = system.now();
    publish(&notes, 6..8).await;
    log.lines(10).await;
    subscription.seek(StartFrom::Time(noon)).await.expect("moves");
    assert_eq!(log.lines(12).await[10..], ["6", "7"]);
    let info = subscription.info().await.expect("readable");
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(info.next, 8);
}

/// Waits until retention has come to a place, and sees that it stays there.
async fn taken_up_to(world: &World, topic: &Topic<Note>, expected: u64) {
    let first = async || topic.info().await.expect("readable").first;
    for _ in 0..200 {
        if first().await >= expected {
            break;
        }
        world.pass(secs(1));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.pass(secs(2));
    a_moment().await;
    assert_eq!(first().await, expected);
}

#[tokio::test]
async fn events_go_by_count_to_the_bound_and_not_beyond() {
    let world = World::new();
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().count(3)).await.expect("opens");
    publish(&notes, 0..10).await;
    taken_up_to(&world, &notes, 7).await;
}

#[tokio::test]
async fn interest_keeps_what_the_slowest_subscription_needs() {
    let (world, log, slow, gate) = (World::new(), Log::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().interest()).await.expect("opens");
    reader(&system, &notes, "quick", StartFrom::Earliest, &log).await;
    let (said, pass) = (slow.clone(), gate.clone());
    let spawn = probe(&system, "slow", move |turn| {
        said.say(turn.note);
        let pass = pass.clone();
        Box::pin(async move {
            pass.pass().await;
            Ok(0)
        })
    });
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, 0..10).await;
    log.lines(10).await;
    (0..4).for_each(|_| gate.let_one_pass());
    slow.lines(5).await;
    taken_up_to(&world, &notes, 4).await;
    gate.open();
    assert_eq!(slow.lines(10).await, numbers(0..10));
    taken_up_to(&world, &notes, 10).await;
}

/// Fails with event 0 the first time, once the gate lets it, and writes down its gaps.
struct Stumbles {
    log: Log,
    gate: Gate,
}

impl Actor for Stumbles {
    const NAME: &'static str = "test.stumbles";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("gap {}..{}", gap.from, gap.to));
        Ok(())
    }
}

impl Handler<Note> for Stumbles {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        if note.0 == "0" && ctx.attempt() == 1 {
            self.log.say("fails");
            self.gate.pass().await;
            return Err(Failure::new("not now"));
        }
        self.log.say(&note.0);
        Ok(0)
    }
}

/// A subscriber that has read all ten events ahead and fails with the first, in a topic that keeps three.
async fn stumbles(world: &World, log: &Log, gate: &Gate) -> (System, Topic<Note>) {
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().count(3)).await.expect("opens");
    notes.publish_all((0..10).map(note)).await.expect("accepted");
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = system.spawn("stumbles", move || Stumbles { log: said.clone(), gate: pass.clone() });
    let spawn = spawn.retry(super::world::every_ten_seconds(3));
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(1).await;
    (system, notes)
}

#[tokio::test]
async fn an_event_that_retention_took_while_it_waited_to_be_tried_again_is_handled_and_not_told_as_lost() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    gate.open();
    let (system, notes) = stumbles(&world, &log, &gate).await;
    a_moment().await;
    taken_up_to(&world, &notes, 7).await;
    world.pass(secs(11));
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all()[1..], numbers(0..10));
}

#[tokio::test]
async fn an_event_that_retention_took_before_its_handler_failed_is_told_as_a_gap_and_no_dead_letter() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let (system, notes) = stumbles(&world, &log, &gate).await;
    taken_up_to(&world, &notes, 7).await;
    gate.open();
    log.lines(2).await;
    a_moment().await;
    world.pass(secs(11));
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all()[1], "gap 0..1");
    assert_eq!(log.all()[2..], numbers(1..10));
    assert!(super::world::dead(&system).await.is_empty());
}

/// Writes down each batch by its first and last event, and gaps; waits at the gate with each.
struct Gatherer {
    log: Log,
    gate: Gate,
}

impl Actor for Gatherer {
    const NAME: &'static str = "test.gatherer";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("gap {}..{}", gap.from, gap.to));
        Ok(())
    }
}

impl BatchHandler<Note> for Gatherer {
    async fn handle_batch(
        &mut self,
        batch: Vec<Item<Note>>,
        _: &mut Context<Self>,
    ) -> Result<Outcomes<Note>, Failure> {
        let text = |item: Option<&Item<Note>>| item.map(|item| item.message.0.clone()).unwrap_or_default();
        self.log.say(format!("{} to {}", text(batch.first()), text(batch.last())));
        self.gate.pass().await;
        Ok(batch.iter().map(|_| Ok(0)).collect())
    }
}

#[tokio::test]
async fn a_gap_is_told_between_two_batches_and_not_passed_over_within_one() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().count(10)).await.expect("opens");
    notes.publish_all((0..70).map(note)).await.expect("accepted");
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = system.spawn("gatherer", move || Gatherer { log: said.clone(), gate: pass.clone() });
    spawn.batch(60, secs(0)).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    // 64 are read at once: four wait behind the batch
    log.lines(1).await;
    notes.publish_all((70..110).map(note)).await.expect("accepted");
    taken_up_to(&world, &notes, 100).await;
    gate.open();
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all(), ["0 to 59", "60 to 63", "gap 64..100", "100 to 109"]);
}

#[tokio::test]
async fn a_seek_drops_what_was_read_ahead() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system).await;
    publish(&notes, 0..6).await;
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = probe(&system, "reader", move |turn| {
        said.say(turn.note);
        let pass = pass.clone();
        Box::pin(async move {
            pass.pass().await;
            Ok(0)
        })
    });
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(1).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    subscription.seek(StartFrom::Sequence(3)).await.expect("moves");
    gate.let_one_pass();
    assert_eq!(log.lines(2).await, ["0", "3"]);
    subscription.seek(StartFrom::Sequence(1)).await.expect("moves");
    gate.open();
    // the turn with 3 is committed after the seek, and stands
    assert_eq!(log.lines(6).await, ["0", "3", "1", "2", "4", "5"]);
}

#[tokio::test]
async fn who_subscribes_to_nothing_has_no_subscription() {
    let world = World::new();
    let system = world.open().await;
    bound(&system, "plain").await;
    let missing = system.subscription("plain").await.err().map(|why| why.to_string());
    assert_eq!(missing.as_deref(), Some("there is no subscription plain"));
}

#[tokio::test]
async fn publishing_to_fifty_subscribers_is_all_or_nothing() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    let logs: Vec<_> = (0..50).map(|_| Log::new()).collect();
    for (number, log) in logs.iter().enumerate() {
        reader(&system, &notes, &format!("reader-{number}"), StartFrom::Earliest, log).await;
    }
    world.disk.hold_syncs();
    let publishing = tokio::spawn({
        let notes = notes.clone();
        async move { notes.publish(note("lost or there")).await }
    });
    until("the sync is held", || world.disk.waiting_syncs() > 0).await;
    world.disk.crash();
    assert!(publishing.await.expect("no panic").is_err());
    drop((notes, system));
    let system = world.open().await;
    let notes = topic(&system).await;
    let there = notes.info().await.expect("readable").next;
    let logs: Vec<_> = (0..50).map(|_| Log::new()).collect();
    for (number, log) in logs.iter().enumerate() {
        reader(&system, &notes, &format!("reader-{number}"), StartFrom::Earliest, log).await;
    }
    soon(run_until_idle(&system)).await.expect("runs");
    for log in &logs {
        assert_eq!(log.len() as u64, there);
    }
}
