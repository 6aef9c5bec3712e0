//! What happens by the clock: scheduled messages take their places when they are due, dedup marks are forgotten when their
//! window has passed, and mail that nobody claims is reported.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::Runtime;
use crate::clock::Timestamp;
use crate::durable::{CommitRefused, marks};
use crate::error::Refused;
use crate::observe::Event;
use crate::store::{Batch, KEY_MARK, MailboxId, Origin, StoreError, Urgency, region_of};

/// How many scheduled messages are looked at at once.
const AT_ONCE: usize = 64;
/// How often old marks are forgotten and unclaimed mail is looked for.
const CHORES_EVERY: Duration = Duration::from_secs(60);
/// When that is done first: by then a program has spawned its actors.
const FIRST_CHORES: Duration = Duration::from_secs(10);

/// Runs until the store fails or is closed.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let clock = runtime.ledger.clock();
    let mut chores = clock.now().after(FIRST_CHORES);
    loop {
        let next = match fire_due(&runtime).await {
            Ok(next) => next,
            Err(why) => {
                tracing::debug!(%why, "the timekeeper ends with the store");
                return;
            }
        };
        if clock.now() >= chores {
            chores = clock.now().after(CHORES_EVERY);
            if do_chores(&runtime).await.is_err() {
                return;
            }
        }
        let until = next.map_or(chores, |next| next.min(chores));
        tokio::select! {
            biased;
            () = clock.sleep_until(until) => {}
            () = runtime.scheduled.rung() => {}
            _ = runtime.ledger.store().failed() => {
                // those who ask actors that do not run have nobody else to tell them
                runtime.lose_askers();
                return;
            }
        }
    }
}

/// Puts what is due into its mailboxes. Returns when the next one is due.
async fn fire_due(runtime: &Runtime) -> Result<Option<Timestamp>, StoreError> {
    loop {
        // before the look: what was put on the schedule behind it must not find later ones ahead of it
        let now = runtime.ledger.clock().now();
        let entries = runtime.ledger.first_scheduled(AT_ONCE).await?;
        let early = if cfg!(steadfast_bug = "fire_early") { Duration::from_secs(1) } else { Duration::ZERO };
        let now = now.after(early);
        let due = entries.iter().take_while(|entry| entry.due <= now).count();
        for entry in &entries[..due] {
            let mut batch = Batch::default();
            entry.fire(runtime.ledger.clock().now(), &mut batch);
            match runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
                // a key that changed: it was cancelled meanwhile
                Ok(_) | Err(CommitRefused::Key(_)) => {}
                Err(CommitRefused::Refused(Refused::Store(why))) => return Err(why),
                Err(why) => {
                    tracing::error!(id = %entry.id, ?why, "a scheduled message cannot take its place")
                }
            }
        }
        if due < AT_ONCE {
            return Ok(entries.get(due).map(|entry| entry.due));
        }
    }
}

async fn do_chores(runtime: &Runtime) -> Result<(), StoreError> {
    forget_marks(runtime).await?;
    report_unclaimed(runtime).await
}

/// Forgets marks older than the window, and the oldest of a mailbox that has too many.
async fn forget_marks(runtime: &Runtime) -> Result<(), StoreError> {
    const PAGE: usize = 1000;
    let now = runtime.ledger.clock().now();
    let mut counts: HashMap<MailboxId, usize> = HashMap::new();
    for pass in [Pass::Count, Pass::Forget] {
        let mut from = None;
        loop {
            let (marks, next) = runtime.ledger.aged_marks(from, PAGE).await?;
            let mut batch = Batch::default();
            for mark in marks {
                let count = counts.entry(mark.mailbox).or_default();
                match pass {
                    Pass::Count => *count += 1,
                    // in order of age, so the oldest go first
                    Pass::Forget if now.since(mark.at) > marks::WINDOW || *count > marks::MOST => {
                        *count -= 1;
                        mark.delete(&mut batch);
                    }
                    Pass::Forget => {}
                }
            }
            if !batch.is_empty() {
                let forgotten = runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await;
                if let Err(CommitRefused::Refused(Refused::Store(why))) = forgotten {
                    return Err(why);
                }
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Pass {
    Count,
    Forget,
}

/// Where a look through the names of actors goes on: behind all entities of a region, of which there may be millions.
pub(super) fn after_entities(name: String) -> String {
    match region_of(&name) {
        // no key's first byte is above this one
        Some(region) => format!("{region}{KEY_MARK}\u{7f}"),
        None => name,
    }
}

/// Warns of mail for names that nobody has spawned.
async fn report_unclaimed(runtime: &Runtime) -> Result<(), StoreError> {
    const PAGE: usize = 256;
    let mut after: Option<String> = None;
    loop {
        let page = runtime.ledger.mailbox_page(after.as_deref(), PAGE).await?;
        for (name, record) in &page {
            let running = runtime.mailboxes.get(name).is_some_and(|mailbox| mailbox.is_running());
            if running || region_of(name).is_some() {
                continue;
            }
            let id = record.id;
            runtime.ledger.blocking(move |store| store.load_mailbox(id, None)).await?;
            let (count, _) = runtime.ledger.store().depth(id).unwrap_or_default();
            if count > 0 {
                tracing::warn!(mailbox = %name, actor = %record.actor, count, "mail waits for a name that nobody has spawned");
                runtime.observer.event(&Event::Unclaimed { mailbox: name, count });
            }
        }
        match page.into_iter().next_back() {
            Some((name, _)) => after = Some(after_entities(name)),
            None => return Ok(()),
        }
    }
}
