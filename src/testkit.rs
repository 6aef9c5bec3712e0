//! For tests of programs built on this crate: a disk in memory whose power can be cut, a wait for the end of all work,
//! and an observer that keeps what happened. [`ManualClock`](crate::ManualClock) is the clock that goes with it.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use steadfast::{Actor, Context, Failure, Handler, Message, State, System};
//! use steadfast::testkit::{Disk, run_until_idle};
//!
//! # #[derive(Serialize, Deserialize)] struct Add(u64);
//! # impl Message for Add { type Reply = (); const NAME: &'static str = "add"; }
//! # #[derive(Serialize, Deserialize)] struct Sum(u64);
//! # impl Actor for Sum {
//! #     const NAME: &'static str = "sum";
//! #     type Messages = (Add,);
//! #     fn state() -> State<Self> { State::whole(1) }
//! # }
//! # impl Handler<Add> for Sum {
//! #     async fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Result<(), Failure> {
//! #         self.0 += add.0;
//! #         Ok(())
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = Disk::new(42);
//! let system = disk.open(System::builder()).await?;
//! let sum = system.spawn("sum-1", || Sum(0)).await?;
//! sum.tell(Add(3)).await?; // Ok: it survives what comes now
//! disk.crash();
//! drop((sum, system));
//!
//! let system = disk.open(System::builder()).await?;
//! let sum = system.spawn("sum-1", || Sum(0)).await?;
//! run_until_idle(&system).await?;
//! assert_eq!(sum.snapshot().await?.map(|sum| sum.0), Some(3));
//! # Ok(()) }
//! ```
//!
//! [`CrashPoints`] visits every crash point of a scenario: it runs it once to count the operations of the disk, then once for each
//! with the power cut there. The store has threads, so the same number may fall on another operation the next time; each of
//! them is a legal place for a power cut.
//!
//! # Invariants
//! - Nothing here changes what the runtime does: a disk fails only as it was told to, an observer only listens.

mod crash_points;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::AdminError;
use crate::observe::{Event, Observer, TurnOutcome};
use crate::store::{SimulatedDisk, StoreError};
use crate::system::{System, SystemBuilder};

pub use self::crash_points::{CrashPointError, CrashPoints, Cut, Outcome, Visited};

/// A disk in memory that loses, tears and reorders what was not synced when its power is cut, as its seed decides. A
/// clone is the same disk; [`Disk::fork`] is another.
///
/// One system at a time: end the one before ([`System::shutdown`], or drop it after [`Disk::crash`]).
#[derive(Clone)]
pub struct Disk {
    disk: SimulatedDisk,
}

impl Disk {
    /// An empty disk. `seed` decides what a crash leaves of what was not synced.
    pub fn new(seed: u64) -> Self {
        Disk { disk: SimulatedDisk::new(seed) }
    }

    /// Opens the store on this disk, making it when there is none, and recovers what a crash left.
    ///
    /// Journal segments are smaller than on a real disk unless `builder` asks for large messages, and no ballast is set
    /// aside.
    ///
    /// # Errors
    /// See [`StoreError`]; the power may be cut here too.
    pub async fn open(&self, builder: SystemBuilder) -> Result<System, StoreError> {
        builder.open_simulated(&self.disk).await
    }

    /// Cuts the power now, decides what survives, and makes the disk usable again. The system that had it open has
    /// failed: drop it, and open the next.
    pub fn crash(&self) {
        self.disk.crash();
    }

    /// Cuts the power in the middle of the operation with this number, or in the next one when it has passed. Everything
    /// fails from then on, until [`Disk::crash`].
    pub fn cut_power_at(&self, operation: u64) {
        self.disk.cut_power_at(operation);
    }

    /// Whether the power was cut and [`Disk::crash`] not called since.
    pub fn is_cut(&self) -> bool {
        self.disk.is_cut()
    }

    /// How many operations there were that change something, over all crashes. The first has the number 1.
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// Makes every sync wait until [`Disk::release_syncs`] or [`Disk::crash`]: what nobody has released must not have left
    /// the process. A system cannot be dropped or shut down meanwhile; it would wait too.
    pub fn hold_syncs(&self) {
        self.disk.hold_syncs();
    }

