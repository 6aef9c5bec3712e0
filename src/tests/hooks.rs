//! The life-cycle hooks: when each is called, and that each is a turn of its own.

use std::time::Duration;

use super::world::{Log, Note, TOTAL, World, a_moment, note, secs, until};
use crate::{
    Actor, Context, Failure, Handler, Message, RetryPolicy, Spawn, SpawnError, State, System, Terminated,
};

/// Says what is called on it.
struct Diary {
    log: Log,
    /// Hooks that fail, and those that panic.
    bad: &'static [&'static str],
}

impl Actor for Diary {
    const NAME: &'static str = "test.diary";
    type Messages = (Note, Terminated);

    fn state() -> State<Self> {
        State::cells().with(TOTAL)
    }

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.hook("started", ctx)
    }

    async fn recovered(&mut self, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.hook("recovered", ctx)
    }

    async fn restarted(&mut self, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.hook("restarted", ctx)
    }

    async fn stopping(&mut self, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.hook("stopping", ctx)
    }
}

impl Diary {
    fn hook(&mut self, name: &str, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let calls = ctx.state().get(&TOTAL)?.unwrap_or(0) + 1;
        ctx.state().set(&TOTAL, &calls)?;
        self.log.say(format!("{name} {calls}"));
        match self.bad.contains(&name) {
            true if self.log.count("the cause is gone") == 0 => Err(Failure::new("not yet")),
            _ => Ok(()),
        }
    }
}

impl Handler<Note> for Diary {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        self.log.say(&note.0);
        match note.0.as_str() {
            "bad" => Err(Failure::new("bad").terminal()),
            "watch" => {
                ctx.watch(&crate::Address::<super::world::Probe>::new("nobody")?);
                Ok(0)
            }
            _ => Ok(0),
        }
    }
}

impl Handler<Terminated> for Diary {
    async fn handle(&mut self, end: Terminated, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("{} ended: {}", end.name, end.exit));
        Ok(())
    }
}

fn diary<'s>(system: &'s System, log: &Log, bad: &'static [&'static str]) -> Spawn<'s, Diary> {
    let log = log.clone();
    system.spawn("diary", move || Diary { log: log.clone(), bad })
}

#[tokio::test]
async fn hooks_come_in_their_order_and_recovered_before_the_first_resumed_message() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let actor = diary(&system, &log, &[]).await.expect("spawns");
    for text in ["one", "bad", "two"] {
        actor.tell(note(text)).await.expect("accepted");
    }
    log.lines(5).await;
    actor.stop().await;
    for text in ["three", "four"] {
        actor.tell(note(text)).await.expect("accepted");
    }
    let first = ["started 1", "one", "bad", "restarted 2", "two", "stopping 3"];
    assert_eq!(log.all(), first);

    let system = world.restart(system).await;
    let actor = diary(&system, &log, &[]).await.expect("spawns");
    actor.tell(note("five")).await.expect("accepted");
    let second = ["started 4", "recovered 5", "three", "four", "five"];
    assert_eq!(log.lines(11).await[6..], second);

    // nothing waits: there is nothing to resume
    let system = world.restart(system).await;
    let actor = diary(&system, &log, &[]).await.expect("spawns");
    actor.tell(note("six")).await.expect("accepted");
    assert_eq!(log.lines(14).await[11..], ["stopping 6", "started 7", "six"]);
}

#[tokio::test]
async fn mail_sent_in_this_process_before_the_start_is_not_recovered() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let actor: crate::ActorRef<Diary> =
        system.bind(&crate::Address::new("diary").expect("a name")).await.expect("binds");
    actor.tell(note("one")).await.expect("accepted");
    diary(&system, &log, &[]).await.expect("spawns");
    assert_eq!(log.lines(2).await, ["started 1", "one"]);
}

#[tokio::test]
async fn an_actor_whose_start_hook_fails_is_not_started_and_nothing_of_the_hook_stays() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let failed = diary(&system, &log, &["started"]).await;
    let Err(SpawnError::Hook { mailbox, why }) = failed else { panic!("{failed:?}") };
    assert_eq!((mailbox.as_str(), why.as_str()), ("diary", "`started`: not yet"));
    log.say("the cause is gone");
    let actor = diary(&system, &log, &["started"]).await.expect("spawns");
    // the first one's count was thrown away with it
    assert_eq!(log.all(), ["started 1", "the cause is gone", "started 1"]);
    assert_eq!(actor.cell(&TOTAL).await.expect("readable"), Some(1));
}

#[tokio::test]
async fn a_message_waits_until_recovered_has_succeeded() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let actor: crate::ActorRef<Diary> =
        system.bind(&crate::Address::new("diary").expect("a name")).await.expect("binds");
    actor.tell(note("one")).await.expect("accepted");
    let system = world.restart(system).await;
    let actor = diary(&system, &log, &["recovered"]).await.expect("spawns");
    log.lines(2).await;
    a_moment().await;
    assert_eq!((log.len(), actor.waiting()), (2, 1));
    log.say("the cause is gone");
    world.pass(secs(2));
    let lines = log.lines(6).await;
    assert_eq!(lines[3..], ["restarted 2", "recovered 3", "one"]);
}

#[tokio::test]
async fn the_last_hook_is_not_called_when_the_actor_is_parked() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let actor = diary(&system, &log, &[]).await.expect("spawns");
    actor.park().await;
    assert_eq!(log.all(), ["started 1"]);
}

#[tokio::test]
async fn watching_who_does_not_run_is_told_at_once() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let actor = diary(&system, &log, &[]).retry(RetryPolicy::never()).await.expect("spawns");
    actor.tell(note("watch")).await.expect("accepted");
    assert_eq!(log.lines(3).await, ["started 1", "watch", "nobody ended: it did not run"]);
}

#[tokio::test]
async fn what_a_hook_sent_is_sent_once_it_has_succeeded() {
    struct Caller {
        to: crate::Address<Diary>,
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Never;
    impl Message for Never {
        type Reply = ();
        const NAME: &'static str = "test.never";
    }
    impl Actor for Caller {
        const NAME: &'static str = "test.caller";
        type Messages = (Never,);
        async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Failure> {
            ctx.tell(&self.to, note("from a hook"))?;
            Ok(())
        }
    }
    impl Handler<Never> for Caller {
        async fn handle(&mut self, _: Never, _: &mut Context<Self>) -> Result<(), Failure> {
            Ok(())
        }
    }
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = diary(&system, &log, &[]).await.expect("spawns").address();
    system.spawn("caller", move || Caller { to: to.clone() }).await.expect("spawns");
    assert_eq!(log.lines(2).await, ["started 1", "from a hook"]);
    until("all is quiet", || log.len() == 2).await;
    system.shutdown(Duration::from_secs(5)).await.expect("shuts down");
}
