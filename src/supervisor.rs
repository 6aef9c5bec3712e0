//! Supervisors: who starts actors, starts them again when they fail, and fails upward when that does not help. The rules are
//! those of Erlang's OTP; what a durable mailbox adds is that a supervisor knows *which message* failed.
//!
//! ```
#![doc = include_str!("example-prelude.txt")]
//! # let system = System::builder().open_in_memory().await?;
//! let payments = Supervisor::new("payments", Strategy::RestForOne)
//!     .child(ChildSpec::actor("ledger", || Counter))
//!     .child(ChildSpec::actor("card-reader", || Counter).transient());
//! let shop = Supervisor::new("shop", Strategy::OneForOne)
//!     .limit(RestartLimit::new(5, Duration::from_secs(60)))
//!     .child(ChildSpec::actor("stock", || Counter))
//!     .child(ChildSpec::supervisor(payments));
//!
//! let shop = system.supervise(shop).await?; // every child runs
//! let stock = shop.actor::<Counter>("stock").await?; // valid over all restarts
//! stock.ask(Add { amount: 7 }).await?;
//! shop.start_child(ChildSpec::actor("visitor", || Counter).temporary()).await?;
//! for child in shop.children().await? {
//!     println!("{}: {:?}, restarted {} times", child.name, child.state, child.restarts);
//! }
//! system.shutdown(Duration::from_secs(5)).await?; // the reverse of the start
//! # Ok(()) }
//! ```
//!
//! # What happens when a turn fails
//!
//! Three answers, each on its own:
//!
//! 1. **The message**: its mailbox's [`RetryPolicy`](crate::RetryPolicy) and [`FailurePolicy`](crate::FailurePolicy) say whether it
//!    is tried again or goes to the dead letters. That, and the decision about the actor, lie with the message's attempts.
//! 2. **The actor**: the [`FailurePolicy`](crate::FailurePolicy) says what becomes of it. After an error it is
//!    [made anew](crate::OnActor::Rebuild) in its place and goes on; after a panic or a timeout it
//!    [ends](crate::OnActor::Restart), and the supervisor asks its [`Strategy`] who is restarted with it.
//! 3. **The supervisor** counts both towards its [`RestartLimit`]. When it is exceeded, the supervisor stops its children in
//!    reverse start order and fails itself: its parent treats that as the abnormal end of a child. A supervisor without a parent
//!    leaves its tree down and the mail waiting; [`SupervisorRef::ended`] and [`Event::SupervisorDown`](crate::Event::SupervisorDown)
//!    tell.
//!
//! # What counts towards the limit
//!
//! Each abnormal end of a child, each end after which a permanent child is started again, each start that fails, and each
//! failed turn after which the actor was made anew. But **a message counts once within the window**, however often it is tried:
//! its attempts are bounded by its own policy (one that is [kept](crate::OnMessage::Keep) has no such bound, and counts each time). So "message 42 failed five times" dead-letters message 42 while the tree goes on,
//! and "everything fails" trips the limit. A failure without a message (a factory's, a supervisor's) counts each time.
//! What a temporary child does counts nowhere, nor does a message that its handler [released](crate::Failure::release), nor what
//! somebody did by hand.
//!
//! # What survives the process
//!
//! The failures that count and each child's place in its row of restarts are on disk before the restart they lead to. **The
//! reset rule**: a failure is forgotten once it is older than the window, whether the process ran meanwhile or not; a row of
//! restarts, once the child had no failure for its [`reset_after`](Backoff::reset_after); both by [`SupervisorRef::reset`]. A
//! supervisor reads them when its tree is started or it is added, so a crash loop across deploys is seen: after one more failure
//! within the window it gives up at once. A supervisor that is restarted by its parent begins with none, as in OTP.
//!
//! # Stopping
//!
//! One child after the other in reverse start order. Each has its [`shutdown`](ChildSpec::shutdown) time to finish its turn; then
//! the turn is thrown away, which costs its message no attempt. The deadline of
//! [`System::shutdown`](crate::System::shutdown) goes before all of these.
//!
//! # Watching what is supervised
//!
//! Who [watches](crate::Context::watch) a child is told when it has ended and its supervisor does not start it again: a temporary
//! child, a transient one that ended normally, one that was stopped by hand, and all of a tree that is down. A restart is told to
//! nobody.
//!
//! # Where it differs from OTP
//!
//! A child waits its [`Backoff`] before it is started again; the rest of its group waits with it. An error that a handler
//! returns does not end its actor unless its policy says so. History survives as said above.

