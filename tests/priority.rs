//! Priority of mail that comes while the actor works.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use steadfast::{Actor, ActorRef, Context, Failure, Handler, Message, Priority, System};
use tokio::sync::Semaphore;

#[derive(Serialize, Deserialize)]
struct Note(u32);
impl Message for Note {
    type Reply = ();
    const NAME: &'static str = "log.note";
}

/// Says when it has begun with a note, and waits to be let on, so that others come meanwhile.
#[derive(Clone)]
struct Log {
    begun: Arc<Semaphore>,
    let_on: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<u32>>>,
}
impl Actor for Log {
    const NAME: &'static str = "log";
    type Messages = (Note,);
}
impl Handler<Note> for Log {
    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<(), Failure> {
        self.begun.add_permits(1);
        self.let_on.acquire().await?.forget();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(note.0);
        Ok(())
    }
}

impl Log {
    /// An actor that is in the middle of the first of these notes.
    async fn working_on(notes: Vec<Note>) -> Result<(System, ActorRef<Log>, Log), Box<dyn Error>> {
        let system = System::builder().open_in_memory().await?;
        let none = || Arc::new(Semaphore::new(0));
        let log = Log { begun: none(), let_on: none(), seen: Arc::default() };
        let made = log.clone();
        let actor = system.spawn("log", move || made.clone()).await?;
        actor.tell_all(notes).await?;
        log.begun.acquire().await?.forget();
        Ok((system, actor, log))
    }

    async fn let_on(&self) {
        self.let_on.add_permits(1_000);
    }

    fn seen(&self) -> Vec<u32> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tokio::test]
async fn mail_of_a_high_priority_does_not_wait_for_a_backlog_of_a_lower_one() -> Result<(), Box<dyn Error>> {
    let (_system, actor, log) = Log::working_on((1..100).map(Note).collect()).await?;
    actor.tell(Note(1000)).priority(Priority::High).await?;
    tokio::join!(actor.drain(), log.let_on());
    assert_eq!(log.seen()[..3], [1, 1000, 2]);
    Ok(())
}

/// The actor had found that there is no mail of a high priority, took the only other one, and when it was
/// asked to drain meanwhile, it ended without looking again.
#[tokio::test]
async fn a_drained_actor_leaves_no_mail_of_any_priority() -> Result<(), Box<dyn Error>> {
    let (_system, actor, log) = Log::working_on(vec![Note(1)]).await?;
    actor.tell(Note(2)).priority(Priority::High).await?;
    tokio::join!(actor.drain(), log.let_on());
    assert_eq!((log.seen(), actor.waiting()), (vec![1, 2], 0));
    Ok(())
}
