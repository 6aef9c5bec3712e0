//! The subscribers. Each writes what it gets into its state, in the same turn, and fails at random: the same events as often
//! as the seed says, whenever they come.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, BatchHandler, Cell, CellMap, Context, Failure, Gap, Handler, Item, MailboxOptions,
    Message, Outcomes, RetryPolicy, SpawnError, StateError, System,
};

use super::plan::{Fault, Habit, Happened, Plan, ReaderPlan, topic};

const ATTEMPTS: u32 = 9;
const AT_ONCE: usize = 8;

/// What a subscriber got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Got {
    /// With the sequence number that came with it, where one did.
    Event(Happened, Option<u64>),
    Gap {
        from: u64,
        to: u64,
    },
}

/// Everything a subscriber got, in its order, by a count of its own.
const GOT: CellMap<u64, Got> = CellMap::new("got", 1);
/// How much that is, and which sequence number comes next.
const PLACE: Cell<Place> = Cell::new("place", 1);
/// An event that was held back, by a fault.
const HELD_BACK: Cell<Option<Happened>> = Cell::new("held-back", 1);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    lines: u64,
    pub(crate) next: u64,
}

fn write<A: Actor>(ctx: &mut Context<A>, got: Got) -> Result<(), Failure> {
    let mut place = ctx.state().get(&PLACE)?.unwrap_or_default();
    ctx.state().map(&GOT).insert(&place.lines, &got)?;
    place.lines += 1;
    place.next = match got {
        Got::Event(..) => place.next + 1,
        Got::Gap { to, .. } => to,
    };
    Ok(ctx.state().set(&PLACE, &place)?)
}

/// Fails as often as the seed says. After all else: what a failed turn did must not be seen.
fn stumble<A: Actor>(plan: Plan, event: &Happened, attempt: u32, ctx: &Context<A>) -> Result<(), Failure> {
    let times = plan.chance((ctx.name(), event), 8).saturating_sub(5);
    if u64::from(attempt) <= times { Err(Failure::new("at random")) } else { Ok(()) }
}

/// Handles events one by one.
pub(crate) struct Reader {
    plan: Plan,
    system: System,
    /// Acknowledged and not written down, by a fault.
    kept: Option<Happened>,
}

/// What a subscriber tells itself, by a fault.
#[derive(Serialize, Deserialize)]
pub(crate) struct Write(Happened);

impl Message for Write {
    type Reply = ();
    const NAME: &'static str = "test.write";
}

impl Actor for Reader {
    const NAME: &'static str = "test.reader";
    type Messages = (Happened, Write);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS))
    }

    async fn gap(&mut self, gap: Gap, ctx: &mut Context<Self>) -> Result<(), Failure> {
        match self.plan.fault {
            Some(Fault::HidesGaps) => Ok(()),
            _ => write(ctx, Got::Gap { from: gap.from, to: gap.to }),
        }
    }
}

impl Handler<Happened> for Reader {
    async fn handle(&mut self, event: Happened, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let sequence = ctx.topic().map(|from| from.sequence);
        match self.plan.fault {
            Some(fault) => self.write_with(fault, event.clone(), ctx).await?,
            None => write(ctx, Got::Event(event.clone(), sequence))?,
        }
        stumble(self.plan, &event, ctx.attempt(), ctx)
    }
}

impl Handler<Write> for Reader {
    async fn handle(&mut self, write_down: Write, ctx: &mut Context<Self>) -> Result<(), Failure> {
        write(ctx, Got::Event(write_down.0, None))
    }
}

impl Reader {
    async fn write_with(
        &mut self,
        fault: Fault,
        event: Happened,
        ctx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        let now_and_then = self.plan.chance(&event, 6) == 0;
        match fault {
            Fault::WritesInAnotherTurn => {
                let myself = self.system.bind(&ctx.address()).await?;
                myself.tell(Write(event)).outside_turn().await?;
                Ok(())
            }
            Fault::WritesLater => match self.kept.replace(event) {
                Some(before) => write(ctx, Got::Event(before, None)),
                None => Ok(()),
            },
            Fault::Drops if now_and_then => Ok(()),
            Fault::Swaps => {
                let held_back = ctx.state().get(&HELD_BACK)?.flatten();
                if now_and_then && held_back.is_none() {
                    return Ok(ctx.state().set(&HELD_BACK, &Some(event))?);
                }
                write(ctx, Got::Event(event, None))?;
                ctx.state().set(&HELD_BACK, &None)?;
                held_back.map_or(Ok(()), |held_back| write(ctx, Got::Event(held_back, None)))
            }
            _ => write(ctx, Got::Event(event, None)),
        }
    }
}

