//! Settings of a system.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{System, suspects};
use crate::actor::Runtime;
use crate::clock::{Clock, SystemClock};
use crate::durable::Ledger;
use crate::observe::{Observer, Silent};
use crate::store::{Driven, EngineChoice, Place, SimulatedDisk, StoreConfig, StoreError};

/// Settings of a system; made by [`System::builder`].
#[derive(Clone)]
pub struct SystemBuilder {
    config: StoreConfig,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    max_message: u64,
    watch_aborts: bool,
    stuck_after: Duration,
}

impl SystemBuilder {
    pub(super) fn new() -> Self {
        SystemBuilder {
            config: StoreConfig::default(),
            clock: Arc::new(SystemClock),
            observer: Arc::new(Silent),
            max_message: 1 << 20,
            watch_aborts: true,
            stuck_after: Duration::from_secs(5),
        }
    }

    /// The clock that gives time, ids and chance. Default: the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Who is told what happens. Default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// The most messages that may wait in a mailbox that does not say otherwise. Default: 1 million.
    #[must_use]
    pub fn mailbox_capacity(mut self, messages: u64) -> Self {
        self.config.limits.count = messages;
        self
    }

    /// The most bytes of messages that may wait in a mailbox that does not say otherwise. Default: 4 GiB.
    #[must_use]
    pub fn mailbox_capacity_bytes(mut self, bytes: u64) -> Self {
        self.config.limits.bytes = bytes;
        self
    }

    /// The largest message, in bytes of its encoding. Default: 1 MiB. At most about half a journal segment.
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.max_message = bytes;
        self
    }

    /// The size of one journal segment in bytes: 64 KiB to 1 GiB in steps of 4 KiB. Default: 16 MiB. What is committed at once may
    /// take up to half of it.
    #[must_use]
    pub fn journal_segment(mut self, bytes: u64) -> Self {
        self.config.segment = bytes;
        self
    }

    /// Bytes of committed values held in memory before they are moved to the engine. Default: 32 MiB; about twice that is used
    /// while a checkpoint runs.
    #[must_use]
    pub fn overlay(mut self, bytes: usize) -> Self {
        self.config.overlay = bytes;
        self
    }

    /// Bytes of a file set aside so that a checkpoint has room on a full disk. Default: 20 MiB; 0 for none.
    #[must_use]
    pub fn ballast(mut self, bytes: u64) -> Self {
        self.config.ballast = bytes;
        self
    }

    /// How often the high-water mark is written: after a crash, damage below it is told apart from a torn end. Default: 5 s.
    #[must_use]
    pub fn mark_every(mut self, time: Duration) -> Self {
        self.config.mark_every = time;
        self
    }

    /// The engine of a new store. Default: sled for a new store, and for one that is there whichever it has. A store that was made with
    /// another engine than the one chosen here does not open: it is not opened with that other one in silence, since what was asked
    /// for would then not be so. To move a store, see [`System::backup_with`]. A store in memory has none of these engines.
    #[must_use]
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.config.engine = Some(engine);
        self
    }

    /// Whether a message that has the process end itself, by `abort`, a stack overflow or a panic within a panic, is found and
    /// after 3 deaths goes to the dead letters. Default: true. On Unix only; for this the signal `SIGABRT` has a handler while the
    /// store is open, and the same signal sent from outside ends the process 2 s later than it would.
    #[must_use]
    pub fn watch_aborts(mut self, watch: bool) -> Self {
        self.watch_aborts = watch;
        self
    }

    /// After how long a handler that does not yield is told to be stuck: by [`Event::Stuck`](crate::Event::Stuck), an error in the
    /// log and [`ActorRef::is_stuck`](crate::ActorRef::is_stuck). Default: 5 s. It is seen up to a tenth of this time sooner or later, at
    /// least 10 ms.
    #[must_use]
    pub fn stuck_after(mut self, time: Duration) -> Self {
        self.stuck_after = time;
        self
    }

    /// Opens the store in a directory; see [`System::open`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(self, path: impl AsRef<Path>) -> Result<System, StoreError> {
        let path = path.as_ref().to_owned();
        let (config, observer) = (self.config.clone(), self.observer.clone());
        self.check()?;
        self.start(move || Ok(Driven::open_directory(&path, &config, observer)?.0)).await
    }

    /// Opens a store in memory: for tests, and for programs that want the actors without the durability. What is in it ends with
    /// the process.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub async fn open_in_memory(self) -> Result<System, StoreError> {
        self.open_simulated(&SimulatedDisk::new(0)).await
    }

    pub(crate) async fn open_simulated(mut self, disk: &SimulatedDisk) -> Result<System, StoreError> {
        // pre-writing large segments in memory would only cost memory
        self.config.segment =
            self.config.segment.min(1 << 20).max(2 * self.max_message.min(1 << 28)).next_multiple_of(4096);
        self.config.segment = (self.config.segment + (64 << 10)).next_multiple_of(4096);
        self.config.ballast = 0;
        let (config, observer) = (self.config.clone(), self.observer.clone());
        let place = Place::simulated(disk);
        self.check()?;
        self.start(move || Ok(Driven::open(place, &config, observer, None)?.0)).await
    }

    fn check(&self) -> Result<(), StoreError> {
        if cfg!(panic = "abort") {
            return Err(StoreError::AbortsOnPanic);
        }
        let overhead = 16 << 10;
        if self.max_message + overhead > self.config.largest_batch() {
            return Err(StoreError::Setting {
                setting: "max_message",
                value: self.max_message.to_string(),
                why: "a message must fit into half a journal segment, with 20 KiB to spare; raise journal_segment",
            });
        }
        Ok(())
    }

    async fn start(
        self,
        open: impl FnOnce() -> Result<Driven, StoreError> + Send + 'static,
    ) -> Result<System, StoreError> {
        let driven = tokio::task::spawn_blocking(open).await.unwrap_or(Err(StoreError::Closed))?;
        let ledger = Ledger::new(driven.store().clone(), self.clock);
        let stock = suspects::take_stock(&ledger, &*self.observer, self.watch_aborts).await?;
        let runtime =
            Arc::new(Runtime::new(ledger, self.observer, self.max_message, stock, self.stuck_after));
        let watches = runtime.watchdog.run(runtime.ledger.store().clone(), runtime.observer.clone());
        watches.map_err(|why| StoreError::io("", "starting a thread", why))?;
        Ok(System::start(driven, runtime))
    }
}

impl fmt::Debug for SystemBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemBuilder").field("config", &self.config).finish()
    }
}
