//! Every place at which the power may go, one after the other.
//!
//! # Invariants
//! - A scenario that fails without a cut is an error, not a crash point: otherwise a broken one would pass everywhere.
//! - Whatever a cut did, the check sees a system that was opened anew; and again after a clean end.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::Disk;
use crate::error::ShutdownError;
use crate::store::StoreError;
use crate::system::{System, SystemBuilder};

/// How long a system may take to end where nothing is wrong.
const END: Duration = Duration::from_secs(60);

/// What a scenario or a check may end with.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs a scenario again and again, each time with the power cut at the next operation of the disk, and checks what is there
/// afterwards.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use steadfast::{Actor, ActorRef, Context, Failure, Handler, Message, SpawnError, State, System};
/// use std::cell::Cell;
///
/// use steadfast::testkit::{CrashPoints, run_until_idle};
///
/// # #[derive(Serialize, Deserialize)] struct Add(u64);
/// # impl Message for Add { type Reply = (); const NAME: &'static str = "add"; }
/// # #[derive(Serialize, Deserialize)] struct Sum(u64);
/// # impl Actor for Sum {
/// #     const NAME: &'static str = "sum";
/// #     type Messages = (Add,);
/// #     fn state() -> State<Self> { State::whole(1) }
/// # }
/// # impl Handler<Add> for Sum {
/// #     async fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Result<(), Failure> {
/// #         self.0 += add.0;
/// #         Ok(())
/// #     }
/// # }
/// # async fn sum(system: &System) -> Result<ActorRef<Sum>, SpawnError> { system.spawn("sum-1", || Sum(0)).await }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let visited = CrashPoints::new(1)
///     .every(9)
///     .run(
///         async |system, acknowledged: &Cell<u64>| {
///             let sum = sum(system).await?;
///             for _ in 0..3 {
///                 sum.tell(Add(1)).await?;
///                 acknowledged.update(|sum| sum + 1); // from here on it must not be lost
///             }
///             Ok(run_until_idle(system).await?)
///         },
///         async |system, acknowledged| {
///             let sum = sum(system).await?;
///             run_until_idle(system).await?;
///             let added = sum.snapshot().await?.map_or(0, |sum| sum.0);
///             if added < acknowledged.get() {
///                 return Err(format!("{added} of {} are left", acknowledged.get()).into());
///             }
///             Ok(())
///         },
///     )
///     .await?;
/// assert!(visited.points > 0);
/// # Ok(()) }
/// ```
pub struct CrashPoints {
    seed: u64,
    builder: Box<dyn Fn() -> SystemBuilder>,
    every: u64,
    only: Option<u64>,
}

/// What was visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Visited {
    /// How often the scenario was run with a cut.
    pub points: u64,
    /// How many operations of the disk it takes without one.
    pub operations: u64,
    /// In how many of them the power went before the scenario had come to its end.
    pub cut_short: u64,
}

/// Something is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrashPointError {
    /// The scenario fails by itself.
    #[error("without any cut (seed {seed}), {what}: {why}")]
    Scenario {
        /// The seed of the disk.
        seed: u64,
        /// What failed.
        what: &'static str,
        /// How.
        #[source]
        why: Box<dyn Error + Send + Sync>,
    },
    /// What is promised does not hold after a cut.
    #[error("{at}, {what}: {why}")]
    Broken {
        /// Where the power went.
        at: Cut,
        /// What failed.
        what: &'static str,
        /// How.
        #[source]
        why: Box<dyn Error + Send + Sync>,
    },
}

/// Where the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The seed given to [`CrashPoints::new`].
    pub seed: u64,
    /// The operation of the disk, from 1.
    pub operation: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { seed, operation } = self;
        write!(
            f,
            "with the power cut at operation {operation} (`CrashPoints::new({seed}).only({operation})`)"
        )
    }
}

/// Says where a check was that panicked.
struct Place(Cut);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it panicked {}", self.0);
        }
    }
}

impl CrashPoints {
    /// All of them. The seed decides what each cut leaves of what was not synced.
    pub fn new(seed: u64) -> Self {
        CrashPoints { seed, builder: Box::new(System::builder), every: 1, only: None }
    }

    /// Opens systems with this instead of [`System::builder`]'s defaults. With a small `journal_segment` and `overlay` a short
    /// scenario has checkpoints in it.
    #[must_use]
    pub fn builder(self, make: impl Fn() -> SystemBuilder + 'static) -> Self {
        CrashPoints { builder: Box::new(make), ..self }
    }

    /// Visits one of so many, to take less time; 0 counts as 1.
    #[must_use]
    pub fn every(self, points: u64) -> Self {
        CrashPoints { every: points.max(1), ..self }
    }