    /// Lets held syncs finish.
    pub fn release_syncs(&self) {
        self.disk.release_syncs();
    }

    /// How many syncs wait for [`Disk::release_syncs`] now.
    pub fn waiting_syncs(&self) -> u64 {
        self.disk.waiting_syncs()
    }

    /// Makes every sync fail, or work again. After one failed sync the system has failed for good.
    pub fn fail_syncs(&self, fail: bool) {
        self.disk.fail_syncs(fail);
    }

    /// Has the operation with this number fail with an error of this kind, once; what it was to write may be there in part.
    pub fn fail_at(&self, operation: u64, kind: std::io::ErrorKind) {
        self.disk.fail_at(operation, kind);
    }

    /// How many syncs of files have ended.
    pub fn syncs(&self) -> u64 {
        self.disk.syncs()
    }

    /// The store's files by name, without the engine's.
    pub fn files(&self) -> Vec<String> {
        self.disk.files()
    }

    /// Changes the durable bytes of a file behind everybody's back.
    ///
    /// # Errors
    /// There is no such file.
    pub fn damage(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<()> {
        self.disk.damage(file, change)
    }

    /// How many bytes may still be written beyond what is there; none for no bound.
    pub fn set_free_space(&self, bytes: Option<u64>) {
        self.disk.set_free_space(bytes);
    }

    /// A copy that goes its own way, also in what its crashes leave. To be taken while no system has this one open, or as
    /// the state of a machine whose power was cut at this moment, after [`Disk::crash`] of the copy.
    #[must_use]
    pub fn fork(&self) -> Disk {
        Disk { disk: self.disk.fork() }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

/// Waits until no actor has work: nothing waits in the mailbox of an actor that runs, and nothing on the schedule is due.
///
/// It looks every few milliseconds. Mail for actors that do not run is no work, nor is what is due later; a message
/// held back to be tried again is, so advance a [`ManualClock`](crate::ManualClock) first. Volatile messages are not seen.
/// It waits for ever for an actor that never comes to an end: put it under a `tokio::time::timeout`.
///
/// # Errors
/// The store failed.
pub async fn run_until_idle(system: &System) -> Result<(), AdminError> {
    const LOOK_AGAIN: Duration = Duration::from_millis(2);
    while !system.is_idle().await? {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// An observer that keeps of each event what a test wants to know.
///
/// ```
/// use steadfast::testkit::{Disk, Recorder};
/// use steadfast::{Event, System};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let opened = Recorder::new(|event| match event {
///     Event::Recovered { commits, .. } => Some(*commits),
///     _ => None,
/// });
/// let system = Disk::new(1).open(System::builder().observer(opened.clone())).await?;
/// assert_eq!(opened.kept(), [0]);
/// # drop(system); Ok(()) }
/// ```
pub struct Recorder<T> {
    keep: Box<dyn Fn(&Event<'_>) -> Option<T> + Send + Sync>,
    kept: Mutex<Vec<T>>,
}

impl<T: Send + 'static> Recorder<T> {
    /// `keep` says what to keep of an event; it is called on the threads that do the work.
    pub fn new(keep: impl Fn(&Event<'_>) -> Option<T> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Recorder { keep: Box::new(keep), kept: Mutex::default() })
    }

    /// What was kept so far, in order.
    pub fn kept(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Recorder<Turn> {
    /// Keeps every turn that ended.
    pub fn turns() -> Arc<Self> {
        Recorder::new(|event| match event {
            Event::Turn { actor, message, outcome, .. } => {
                Some(Turn { actor: (*actor).to_owned(), message: (*message).to_owned(), outcome: *outcome })
            }
            _ => None,
        })
    }
}

/// A turn that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// The actor's name.
    pub actor: String,
    /// The message's name.
    pub message: String,
    /// How it ended.
    pub outcome: TurnOutcome,
}

impl<T: Send + 'static> Observer for Recorder<T> {
    fn event(&self, event: &Event<'_>) {
        if let Some(kept) = (self.keep)(event) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Recorder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("kept", &self.kept).finish_non_exhaustive()
    }
}
