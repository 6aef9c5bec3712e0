//! The small world the tests share: one machine, one clock, and an actor whose handler each test writes itself.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::store::SimulatedDisk;
use crate::{
    Actor, ActorRef, Cell, Context, DeadLetter, Failure, Handler, ManualClock, MapKey, Message, OpenEntities,
    RetryPolicy, Spawn, System, SystemBuilder, Timestamp,
};

/// Longer than anything here takes on a machine that is busy with other work, short enough to wait for when something
/// hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is still pending after this time is taken to wait.
const A_MOMENT: Duration = Duration::from_millis(60);

/// A number every test actor may keep.
pub(super) const TOTAL: Cell<u64> = Cell::new("total", 1);

/// One machine and one clock, through all restarts.
pub(super) struct World {
    pub(super) disk: SimulatedDisk,
    pub(super) clock: Arc<ManualClock>,
}

impl World {
    pub(super) fn new() -> Self {
        World::with(SimulatedDisk::new(7))
    }

    pub(super) fn with(disk: SimulatedDisk) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000), 7));
        World { disk, clock }
    }

    pub(super) fn builder(&self) -> SystemBuilder {
        System::builder().clock(self.clock.clone()).max_message(64 << 10)
    }

    pub(super) async fn open(&self) -> System {
        self.builder().open_simulated(&self.disk).await.expect("opens")
    }

    /// An orderly end and the next start.
    pub(super) async fn restart(&self, system: System) -> System {
        system.shutdown(PATIENCE).await.expect("shuts down");
        self.open().await
    }

    /// A power cut and the next start: what was not synced is at the mercy of the seed.
    pub(super) async fn crash(&self, system: System) -> System {
        self.disk.crash();
        drop(system);
        self.open().await
    }

    /// Waits until the store's threads have nothing left to do, such as segments to prepare.
    pub(super) async fn quiet(&self) {
        loop {
            let before = self.disk.operations();
            a_moment().await;
            if self.disk.operations() == before {
                return;
            }
        }
    }

    pub(super) fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A note, to be handled as the test says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Note(pub(super) String);

impl Message for Note {
    type Reply = u64;
    const NAME: &'static str = "test.note";
}

pub(super) fn note(text: impl ToString) -> Note {
    Note(text.to_string())
}

/// One run of the handler.
pub(super) struct Turn<'a> {
    pub(super) note: &'a str,
    pub(super) ctx: &'a mut Context<Probe>,
    /// The actor's own memory: what a rebuilt actor has not.
    pub(super) memory: &'a mut Vec<String>,
}

pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send + 'a>>;
type Script = dyn for<'a> Fn(Turn<'a>) -> Answer<'a> + Send + Sync;

/// An actor that does what its test says.
pub(super) struct Probe {
    script: Arc<Script>,
    memory: Vec<String>,
}

impl Probe {
    pub(super) fn new(script: Arc<Script>) -> Self {
        Probe { script, memory: Vec::new() }
    }
}

impl Actor for Probe {
    const NAME: &'static str = "test.probe";
    type Messages = (Note,);
}

impl Handler<Note> for Probe {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        let script = self.script.clone();
        script(Turn { note: &note.0, ctx, memory: &mut self.memory }).await
    }
}

/// A script that is used more than once.
pub(super) fn script<F>(script: F) -> F
where
    F: for<'a> Fn(Turn<'a>) -> Answer<'a> + Clone + Send + Sync + 'static,
{
    script
}

/// Notes the beginning of each run, and ends it when the gate lets it.
pub(super) fn gated(
    log: &Log,
    gate: &Gate,
) -> impl for<'a> Fn(Turn<'a>) -> Answer<'a> + Clone + Send + Sync + 'static {
    let (log, gate) = (log.clone(), gate.clone());
    script(move |turn| {
        log.say(turn.note);
        let gate = gate.clone();
        Box::pin(async move {
            gate.pass().await;
            Ok(0)
        })
    })
}

/// A spawn of a probe; `.await` starts it.
pub(super) fn probe<'s, F>(system: &'s System, name: &str, script: F) -> Spawn<'s, Probe>
where
    F: for<'a> Fn(Turn<'a>) -> Answer<'a> + Send + Sync + 'static,
{
    let script: Arc<Script> = Arc::new(script);
    system.spawn(name, move || Probe { script: script.clone(), memory: Vec::new() })
}

