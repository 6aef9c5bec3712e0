//! The small world of these tests: one disk and one clock through all restarts of the process, and actors that write down
//! when they are made and dropped, and fail as their messages say.

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::testkit::Disk;
use steadfast::{
    Actor, ActorRef, Address, Backoff, Cell, ChildInfo, ChildSpec, ChildState, Context, Durability, Failure,
    Handler, MailboxOptions, ManualClock, Message, MessageId, RetryPolicy, SupervisorRef, System,
    SystemBuilder, Terminated, Timestamp,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many messages were handled.
pub(crate) const DONE: Cell<u64> = Cell::new("done", 1);

pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) log: Log,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000), 7));
        World { disk: Disk::new(7), clock, log: Log::default() }
    }

    pub(crate) fn builder(&self) -> SystemBuilder {
        System::builder().clock(self.clock.clone()).max_message(16 << 10)
    }

    pub(crate) async fn open(&self) -> System {
        self.disk.open(self.builder()).await.expect("opens")
    }

    /// An orderly end and the next start.
    pub(crate) async fn restart(&self, system: System) -> System {
        system.shutdown(PATIENCE).await.expect("shuts down");
        self.open().await
    }

    /// A power cut and the next start.
    pub(crate) async fn crash(&self, system: System) -> System {
        self.disk.crash();
        drop(system);
        self.open().await
    }

    pub(crate) fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A permanent child that is restarted at once.
    pub(crate) fn child(&self, name: &'static str) -> ChildSpec {
        let log = self.log.clone();
        let retry = MailboxOptions::new().retry(RetryPolicy::immediately(5));
        ChildSpec::actor(name, move || Hand::new(name, &log)).backoff(Backoff::none()).mailbox(retry)
    }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What was written down, in order: `+a` actor a was made, `-a` it was dropped.
#[derive(Clone, Default)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// Actors whose factories panic.
    broken: Arc<Mutex<HashSet<String>>>,
    unblocked: Arc<AtomicBool>,
}

impl Log {
    pub(crate) fn say(&self, line: impl Into<String>) {
        self.lines.lock().expect("whole").push(line.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.lock().expect("whole").clone()
    }

    pub(crate) fn text(&self) -> String {
        self.all().join(" ")
    }

    /// Waits until these lines are there, and sees that no others come.
    pub(crate) async fn becomes(&self, expected: &str) {
        let count = expected.split_whitespace().count();
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.all().len() < count && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        a_moment().await;
        assert_eq!(self.text(), expected);
    }

    /// As [`Log::becomes`], and begins anew.
    pub(crate) async fn shows(&self, expected: &str) {
        self.becomes(expected).await;
        self.clear();
    }

    pub(crate) fn clear(&self) {
        self.lines.lock().expect("whole").clear();
    }

    pub(crate) fn break_factory(&self, name: &str) {
        self.broken.lock().expect("whole").insert(name.to_owned());
    }

    pub(crate) fn mend_factory(&self, name: &str) {
        self.broken.lock().expect("whole").remove(name);
    }

    /// Lets go on what blocks.
    pub(crate) fn unblock(&self) {
        self.unblocked.store(true, Ordering::SeqCst);
    }

    fn is_broken(&self, name: &str) -> bool {
        self.broken.lock().expect("whole").contains(name)
    }
}

/// What an actor is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Do {
    /// Succeed.
    Work,
    /// Panic in the first so many attempts.
    Panic(u32),
    /// Return a failure in the first so many attempts.
    Fail(u32),
    /// Return a failure after which there is no further attempt.
    Refuse,
    Escalate,
    StopActor,
    /// Give the message back in the first attempts of this process.
    Release,
    /// Wait for ever.
    Hang,
    /// Hold on to the thread until [`Log::unblock`].
    Block,
}

impl Message for Do {
    type Reply = u64;
    const NAME: &'static str = "supervision.do";
}

pub(crate) struct Hand {
    name: &'static str,
    log: Log,
}

