//! A stage: a description, which becomes one durable actor when it is run.
//!
//! # Invariants
//! - A stage that exists is possible: what is not was refused when it was built.
//! - Its place in the topics, its state and its outputs are those of the actor, and commit as the actor's turns do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::due::clock_of;
use super::error::StageError;
use super::flow::{Flow, SLOTS};
use super::inputs::{One, Sources, Tick};
use super::pipe::Start;
use super::runner::{Plan, StageActor};
use crate::actor::{ActorRef, MailboxOptions, Message, Start as StartActor, Subscribes};
use crate::clock::Timestamp;
use crate::durable::StartFrom;
use crate::error::{AskError, StateError};
use crate::policy::{FailurePolicy, RetryPolicy};
use crate::supervisor::ChildSpec;
use crate::topic::Topic;

/// A stage that was built, for [`System::run_stage`](crate::System::run_stage) or as a supervised [`child`](Stage::child). Nothing has
/// begun yet.
#[must_use = "a stage does nothing until it is run"]
pub struct Stage<S: Sources> {
    plan: Plan<S>,
    options: MailboxOptions,
    retry: RetryPolicy,
    has_fallback: bool,
}

impl<E: Message> Topic<E> {
    /// Begins a stage over the topic's events. `name` is its durable identity: with it come its place in the topic and all it keeps.
    ///
    /// A stage is a durable subscriber. Of each event, its place in the topic, what the operators keep of it and what they put out are
    /// one commit: killed at any moment, it goes on exactly where it was, and no output is missing or there twice.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # impl Message for Sum { type Reply = (); const NAME: &'static str = "sum"; }
    /// #[derive(Serialize, Deserialize)]
    /// struct Sum { second: u64, amount: u64 }
    ///
    /// # let system = System::builder().open_in_memory().await?;
    /// # let at = |add: &Add| Timestamp::from_millis(add.amount * 100);
    /// let additions = system.topic::<Add>("additions").await?;
    /// let sums = system.topic::<Sum>("sums").await?;
    /// let stage = additions
    ///     .stage("sum-up")
    ///     .filter(|add| add.amount > 1)
    ///     .event_time(at, Duration::ZERO)
    ///     .key_by(|_| "all".to_owned())
    ///     .window(Window::tumbling(Duration::from_secs(1)))
    ///     .fold(|| 0, |sum, add: &Add| *sum += add.amount)
    ///     .map(|window| Sum { second: window.start.as_millis() / 1000, amount: window.value })
    ///     .to(&sums)?;
    /// system.run_stage(stage).await?;
    ///
    /// additions.publish_all([1, 2, 3, 11, 25].map(|amount| Add { amount })).await?;
    /// steadfast::testkit::run_until_idle(&system).await?;
    /// assert_eq!(sums.info().await?.events, 2); // 2 + 3 and 11; the window of 25 is open still
    /// # Ok(()) }
    /// ```
    pub fn stage(&self, name: impl Into<String>) -> Flow<One<E>, E> {
        Flow {
            name: name.into(),
            topics: vec![(self.name().into(), self.log())],
            from: StartFrom::Earliest,
            pipe: Arc::new(Start),
            keeps: Vec::new(),
            is_timed: false,
            has_fallback: false,
            wrong: None,
        }
    }
}