    /// Visits this operation alone, to look into an error. The store has threads, so its number may fall on another operation the
    /// next time: run it a few times.
    #[must_use]
    pub fn only(self, operation: u64) -> Self {
        CrashPoints { only: Some(operation), ..self }
    }

    /// Runs `work` without a cut, then once for each point. After each cut the system is opened anew and given to `check`, which
    /// starts the actors, lets them work ([`run_until_idle`](super::run_until_idle)) and looks at what is there; then it is shut
    /// down, opened and checked once more. Both are given the same record, made anew for each run: there `work` writes down what
    /// it was told, and `check` reads what must be kept. Handles that `work` makes must not outlive it: one system at a time has
    /// the disk.
    ///
    /// # Errors
    /// The first thing that is wrong: `work` or `check` fails without a cut, or `check` or an open fails after one. An error of
    /// `work` after its cut is none.
    pub async fn run<T: Default>(
        &self,
        work: impl AsyncFn(&System, &T) -> Outcome,
        check: impl AsyncFn(&System, &T) -> Outcome,
    ) -> Result<Visited, CrashPointError> {
        let operations = self.without_a_cut(&work, &check).await?;
        let mut visited = Visited { points: 0, operations, cut_short: 0 };
        let all = 1..=operations;
        let points: Vec<u64> = match self.only {
            Some(operation) => vec![operation],
            None => all.step_by(usize::try_from(self.every).unwrap_or(usize::MAX)).collect(),
        };
        for operation in points {
            visited.points += 1;
            visited.cut_short += u64::from(self.visit(operation, &work, &check).await?);
        }
        Ok(visited)
    }

    /// How many operations it takes.
    async fn without_a_cut<T: Default>(
        &self,
        work: &impl AsyncFn(&System, &T) -> Outcome,
        check: &impl AsyncFn(&System, &T) -> Outcome,
    ) -> Result<u64, CrashPointError> {
        let (seed, record) = (self.seed, T::default());
        let disk = Disk::new(seed);
        let fails = |what| move |why| CrashPointError::Scenario { seed, what, why };
        let system = self.open(&disk).await.map_err(|why| fails("the store does not open")(why.into()))?;
        work(&system, &record).await.map_err(fails("the scenario fails"))?;
        end(system).await.map_err(|why| fails("the system does not end")(why.into()))?;
        let operations = disk.operations();
        let system =
            self.open(&disk).await.map_err(|why| fails("the store does not open again")(why.into()))?;
        check(&system, &record).await.map_err(fails("the check fails"))?;
        end(system).await.map_err(|why| fails("the system does not end")(why.into()))?;
        Ok(operations)
    }

    /// Whether the scenario was cut short.
    async fn visit<T: Default>(
        &self,
        operation: u64,
        work: &impl AsyncFn(&System, &T) -> Outcome,
        check: &impl AsyncFn(&System, &T) -> Outcome,
    ) -> Result<bool, CrashPointError> {
        let at = Cut { seed: self.seed, operation };
        let broken = |what| move |why| CrashPointError::Broken { at, what, why };
        let (_place, record) = (Place(at), T::default());
        let disk = Disk::new(self.seed.wrapping_add(operation));
        disk.cut_power_at(operation);
        let cut_short = match self.open(&disk).await {
            Ok(system) => {
                let done = work(&system, &record).await;
                let cut_short = disk.is_cut();
                if !cut_short {
                    done.map_err(broken("before it, the scenario fails"))?;
                }
                let ended = end(system).await;
                if !disk.is_cut() {
                    ended.map_err(|why| broken("before it, the system does not end")(why.into()))?;
                }
                cut_short
            }
            Err(why) if !disk.is_cut() => {
                return Err(broken("before it, the store does not open")(why.into()));
            }
            Err(_) => true,
        };
        disk.crash();
        disk.cut_power_at(u64::MAX);
        for what in ["what was left does not hold", "what was left does not hold after a clean end"] {
            let system =
                self.open(&disk).await.map_err(|why| broken("the store does not open")(why.into()))?;
            check(&system, &record).await.map_err(broken(what))?;
            end(system).await.map_err(|why| broken("the system does not end")(why.into()))?;
        }
        Ok(cut_short)
    }

    async fn open(&self, disk: &Disk) -> Result<System, StoreError> {
        disk.open((self.builder)()).await
    }
}

async fn end(system: System) -> Result<(), ShutdownError> {
    system.shutdown(END).await
}

impl fmt::Debug for CrashPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CrashPoints { seed, every, only, .. } = self;
        f.debug_struct("CrashPoints")
            .field("seed", seed)
            .field("every", every)
            .field("only", only)
            .finish_non_exhaustive()
    }
}