/// A region of probes; `.await` opens it. What a turn's key is, its context's address says.
pub(super) fn region<'s, K, F>(system: &'s System, name: &str, script: F) -> OpenEntities<'s, K, Probe>
where
    K: MapKey + Send + Sync + 'static,
    F: for<'a> Fn(Turn<'a>) -> Answer<'a> + Send + Sync + 'static,
{
    let script: Arc<Script> = Arc::new(script);
    system.entities(name, move |_: &K| Probe { script: script.clone(), memory: Vec::new() })
}

/// As [`probe`], with several workers.
pub(super) fn probes<'s, F>(system: &'s System, name: &str, workers: usize, script: F) -> Spawn<'s, Probe>
where
    F: for<'a> Fn(Turn<'a>) -> Answer<'a> + Send + Sync + 'static,
{
    let script: Arc<Script> = Arc::new(script);
    system.pool(name, workers, move || Probe { script: script.clone(), memory: Vec::new() })
}

/// A probe that writes down each note.
pub(super) async fn scribe(system: &System, name: &str, log: &Log) -> ActorRef<Probe> {
    let log = log.clone();
    let spawn = probe(system, name, move |turn| {
        log.say(turn.note);
        Box::pin(async { Ok(0) })
    });
    spawn.await.expect("spawns")
}

/// A handle on a probe that need not run.
pub(super) async fn bound(system: &System, name: &str) -> ActorRef<Probe> {
    system.bind(&crate::Address::new(name).expect("a name")).await.expect("binds")
}

/// No delay between attempts.
pub(super) fn at_once(attempts: u32) -> RetryPolicy {
    RetryPolicy::immediately(attempts)
}

/// A delay of exactly 10 s before each further attempt.
pub(super) fn every_ten_seconds(attempts: u32) -> RetryPolicy {
    RetryPolicy::strict().with_attempts(attempts).with_backoff(secs(10), 1.0, secs(10)).without_jitter()
}

/// What handlers wrote down, in order, through all restarts.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn say(&self, text: impl ToString) {
        self.0.lock().expect("whole").push(text.to_string());
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().expect("whole").clone()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().expect("whole").len()
    }

    pub(super) fn count(&self, text: &str) -> usize {
        self.0.lock().expect("whole").iter().filter(|said| *said == text).count()
    }

    /// Waits until there are `count` lines, and gives them back.
    pub(super) async fn lines(&self, count: usize) -> Vec<String> {
        until("the lines of the log", || self.len() >= count).await;
        self.all()
    }
}

/// Lets through as many as it was told to.
#[derive(Clone)]
pub(super) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(super) fn closed() -> Self {
        Gate(Arc::new(Semaphore::new(0)))
    }

    pub(super) async fn pass(&self) {
        self.0.acquire().await.expect("open").forget();
    }

    pub(super) fn let_one_pass(&self) {
        self.0.add_permits(1);
    }

    pub(super) fn open(&self) {
        self.0.add_permits(1 << 20);
    }
}

/// Waits until the mailbox is empty, and that is on disk: a crash after this brings nothing back.
pub(super) async fn settled(to: &ActorRef<Probe>) {
    until("the mailbox to be empty", || to.waiting() == 0).await;
    to.runtime.ledger.store().durable_now().await.expect("durable");
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Gives tasks and threads time to do what they must not do.
pub(super) async fn a_moment() {
    tokio::time::sleep(A_MOMENT).await;
}

/// The future's end, which must come.
pub(super) async fn soon<T>(what: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what.into_future()).await.expect("it ends")
}

/// Sees that the future does not end by itself, lets happen what it waits for, and gives back its end.
pub(super) async fn only_after<T: Debug>(what: impl IntoFuture<Output = T>, event: impl FnOnce()) -> T {
    let mut what = std::pin::pin!(what.into_future());
    if let Ok(early) = tokio::time::timeout(A_MOMENT, what.as_mut()).await {
        // so that what is held does not hold up the end of the test
        event();
        panic!("it ended too early: {early:?}");
    }
    event();
    soon(what).await
}

/// All dead letters.
pub(super) async fn dead(system: &System) -> Vec<DeadLetter> {
    system.dead_letters().page(None, None, 1000).await.expect("readable")
}

/// Waits for the first dead letter.
pub(super) async fn first_dead(system: &System) -> DeadLetter {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(first) = dead(system).await.into_iter().next() {
            return first;
        }
        assert!(tokio::time::Instant::now() < end, "no dead letter came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl World {
    pub(super) fn clock_now(&self) -> Timestamp {
        crate::Clock::now(&*self.clock)
    }
}