/// Handles several at once.
pub(crate) struct Gatherer {
    plan: Plan,
}

impl Actor for Gatherer {
    const NAME: &'static str = "test.gatherer";
    type Messages = (Happened,);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS)).batch(AT_ONCE, Duration::ZERO)
    }

    async fn gap(&mut self, gap: Gap, ctx: &mut Context<Self>) -> Result<(), Failure> {
        write(ctx, Got::Gap { from: gap.from, to: gap.to })
    }
}

impl BatchHandler<Happened> for Gatherer {
    /// Fails as a whole or not at all: then each comes alone, and the order stays.
    async fn handle_batch(
        &mut self,
        batch: Vec<Item<Happened>>,
        ctx: &mut Context<Self>,
    ) -> Result<Outcomes<Happened>, Failure> {
        for item in &batch {
            write(ctx, Got::Event(item.message.clone(), None))?;
            stumble(self.plan, &item.message, item.attempt(), ctx)?;
        }
        Ok(batch.iter().map(|_| Ok(())).collect())
    }
}

/// A subscriber that runs, or one that does not.
pub(crate) enum Handle {
    Reader(ActorRef<Reader>),
    Gatherer(ActorRef<Gatherer>),
}

/// Starts a subscriber.
pub(crate) async fn start(system: &System, plan: Plan, reader: &ReaderPlan) -> Result<Handle, SpawnError> {
    let topic = topic(system, reader.topic).await;
    if reader.habit == Habit::Gathers {
        let spawn = system.spawn(&*reader.name, move || Gatherer { plan });
        return Ok(Handle::Gatherer(spawn.subscribe(&topic, reader.from()).await?));
    }
    let shared = system.clone();
    let spawn = system.spawn(&*reader.name, move || Reader { plan, system: shared.clone(), kept: None });
    Ok(Handle::Reader(spawn.subscribe(&topic, reader.from()).await?))
}

/// A subscriber that need not run; none if there is no such yet.
pub(crate) async fn lookup(system: &System, reader: &ReaderPlan) -> Option<Handle> {
    match reader.habit {
        Habit::Gathers => system.lookup(&reader.name).await.ok().map(Handle::Gatherer),
        _ => system.lookup(&reader.name).await.ok().map(Handle::Reader),
    }
}

impl Handle {
    /// After the turn that runs.
    pub(crate) async fn stop(&self) {
        match self {
            Handle::Reader(actor) => actor.stop().await,
            Handle::Gatherer(actor) => actor.stop().await,
        }
    }

    /// At once.
    pub(crate) async fn park(&self) {
        match self {
            Handle::Reader(actor) => actor.park().await,
            Handle::Gatherer(actor) => actor.park().await,
        }
    }

    pub(crate) async fn place(&self) -> Result<Place, StateError> {
        let place = match self {
            Handle::Reader(actor) => actor.cell(&PLACE).await?,
            Handle::Gatherer(actor) => actor.cell(&PLACE).await?,
        };
        Ok(place.unwrap_or_default())
    }

    /// All that it got.
    pub(crate) async fn got(&self) -> Result<Vec<Got>, StateError> {
        const PAGE: usize = 2_000;
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = match self {
                Handle::Reader(actor) => actor.map_page(&GOT, after.as_ref(), PAGE).await?,
                Handle::Gatherer(actor) => actor.map_page(&GOT, after.as_ref(), PAGE).await?,
            };
            let Some((last, _)) = page.last() else { return Ok(got) };
            after = Some(*last);
            got.extend(page.into_iter().map(|(_, got)| got));
        }
    }
}
