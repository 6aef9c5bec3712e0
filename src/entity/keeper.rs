//! The task of a region: loads what has mail, and unloads what rests when there is no room or no reason to keep it.
//!
//! # Invariants
//! - What was loaded is left only when its task is at its end; then, under the lock under which mail comes, it is listed again
//!   if it has some.
//! - While others wait for a place, those that rest make way first, the longest at rest first; then those that had their turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::line::Line;
use super::{NotLoaded, Region};
use crate::actor::{Actor, Control, Exit, Factory, Life, Made, Mailbox, MapKey, Presence, mailbox};
use crate::clock::Timestamp;
use crate::durable::key_of;
use crate::store::{MailboxId, StoreError};
use crate::sync::Bell;

/// See the module's head.
pub(super) struct Keeper<K, A: Actor> {
    region: Arc<Region<K, A>>,
    control: watch::Receiver<Control>,
    /// Notified when something is listed.
    bell: Arc<Bell>,
    line: Line,
    loaded: HashMap<MailboxId, Loaded<A>>,
    /// How many of them were asked to end.
    asked: usize,
    tasks: JoinSet<Result<Exit, NotLoaded>>,
    mailboxes: HashMap<Id, MailboxId>,
    started: mpsc::UnboundedReceiver<(MailboxId, Arc<Mailbox<A>>)>,
    starts: mpsc::UnboundedSender<(MailboxId, Arc<Mailbox<A>>)>,
    /// When those that rest are looked at again.
    look_at_idle: Timestamp,
    /// Closed last: the tasks are thrown away before.
    open: OpenRegion<K, A>,
}

/// An entity that is loaded, or being loaded.
struct Loaded<A: Actor> {
    presence: Arc<Presence>,
    /// None until it is.
    mailbox: Option<Arc<Mailbox<A>>>,
    asked: bool,
}

/// Closes the region when its keeper is gone, however that came.
struct OpenRegion<K, A: Actor> {
    region: Arc<Region<K, A>>,
    life: watch::Sender<Life>,
    exit: Exit,
}

impl<K, A: Actor> Drop for OpenRegion<K, A> {
    fn drop(&mut self) {
        self.region.runtime.ledger.store().close_region(&self.region.name);
        self.region.loaded.store(0, Ordering::Release);
        self.life.send_replace(Life::Ended(self.exit.clone()));
    }
}

