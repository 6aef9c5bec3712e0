//! Watches and links between actors.

use super::world::{Log, Note, Probe, World, a_moment, at_once, note, probe, script, secs, until};
use crate::{
    Actor, ActorRef, Address, Backoff, ChildSpec, Context, Decision, Exit, Failure, FailurePolicy, Handler,
    Strategy, Supervisor, Terminated,
};

/// Watches, or binds itself to, the actor named in a note.
struct Watcher {
    log: Log,
}

impl Actor for Watcher {
    const NAME: &'static str = "test.watcher";
    type Messages = (Note, Terminated);
}

impl Handler<Note> for Watcher {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        let (verb, name) = note.0.split_once(' ').unwrap_or(("", "x"));
        let target = Address::<Probe>::new(name)?;
        match verb {
            "watch" => ctx.watch(&target),
            "link" => ctx.link(&target),
            "unwatch" => ctx.unwatch(&target),
            "fail" => {
                ctx.watch(&target);
                return Err(Failure::new("thrown away").terminal());
            }
            _ => {}
        }
        Ok(0)
    }
}

impl Handler<Terminated> for Watcher {
    async fn handle(&mut self, end: Terminated, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("{}: {}", end.name, end.exit));
        Ok(())
    }
}

struct Two {
    world: World,
    system: crate::System,
    log: Log,
    watcher: ActorRef<Watcher>,
    target: ActorRef<Probe>,
}

/// A watcher, and a target that ends as failed when it is told anything.
async fn two() -> Two {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let watcher = system.spawn("watcher", move || Watcher { log: said.clone() }).await.expect("spawns");
    let policy = FailurePolicy { panic: Decision::STOP, ..FailurePolicy::new() };
    let target = probe(&system, "target", |_| Box::pin(async { panic!("the end") }));
    let target = target.retry(at_once(1)).on_failure(policy).await.expect("spawns");
    Two { world, system, log, watcher, target }
}

impl Two {
    async fn does(&self, what: &str) {
        self.watcher.ask(note(what)).await.expect("handled");
    }
}

#[tokio::test]
async fn the_end_of_a_watched_actor_comes_as_a_message_with_its_reason_once() {
    let two = two().await;
    two.does("watch target").await;
    two.does("watch target").await;
    two.target.tell(note("x")).await.expect("accepted");
    let lines = two.log.lines(1).await;
    assert!(lines[0].starts_with("target: message ") && lines[0].ends_with("(panic): panicked: the end"));
    a_moment().await;
    assert_eq!(two.log.len(), 1);
}

#[tokio::test]
async fn a_normal_end_is_told_too_and_leaves_a_linked_actor_alone() {
    let two = two().await;
    two.does("watch target").await;
    two.does("link target").await;
    two.target.stop().await;
    assert_eq!(two.log.lines(1).await, ["target: it was asked to end"]);
    two.does("nothing").await;
}

#[tokio::test]
async fn an_abnormal_end_ends_a_linked_actor_too_and_its_mail_stays() {
    let two = two().await;
    two.does("link target").await;
    two.target.tell(note("x")).await.expect("accepted");
    let Some(Exit::Failed(failed)) = two.watcher.ended().await else { panic!("it goes on") };
    assert!(failed.why.starts_with("target, to which it is linked, has ended: "), "{}", failed.why);
    two.watcher.tell(note("nothing")).await.expect("accepted");
    assert_eq!(two.watcher.waiting(), 1);
    // a new run is bound to nobody
    let log = two.log.clone();
    let again = two.system.spawn("watcher", move || Watcher { log: log.clone() }).await.expect("spawns");
    again.ask(note("nothing")).await.expect("handled");
}

#[tokio::test]
async fn a_watch_of_a_failed_turn_was_never_begun() {
    let two = two().await;
    let failed = two.watcher.ask(note("fail target")).await;
    assert!(failed.is_err(), "{failed:?}");
    two.target.stop().await;
    a_moment().await;
    assert_eq!(two.log.all(), [""; 0]);
}

#[tokio::test]
async fn a_watch_that_was_taken_back_is_not_told() {
    let two = two().await;
    two.does("watch target").await;
    two.does("unwatch target").await;
    two.target.stop().await;
    a_moment().await;
    assert_eq!(two.log.all(), [""; 0]);
}

#[tokio::test]
async fn the_end_of_the_system_is_told_to_nobody() {
    let two = two().await;
    two.does("watch target").await;
    let system = two.world.restart(two.system.clone()).await;
    let log = two.log.clone();
    let watcher = system.spawn("watcher", move || Watcher { log: log.clone() }).await.expect("spawns");
    watcher.ask(note("nothing")).await.expect("handled");
    assert_eq!(two.log.all(), [""; 0]);
}

#[tokio::test]
async fn an_actor_is_found_by_name_and_type_also_after_a_restart() {
    let two = two().await;
    let system = two.world.restart(two.system.clone()).await;
    let found = system.lookup::<Probe>("target").await.expect("known");
    assert!(!found.is_running());
    let unknown = system.lookup::<Probe>("nobody").await.expect_err("never spawned").to_string();
    assert!(unknown.starts_with("there is no mailbox nobody"), "{unknown}");
    let wrong = system.lookup::<Watcher>("target").await.expect_err("another type").to_string();
    assert_eq!(wrong, "mailbox target belongs to actor `test.probe`, not `test.watcher`");
}

#[tokio::test]
async fn a_supervised_actor_that_waits_to_be_started_again_has_not_ended() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let watcher = system.spawn("watcher", move || Watcher { log: said.clone() }).await.expect("spawns");
    let panics: std::sync::Arc<_> = std::sync::Arc::new(script(|_| Box::pin(async { panic!("no") })));
    let child =
        ChildSpec::actor("child", move || Probe::new(panics.clone())).backoff(Backoff::fixed(secs(10)));
    let tree = Supervisor::new("tree", Strategy::OneForOne).child(child);
    let tree = system.supervise(tree).await.expect("starts");
    let child = tree.actor::<Probe>("child").await.expect("a child");
    child.tell(note("x")).await.expect("accepted");
    until("it ends", || !child.is_running()).await;
    watcher.ask(note("watch child")).await.expect("handled");
    a_moment().await;
    assert_eq!(log.len(), 0, "it is started again");
    tree.stop_child("child").await.expect("stops");
    assert!(log.lines(1).await[0].starts_with("child: message "));
}
