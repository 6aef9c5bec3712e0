//! What a worker takes next, and that it takes everything: priorities over a backlog, draining, senders that come and go
//! while an actor stops and starts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::testkit::{Disk, run_until_idle};
use steadfast::{Actor, ActorRef, Context, Failure, Handler, Message, Priority, System};
use tokio::sync::Semaphore;

#[derive(Serialize, Deserialize)]
struct Number(u64);
impl Message for Number {
    type Reply = ();
    const NAME: &'static str = "number";
}

struct Gate {
    open: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<u64>>>,
}
impl Actor for Gate {
    const NAME: &'static str = "gate";
    type Messages = (Number,);
}
impl Handler<Number> for Gate {
    async fn handle(&mut self, number: Number, _: &mut Context<Self>) -> Result<(), Failure> {
        self.open.acquire().await?.forget();
        self.seen.lock().expect("locks").push(number.0);
        Ok(())
    }
}

struct World {
    system: System,
    gate: ActorRef<Gate>,
    open: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl World {
    async fn new() -> World {
        let system = Disk::new(1).open(System::builder()).await.expect("opens");
        let (open, seen) = (Arc::new(Semaphore::new(0)), Arc::<Mutex<Vec<u64>>>::default());
        let gate = spawn(&system, &open, &seen).await;
        World { system, gate, open, seen }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().expect("locks").clone()
    }
}

async fn spawn(system: &System, open: &Arc<Semaphore>, seen: &Arc<Mutex<Vec<u64>>>) -> ActorRef<Gate> {
    let (open, seen) = (open.clone(), seen.clone());
    let made = move || Gate { open: open.clone(), seen: seen.clone() };
    system.spawn("gate", made).await.expect("starts")
}

#[tokio::test]
async fn a_message_of_high_priority_overtakes_a_backlog_that_is_being_handled() {
    // It once waited until the whole backlog was handled: a priority that had nothing was not looked at again before
    // all of them had nothing.
    let world = World::new().await;
    world.gate.tell_all((1..=500).map(Number)).await.expect("accepted");
    world.open.add_permits(1);
    while world.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.gate.tell(Number(1000)).priority(Priority::High).await.expect("accepted");
    world.gate.tell(Number(2000)).priority(Priority::Low).await.expect("accepted");
    world.open.add_permits(1_000);
    run_until_idle(&world.system).await.expect("rests");
    // the second was in its handler already
    let seen = world.seen();
    assert_eq!(seen.iter().position(|number| *number == 1000), Some(2), "{:?}", &seen[..10]);
    assert_eq!(seen.last(), Some(&2000));
}

#[tokio::test]
async fn draining_leaves_no_mail_of_any_priority() {
    let world = World::new().await;
    world.gate.tell(Number(1)).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.gate.tell(Number(1000)).priority(Priority::High).await.expect("accepted");
    world.gate.tell(Number(2000)).priority(Priority::Low).await.expect("accepted");
    let gate = world.gate.clone();
    let drained = tokio::spawn(async move { gate.drain().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.open.add_permits(10);
    drained.await.expect("drains");
    assert_eq!((world.gate.waiting(), world.seen().len()), (0, 3), "{:?}", world.seen());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_left_behind_by_an_actor_that_stops_and_starts_under_load() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 1_500;
    let world = World::new().await;
    world.open.add_permits(1_000_000);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let gate = world.gate.clone();
        senders.spawn(async move {
            for number in 0..EACH {
                gate.tell(Number(sender * 1_000_000 + number)).await.expect("accepted");
            }
        });
    }
    for round in 0_u32.. {
        match round % 3 {
            0 => world.gate.stop().await,
            1 => world.gate.drain().await,
            _ => world.gate.park().await,
        }
        spawn(&world.system, &world.open, &world.seen).await;
        tokio::time::sleep(Duration::from_millis(u64::from(round % 7))).await;
        if senders.try_join_next().is_some() && senders.is_empty() {
            break;
        }
    }
    let rests = tokio::time::timeout(Duration::from_secs(20), run_until_idle(&world.system)).await;
    assert!(rests.is_ok(), "{} wait and nobody handles them", world.gate.waiting());
    // a parked turn may have been seen and is handled again
    let mut last = vec![None; SENDERS as usize];
    let mut distinct = 0;
    for number in world.seen() {
        let (sender, number) = ((number / 1_000_000) as usize, number % 1_000_000);
        if last[sender] != Some(number) {
            assert_eq!(last[sender].map_or(0, |last: u64| last + 1), number, "of sender {sender}");
            (last[sender], distinct) = (Some(number), distinct + 1);
        }
    }
    assert_eq!(distinct, SENDERS * EACH);
}

#[derive(Serialize, Deserialize)]
struct Large(Vec<u8>);
impl Message for Large {
    type Reply = ();
    const NAME: &'static str = "large";
}

struct Fails;
impl Actor for Fails {
    const NAME: &'static str = "fails";
    type Messages = (Large,);
}
impl Handler<Large> for Fails {
    async fn handle(&mut self, _: Large, _: &mut Context<Self>) -> Result<(), Failure> {
        Err(Failure::new("never works"))
    }
}

#[tokio::test]
async fn a_message_of_the_largest_size_can_become_a_dead_letter() {
    // It once could not: the dead letter holds the body twice, which did not fit into one commit, and the message
    // stayed in its mailbox with nobody looking at it before the next start.
    const LARGEST: u64 = 40 << 10;
    let builder = System::builder().journal_segment(64 << 10).max_message(LARGEST);
    let system = Disk::new(1).open(builder).await.expect("opens");
    let fails =
        system.spawn("fails", || Fails).retry(steadfast::RetryPolicy::immediately(2)).await.expect("starts");
    fails.tell(Large(vec![7; LARGEST as usize - 1_000])).await.expect("accepted");
    let rests = tokio::time::timeout(Duration::from_secs(10), run_until_idle(&system)).await;
    assert!(rests.is_ok(), "{} waits and nobody handles it", fails.waiting());
    let dead = system.dead_letters().page(None, None, 10).await.expect("reads");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].attempts.count, 2);
}