impl Hand {
    pub(crate) fn new(name: &'static str, log: &Log) -> Self {
        assert!(!log.is_broken(name), "the factory is broken");
        log.say(format!("+{name}"));
        Hand { name, log: log.clone() }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.log.say(format!("-{}", self.name));
    }
}

impl Actor for Hand {
    const NAME: &'static str = "supervision.hand";
    type Messages = (Do,);
}

impl Handler<Do> for Hand {
    async fn handle(&mut self, what: Do, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        let done = ctx.state().get(&DONE)?.unwrap_or(0) + 1;
        ctx.state().set(&DONE, &done)?;
        match what {
            Do::Panic(times) if ctx.attempt() <= times => panic!("boom"),
            Do::Fail(times) if ctx.attempt() <= times => Err(Failure::new("no")),
            Do::Refuse => Err(Failure::new("never").terminal()),
            Do::Escalate => Err(Failure::new("no bank").escalate()),
            Do::StopActor => Err(Failure::new("enough").stop_actor()),
            Do::Release => Err(Failure::new("later").release()),
            Do::Block => {
                self.log.say(format!("{}-blocks", self.name));
                while !self.log.unblocked.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(done)
            }
            Do::Hang => {
                self.log.say(format!("{}-hangs", self.name));
                std::future::pending().await
            }
            Do::Work | Do::Panic(_) | Do::Fail(_) => Ok(done),
        }
    }
}

/// A handle on a child.
pub(crate) async fn hand(of: &SupervisorRef, name: &str) -> ActorRef<Hand> {
    of.actor::<Hand>(name).await.expect("a child")
}

/// Has a child do something.
pub(crate) async fn tell(of: &SupervisorRef, name: &str, what: Do) -> MessageId {
    hand(of, name).await.tell(what).durability(Durability::Buffered).await.expect("accepted")
}

/// What runs and what does not: `a+ b- c…`, where … waits to be started.
pub(crate) async fn standing(of: &SupervisorRef) -> String {
    kids_of(&of.children().await.expect("it runs"))
}

pub(crate) fn kids_of(children: &[ChildInfo]) -> String {
    let mark = |child: &ChildInfo| match child.state {
        ChildState::Running => format!("{}+", child.name),
        ChildState::Waiting { .. } => format!("{}…", child.name),
        _ => format!("{}-", child.name),
    };
    children.iter().map(mark).collect::<Vec<_>>().join(" ")
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the children stand so.
pub(crate) async fn stands(of: &SupervisorRef, expected: &str) {
    let mut last = String::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        last = standing(of).await;
        if last == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("expected {expected}, it stands {last}");
}

/// The future's end, which must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it ends")
}

/// Gives tasks and threads time to do what they must not do.
pub(crate) async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(15)).await;
}

/// Watches actors, and writes down `x†` when it is told of the end of x.
pub(crate) struct Watcher {
    log: Log,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Watch(pub(crate) Vec<String>);

impl Message for Watch {
    type Reply = ();
    const NAME: &'static str = "supervision.watch";
}

impl Actor for Watcher {
    const NAME: &'static str = "supervision.watcher";
    type Messages = (Watch, Terminated);
}

impl Handler<Watch> for Watcher {
    async fn handle(&mut self, watch: Watch, ctx: &mut Context<Self>) -> Result<(), Failure> {
        for name in watch.0 {
            ctx.watch(&Address::<Hand>::new(name)?);
        }
        Ok(())
    }
}

impl Handler<Terminated> for Watcher {
    async fn handle(&mut self, end: Terminated, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("{}†", end.name));
        Ok(())
    }
}

impl World {
    /// Has these actors watched.
    pub(crate) async fn watch(&self, system: &System, names: &[&str]) {
        let log = self.log.clone();
        let watcher = system.spawn("watcher", move || Watcher { log: log.clone() }).await.expect("spawns");
        watcher.ask(Watch(names.iter().map(ToString::to_string).collect())).await.expect("watches");
    }
}