mod child;
mod handle;
mod history;
mod limit;
mod roster;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests;
mod tree;

use std::collections::HashSet;
use std::sync::Arc;

pub use self::child::{ChildSpec, Restart};
pub use self::handle::{ChildInfo, ChildState, SupervisorExit, SupervisorRef};
pub use self::history::CountedFailure;
#[cfg(fuzzing)]
pub(crate) use self::history::survives as history;
pub use self::limit::{Backoff, RestartLimit};
pub use self::roster::Strategy;
pub(crate) use self::tree::RunningTree;
use crate::actor::Runtime;
use crate::durable::check_name;
use crate::error::SuperviseError;

/// The longest name of a supervisor together with those of its parents.
const LONGEST_PATH: usize = 512;

/// A supervisor as data: its children and its rules. [`System::supervise`](crate::System::supervise) starts it;
/// [`ChildSpec::supervisor`] makes it another's child. See [the module](self).
#[derive(Debug, Clone)]
pub struct Supervisor {
    name: Arc<str>,
    strategy: Strategy,
    limit: RestartLimit,
    /// In start order.
    children: Vec<ChildSpec>,
}

impl Supervisor {
    /// A supervisor without children. Under its name, after those of its parents, its history is found after a restart.
    pub fn new(name: impl Into<String>, strategy: Strategy) -> Self {
        let (name, limit) = (name.into().into(), RestartLimit::default());
        Supervisor { name, strategy, limit, children: Vec::new() }
    }

    /// How many failures it bears. Default: 5 within 60 s.
    #[must_use]
    pub fn limit(self, limit: RestartLimit) -> Self {
        Supervisor { limit, ..self }
    }

    /// Adds a child, at the end of the start order.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the tree: every child in start order. On an error none runs.
    pub(crate) async fn start(self, runtime: &Arc<Runtime>) -> Result<RunningTree, SuperviseError> {
        tree::start(&self, None, runtime, tree::Memory::Kept).await
    }

    fn path(&self, parent: Option<&str>) -> Arc<str> {
        match parent {
            Some(parent) => format!("{parent}/{}", self.name).into(),
            None => self.name.clone(),
        }
    }

    /// Whether the names in it are fit, before anything is started.
    fn check(&self, parent: Option<&str>) -> Result<(), SuperviseError> {
        let path = self.path(parent);
        if check_name(&self.name).is_err() || self.name.contains('/') || path.len() > LONGEST_PATH {
            return Err(SuperviseError::Name { name: path.to_string() });
        }
        let mut names = HashSet::new();
        for child in &self.children {
            if !names.insert(&child.name) {
                let (supervisor, child) = (path.to_string(), child.name.to_string());
                return Err(SuperviseError::Duplicate { supervisor, child });
            }
            child.check(&path)?;
        }
        Ok(())
    }
}

impl ChildSpec {
    /// Whether its start starts this actor.
    fn starts(&self, actor: &str) -> bool {
        match &self.what {
            child::What::Actor(_) => *self.name == *actor,
            child::What::Supervisor(supervisor) => {
                supervisor.children.iter().any(|child| child.starts(actor))
            }
        }
    }

    fn check(&self, parent: &str) -> Result<(), SuperviseError> {
        match &self.what {
            child::What::Supervisor(supervisor) => supervisor.check(Some(parent)),
            child::What::Actor(_) => check_name(&self.name).map_err(|bad| SuperviseError::Child {
                child: format!("{parent}/{}", self.name),
                why: bad.into(),
            }),
        }
    }
}
