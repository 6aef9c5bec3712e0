//! steadfast's side of the durable rows: actors that count what they handle, and that have the count stored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{Actor, ActorRef, Address, Cell, Context, Failure, Handler, Message, State, System};

use crate::Outcome;
use crate::watch::Watch;

/// What is sent.
#[derive(Serialize, Deserialize, Clone)]
pub struct Add {
    text: String,
}

impl Add {
    /// One whose encoding has so many bytes, give or take two.
    pub fn of(bytes: usize) -> Self {
        Add { text: "x".repeat(bytes.saturating_sub(3)) }
    }
}

impl Message for Add {
    type Reply = ();
    const NAME: &'static str = "bench.add";
}

/// What is stored of an actor.
pub const COUNT: Cell<u64> = Cell::new("count", 1);

/// Counts what it handles.
pub struct Counter;

impl Actor for Counter {
    const NAME: &'static str = "bench.counter";
    type Messages = (Add,);
    fn state() -> State<Self> {
        State::cells().with(COUNT)
    }
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, _: Add, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let count = ctx.state().get(&COUNT)?.unwrap_or(0);
        Ok(ctx.state().set(&COUNT, &(count + 1))?)
    }
}

/// A system with its actors, and what its store says.
pub struct Counters {
    /// The system.
    pub system: System,
    /// Its actors.
    pub actors: Vec<ActorRef<Counter>>,
    /// What its store says.
    pub watch: Arc<Watch>,
}

/// Whether somebody handles the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Actors run.
    Yes,
    /// Mail waits.
    No,
}

/// A journal's segment as it is by default, and one so small that few messages make a checkpoint.
pub const USUAL_SEGMENT: u64 = 16 << 20;
/// See [`USUAL_SEGMENT`].
pub const SMALL_SEGMENT: u64 = 1 << 20;

/// A spawn waits for its commit, so many are made at once.
const LANES: usize = 64;

type Numbered = (usize, ActorRef<Counter>);

async fn some(
    system: System,
    indices: impl Iterator<Item = usize>,
    handled: Handled,
) -> Outcome<Vec<Numbered>> {
    let mut some = Vec::new();
    for index in indices {
        let name = format!("counter-{index}");
        let actor = match handled {
            Handled::Yes => system.spawn(name, || Counter).await?,
            Handled::No => system.bind(&Address::<Counter>::new(name)?).await?,
        };
        some.push((index, actor));
    }
    Ok(some)
}

impl Counters {
    /// Opens a store with so many actors.
    ///
    /// # Errors
    /// Of the store.
    pub async fn open(directory: &Path, actors: usize, handled: Handled, segment: u64) -> Outcome<Self> {
        let watch = Watch::new();
        let builder = System::builder().observer(watch.clone()).journal_segment(segment);
        let builder = builder.max_message((segment / 4).min(1 << 20)).mailbox_capacity(u64::MAX >> 1);
        let system = builder.open(directory).await?;
        let lanes: Vec<_> = (0..LANES.min(actors))
            .map(|lane| tokio::spawn(some(system.clone(), (lane..actors).step_by(LANES), handled)))
            .collect();
        let mut all = Vec::with_capacity(actors);
        for lane in lanes {
            all.extend(lane.await??);
        }
        all.sort_unstable_by_key(|(index, _)| *index);
        let actors = all.into_iter().map(|(_, actor)| actor).collect();
        Ok(Counters { system, actors, watch })
    }

    /// How many messages have been handled, as it is stored.
    ///
    /// # Errors
    /// Of the store.
    pub async fn handled(&self) -> Outcome<u64> {
        let mut handled = 0;
        for actor in &self.actors {
            handled += actor.cell(&COUNT).await?.unwrap_or(0);
        }
        Ok(handled)
    }

    /// Waits until all that was told before is handled, and its acks are durable: an ask comes behind it.
    ///
    /// # Errors
    /// One was not answered.
    pub async fn all_handled(&self) -> Outcome<()> {
        let ask = |actor: ActorRef<Counter>| async move { actor.ask(Add::of(crate::PAYLOAD)).await };
        let asks: Vec<_> = self.actors.iter().map(|actor| tokio::spawn(ask(actor.clone()))).collect();
        for asked in asks {
            asked.await?.map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    /// Closes the store.
    ///
    /// # Errors
    /// Of the store.
    pub async fn close(self) -> Outcome<()> {
        drop(self.actors);
        Ok(self.system.shutdown(Duration::from_secs(60)).await?)
    }
}