impl<K: MapKey + Send + Sync + 'static, A: Actor> Keeper<K, A> {
    /// None when the region is open already.
    pub(super) fn open(
        region: Arc<Region<K, A>>,
        control: watch::Receiver<Control>,
        life: watch::Sender<Life>,
    ) -> Option<Self> {
        let bell = region.runtime.ledger.store().open_region(&region.name)?;
        let (starts, started) = mpsc::unbounded_channel();
        Some(Keeper {
            open: OpenRegion { region: region.clone(), life, exit: Exit::Aborted },
            control,
            bell,
            line: Line::new(region.name.clone()),
            loaded: HashMap::new(),
            asked: 0,
            tasks: JoinSet::new(),
            mailboxes: HashMap::new(),
            started,
            starts,
            look_at_idle: Timestamp::default(),
            region,
        })
    }

    /// Runs until it is asked to end or the store fails.
    pub(super) async fn run(mut self) {
        let exit = match self.work().await {
            Ok(()) => Exit::Stopped,
            Err(why) => {
                tracing::debug!(region = %self.region.name, %why, "the region ends with the store");
                Exit::StoreFailed
            }
        };
        self.end_all().await;
        self.open.exit = exit;
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        while *self.control.borrow() < Control::Stop {
            self.load_what_waits().await?;
            self.make_way();
            self.wait().await?;
        }
        Ok(())
    }

    /// Loads as many as there is room for.
    async fn load_what_waits(&mut self) -> Result<(), StoreError> {
        loop {
            let now = self.now();
            while self.has_room()
                && let Some(mailbox) = self.line.next(now)
            {
                self.load(mailbox);
            }
            let before = self.line.is_looking();
            if self.line.len() > 0 {
                return Ok(());
            }
            self.line.refill(&self.region.runtime.ledger).await?;
            if self.line.len() == 0 && !(before || self.line.is_looking()) {
                return Ok(());
            }
        }
    }

    fn has_room(&self) -> bool {
        let most = self.region.bounds.loaded;
        self.loaded.len() < most && (self.loaded.is_empty() || !self.region.crowd.is_too_heavy())
    }

    fn load(&mut self, mailbox: MailboxId) {
        if self.loaded.contains_key(&mailbox) && !cfg!(steadfast_bug = "two_incarnations_of_an_entity") {
            return;
        }
        let presence = Arc::new(Presence::new(&self.region.crowd));
        let task = load(self.region.clone(), mailbox, presence.clone(), self.starts.clone());
        let task = self.tasks.spawn(task);
        self.mailboxes.insert(task.id(), mailbox);
        self.loaded.insert(mailbox, Loaded { presence, mailbox: None, asked: false });
        self.count();
    }

    fn count(&self) {
        self.region.loaded.store(self.loaded.len(), Ordering::Release);
    }

    /// Asks those to end that rested long enough, and as many as others wait for.
    fn make_way(&mut self) {
        let now = self.now();
        let idle = self.region.bounds.idle;
        let looks = now >= self.look_at_idle;
        if looks {
            self.look_at_idle = now.after(idle / 4);
        }
        let wanted = self.wanted();
        if !looks && wanted <= self.asked {
            self.region.crowd.want(0);
            return;
        }
        // before the look: who begins to rest behind it sees that others wait
        self.region.crowd.want(wanted.saturating_sub(self.asked));
        let mut resting: Vec<_> = self
            .loaded
            .iter()
            .filter(|(_, loaded)| !loaded.asked && loaded.mailbox.is_some())
            .filter_map(|(mailbox, loaded)| Some((loaded.presence.rests_since()?, *mailbox)))
            .collect();
        resting.sort_unstable();
        for (since, mailbox) in resting {
            if wanted > self.asked || now.since(since) >= idle {
                self.ask_to_end(mailbox, Control::Stop);
            }
        }
        self.region.crowd.want(wanted.saturating_sub(self.asked));
    }

    /// How many are to make way, with those that are on their way.
    fn wanted(&self) -> usize {
        let too_heavy = self.region.crowd.is_too_heavy() && self.loaded.len() > 1;
        let for_others = if self.has_room() { 0 } else { self.line.len() };
        for_others.max(usize::from(too_heavy)).min(self.loaded.len())
    }

    fn ask_to_end(&mut self, mailbox: MailboxId, how: Control) {
        let Some(loaded) = self.loaded.get_mut(&mailbox) else { return };
        let Some(mailbox) = &loaded.mailbox else { return };
        mailbox.control.send_modify(|control| *control = how.max(*control));
        self.asked += usize::from(!std::mem::replace(&mut loaded.asked, true));
    }

    /// Waits for something to do.
    async fn wait(&mut self) -> Result<(), StoreError> {
        let runtime = self.region.runtime.clone();
        let (clock, store) = (runtime.ledger.clock(), runtime.ledger.store());
        if let Some(why) = store.failure() {
            return Err(why);
        }
        let idle = (!self.loaded.is_empty()).then_some(self.look_at_idle);
        let due = self.line.due().into_iter().chain(idle).min();
        let sleep = async {
            match due {
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // while others wait in the line already, more of them are no news
        let listens = self.line.len() == 0;
        tokio::select! {
            Some(joined) = self.tasks.join_next_with_id() => self.ended(joined),
            Some((mailbox, held)) = self.started.recv() => self.started(mailbox, held),
            () = self.bell.rung(), if listens => {}
            () = self.region.crowd.too_heavy.rung() => {}
            () = sleep => {}
            Ok(()) = self.control.changed() => {}
            why = store.failed() => return Err(why),
        }
        // whatever else has ended meanwhile: one look at those that rest for all of them
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            self.ended(joined);
        }
        Ok(())
    }

    fn started(&mut self, mailbox: MailboxId, held: Arc<Mailbox<A>>) {
        self.line.loaded(mailbox);
        if let Some(loaded) = self.loaded.get_mut(&mailbox) {
            loaded.mailbox = Some(held);
        }
    }

    /// The task of an entity is at its end: what waits for it waits for the next.
    fn ended(&mut self, joined: Result<(Id, Result<Exit, NotLoaded>), JoinError>) {
        // it said so before it ended
        while let Ok((mailbox, held)) = self.started.try_recv() {
            self.started(mailbox, held);
        }
        let task = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(mailbox) = self.mailboxes.remove(&task) else { return };
        let Some(loaded) = self.loaded.remove(&mailbox) else { return };
        self.asked -= usize::from(loaded.asked);
        self.count();
        let now = self.now();
        let alone_until = match joined {
            Ok((_, Ok(Exit::Failed(_)))) => Some(self.line.failed(mailbox, now)),
            Ok((_, Ok(_))) => {
                let only_that = loaded.mailbox.as_ref().is_some_and(|mailbox| !mailbox.has_fresh_mail());
                let due = loaded.presence.due().filter(|due| *due > now && only_that);
                due.inspect(|due| self.line.leave_until(mailbox, *due, now))
            }
            Ok((_, Err(why))) => Some(self.report(mailbox, &why.to_string())),
            Err(why) => Some(self.report(mailbox, &why.to_string())),
        };
        self.region.runtime.ledger.store().leave(mailbox, alone_until.is_some());
        if let Some(mailbox) = loaded.mailbox {
            let name = mailbox.name.clone();
            drop(mailbox);
            self.region.runtime.forget_mailbox(&name);
        }
    }

    fn report(&mut self, mailbox: MailboxId, why: &str) -> Timestamp {
        let again = self.line.failed(mailbox, self.now());
        tracing::error!(region = %self.region.name, mailbox, why, %again, "an entity cannot be loaded; its mail waits");
        again
    }

    /// Ends all that is loaded. Of what is being loaded too, as soon as it is.
    async fn end_all(&mut self) {
        loop {
            let how = (*self.control.borrow_and_update()).max(Control::Stop);
            let loaded: Vec<_> = self.loaded.keys().copied().collect();
            for mailbox in loaded {
                self.ask_to_end(mailbox, how);
            }
            tokio::select! {
                joined = self.tasks.join_next_with_id() => match joined {
                    Some(joined) => self.ended(joined),
                    None => return,
                },
                Some((mailbox, held)) = self.started.recv() => self.started(mailbox, held),
                Ok(()) = self.control.changed() => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.region.runtime.ledger.clock().now()
    }
}

/// Loads one entity and runs it to its end.
async fn load<K: MapKey + Send + Sync + 'static, A: Actor>(
    region: Arc<Region<K, A>>,
    id: MailboxId,
    presence: Arc<Presence>,
    starts: mpsc::UnboundedSender<(MailboxId, Arc<Mailbox<A>>)>,
) -> Result<Exit, NotLoaded> {
    let runtime = &region.runtime;
    let name = runtime.ledger.mailbox_name(id).await?.ok_or(NotLoaded::Nameless(id))?;
    let key = key_of(&region.name, &name).and_then(|key| K::from_bytes(&key));
    let key = key.ok_or_else(|| NotLoaded::Key(name.clone()))?;
    let make = region.factory.clone();
    let factory: Factory<A> = Arc::new(move || make(&key));
    let held = mailbox::<A>(runtime, &name, Some(&region.options)).await?;
    runtime.ledger.store().attend(id);
    let made = Made::entity(runtime, &held, factory, &region.options, presence).await?;
    // the keeper may be gone, and this task with it
    let _ = starts.send((id, held));
    Ok(made.live().await)
}