impl<S: Sources> Stage<S> {
    pub(super) fn new(flow: Flow<S, ()>) -> Result<Self, StageError> {
        let Flow { name, topics, from, pipe, keeps, has_fallback, wrong, .. } = flow;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let subscribes = topics.iter().map(|(_, log)| Subscribes::To(*log, from)).collect();
        let mut options = MailboxOptions::new();
        options.subscribes = subscribes;
        let topics = topics.into_iter().map(|(name, _)| name).collect();
        let plan = Plan { name: name.into(), topics, pipe, keeps, last_attempt: None };
        Ok(Stage { plan, options, retry: RetryPolicy::strict(), has_fallback })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Up to `size` events are one commit: from the first one it is waited at most `linger` for more. When one of them fails, each is
    /// handled alone.
    ///
    /// # Errors
    /// A `size` of 0.
    pub fn batch(mut self, size: usize, linger: Duration) -> Result<Self, StageError> {
        if size == 0 && !cfg!(steadfast_bug = "build_an_empty_batch") {
            return Err(StageError::EmptyBatch { stage: self.name().to_owned() });
        }
        self.options = self.options.batch(size, linger);
        Ok(self)
    }

    /// When and how often an event that failed is tried again; it holds up those behind it. Default: [`RetryPolicy::strict`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// What is decided after a failed turn.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.options = self.options.on_failure(policy);
        self
    }

    /// The longest a turn may take; see [`MailboxOptions::turn_timeout`].
    pub fn turn_timeout(mut self, time: Duration) -> Self {
        self.options = self.options.turn_timeout(time);
        self
    }

    /// The stage as a child of a supervisor: it is permanent.
    pub fn child(self) -> ChildSpec {
        let (plan, options) = self.compiled();
        let subscribes = options.subscribes.clone();
        let name = plan.name.to_string();
        ChildSpec::actor(name, move || StageActor::new(&plan)).mailbox(options).reads(subscribes, Vec::new())
    }

    fn compiled(self) -> (Arc<Plan<S>>, MailboxOptions) {
        let Stage { mut plan, options, mut retry, has_fallback } = self;
        if has_fallback {
            plan.last_attempt = Some(retry.attempts.max(1));
            retry.attempts = retry.attempts.max(1).saturating_add(1);
        }
        (Arc::new(plan), options.retry(retry))
    }

    pub(crate) fn start(self) -> StartActor<StageActor<S>> {
        let (plan, options) = self.compiled();
        let name = plan.name.to_string();
        StartActor {
            name,
            factory: Arc::new(move || StageActor::new(&plan)),
            options,
            link: None,
            tells_end: true,
        }
    }
}

impl<S: Sources> fmt::Debug for Stage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("name", &self.name())
            .field("keeps", &self.plan.keeps)
            .finish_non_exhaustive()
    }
}

/// A stage that was run. How far it has come tells [`System::subscription`](crate::System::subscription) of its name.
pub struct StageRef<S: Sources> {
    actor: ActorRef<StageActor<S>>,
}

impl<S: Sources> StageRef<S> {
    pub(crate) fn new(actor: ActorRef<StageActor<S>>) -> Self {
        StageRef { actor }
    }

    /// The actor that it is: to stop, to drain, to wait for.
    pub fn actor(&self) -> &ActorRef<StageActor<S>> {
        &self.actor
    }

    /// Moves the stage's watermark to `until`, when no more events will come to do it: windows that end by then are put out, and
    /// events from before it are late from now on. It overtakes events that are published and not handled: wait for those first.
    /// `Ok` means that it is handled, durably; of many windows the last are put out soon after.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn advance_to(&self, until: Timestamp) -> Result<(), AskError<()>> {
        let tick = Tick { until: Some(until.as_millis()), alarm: None };
        self.actor.ask(tick).await.map_err(|why| why.map(drop))
    }

    /// How many items were too late for their windows, since the stage was first run.
    ///
    /// # Errors
    /// The store failed.
    pub async fn late(&self) -> Result<u64, StateError> {
        let mut late = 0;
        for slot in 0..SLOTS {
            late += self.actor.cell(&clock_of(slot)).await?.map_or(0, |kept| kept.late);
        }
        Ok(late)
    }
}

impl<S: Sources> Clone for StageRef<S> {
    fn clone(&self) -> Self {
        StageRef { actor: self.actor.clone() }
    }
}

impl<S: Sources> fmt::Debug for StageRef<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageRef({})", self.actor.name())
    }
}
