//! A shop that fails in instructive ways: what happened, why, and what was saved. `cargo run --example supervision`
//!
//! ```text
//! shop ─ one for one
//! ├── stock
//! ├── letters
//! └── payments ─ one for all
//!     ├── ledger
//!     ├── card-reader
//!     └── receipts
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Backoff, Cell, ChildSpec, Context, Event, Failure, Handler, MailboxOptions, Message,
    Observer, RestartLimit, RetryPolicy, Strategy, Supervisor, SupervisorRef, System,
};

type Done = Result<(), Box<dyn std::error::Error>>;

const MINUTE: Duration = Duration::from_secs(60);
const HANDLED: Cell<u64> = Cell::new("handled", 1);

/// The outside world: whether the bank answers.
static BANK: AtomicBool = AtomicBool::new(true);

/// A piece of work, and what goes wrong with it.
#[derive(Serialize, Deserialize)]
enum Job {
    Fine(String),
    /// Fails whenever it is tried.
    Poison(String),
    /// Panics when it is tried first.
    PanicOnce(String),
    NeedsBank(String),
}
impl Message for Job {
    type Reply = u64;
    const NAME: &'static str = "shop.job";
}

struct Clerk {
    name: &'static str,
}

impl Clerk {
    fn new(name: &'static str) -> Self {
        println!("    + {name}");
        Clerk { name }
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        println!("    - {}", self.name);
    }
}

impl Actor for Clerk {
    const NAME: &'static str = "shop.clerk";
    type Messages = (Job,);
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(3))
    }
}

impl Handler<Job> for Clerk {
    async fn handle(&mut self, job: Job, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        let handled = ctx.state().get(&HANDLED)?.unwrap_or(0) + 1;
        // written before anything goes wrong: a failed turn leaves none of it
        ctx.state().set(&HANDLED, &handled)?;
        let (name, attempt) = (self.name, ctx.attempt());
        match job {
            Job::Poison(what) => {
                println!("      {name} cannot read {what:?}, attempt {attempt} of 3");
                Err(Failure::new("nobody can read this"))
            }
            Job::PanicOnce(what) if attempt == 1 => panic!("{name} dropped {what:?}"),
            Job::NeedsBank(what) if !BANK.load(Ordering::SeqCst) => {
                println!("      {name} cannot do {what:?}: no answer from the bank");
                Err(Failure::new("no answer from the bank").retry_after(Duration::from_millis(200)))
            }
            Job::Fine(what) | Job::PanicOnce(what) | Job::NeedsBank(what) => {
                println!("      {name} has done {what:?}, its number {handled}");
                Ok(handled)
            }
        }
    }
}

/// Prints what supervisors decide.
struct Teller;

impl Observer for Teller {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::ChildRestarted { supervisor, child, why, message, in_window, limit, after } => {
                let about = message.map_or(String::new(), |id| format!(", at message {id}"));
                println!("  > {child} ended ({why}{about})");
                println!(
                    "    that is {in_window} of the {limit} failures {supervisor} bears: starting again in {after:?}"
                );
            }
            Event::RestartLimitExceeded { supervisor, child, limit, within, .. } => {
                println!(
                    "  > {supervisor}: more than {limit} failures within {within:?}, the last of {child}: it gives up"
                );
            }
            Event::SupervisorDown { supervisor, .. } => println!("  > {supervisor} is down"),
            _ => {}
        }
    }
}

fn shop() -> Supervisor {
    let clerk = |name| ChildSpec::actor(name, move || Clerk::new(name)).backoff(wait(50));
    let at_the_bank = MailboxOptions::new().retry(RetryPolicy::immediately(100));
    let payments = ["ledger", "card-reader", "receipts"]
        .into_iter()
        .map(|name| clerk(name).mailbox(at_the_bank.clone()))
        .fold(Supervisor::new("payments", Strategy::OneForAll), Supervisor::child)
        .limit(RestartLimit::new(2, MINUTE));
    Supervisor::new("shop", Strategy::OneForOne)
        .limit(RestartLimit::new(2, MINUTE))
        .child(clerk("stock"))
        .child(clerk("letters"))
        .child(ChildSpec::supervisor(payments).backoff(wait(300)))
}

fn wait(ms: u64) -> Backoff {
    Backoff::fixed(Duration::from_millis(ms))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    // one line for each panic; the runtime catches them
    std::panic::set_hook(Box::new(|panic| {
        println!(
            "      panic: {}",
            panic.payload().downcast_ref::<String>().map_or("?", |text| text.as_str())
        );
    }));
    let directory = tempfile::tempdir()?;
    let open = || System::builder().observer(Arc::new(Teller)).open(directory.path());

    println!("The shop opens: every child in start order");
    let system = open().await?;
    let root = system.supervise(shop()).await?;
    poison(&system, &root).await?;
    one_for_all(&root).await?;
    everything_fails(&root).await?;
    println!("\nThe process ends: every child in the reverse of the start order");
    system.shutdown(Duration::from_secs(5)).await?;

    println!("\nThe next process: what failed within the last minute is remembered");
    let system = open().await?;
    let root = system.supervise(shop()).await?;
    one_too_many(&root).await?;
    system.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

async fn poison(system: &System, root: &SupervisorRef) -> Done {
    println!("\nOne message that nobody can handle goes to the dead letters; its neighbours go on");
    let (stock, letters) = (clerk(root, "stock").await?, clerk(root, "letters").await?);
    let id = stock.tell(Job::Poison("a coffee stain".into())).await?;
    letters.tell(Job::Fine("a birthday card".into())).await?;
    stock.ask(Job::Fine("12 umbrellas".into())).await?;
    let dead = &system.dead_letters().page(Some("stock"), None, 10).await?[0];
    assert_eq!(dead.id.message(), id);
    println!("  = dead letter {id}, with what was decided each time:");
    for attempt in &dead.attempts.last {
        println!("      {}: {} -> {:?}", attempt.class, attempt.error, attempt.decision);
    }
    println!("  = it counts once, not three times: {} of 2 failures", root.failures().await?.len());
    saved(&stock).await
}

async fn one_for_all(root: &SupervisorRef) -> Done {
    println!("\nA panic under one-for-all: its siblings stop in reverse order, and all start in order");
    let payments = root.supervisor("payments").await?;
    let (ledger, reader) = (clerk(&payments, "ledger").await?, clerk(&payments, "card-reader").await?);
    ledger.ask(Job::Fine("open the books".into())).await?;
    // the ask waits while the reader is down, and the message is its next one
    reader.ask(Job::PanicOnce("a credit card".into())).await?;
    saved(&ledger).await?;
    saved(&reader).await
}

async fn everything_fails(root: &SupervisorRef) -> Done {
    println!(
        "\nThe bank is down, so everything fails: payments exceeds its limit, and its parent restarts it"
    );
    BANK.store(false, Ordering::SeqCst);
    let payments = root.supervisor("payments").await?;
    let mut clerks = Vec::new();
    for name in ["ledger", "card-reader", "receipts"] {
        clerks.push(clerk(&payments, name).await?);
    }
    for clerk in &clerks {
        clerk.tell(Job::NeedsBank(format!("the part of {}", clerk.name()))).await?;
    }
    println!("  = payments has failed: {}", payments.ended().await);
    println!("  = its mail waits: {:?}", clerks.iter().map(ActorRef::waiting).collect::<Vec<_>>());
    println!("\nThe bank is back, and what waited is done");
    BANK.store(true, Ordering::SeqCst);
    for clerk in &clerks {
        clerk.ask(Job::Fine("close the day".into())).await?;
        saved(clerk).await?;
    }
    Ok(())
}

async fn one_too_many(root: &SupervisorRef) -> Done {
    for failure in root.failures().await? {
        println!("  = {}: {}", failure.child, failure.why);
    }
    println!("\nOne more is one too many, although this process has seen only one");
    let stock = clerk(root, "stock").await?;
    stock.tell(Job::PanicOnce("a vase".into())).await?;
    stock.tell(Job::Fine("3 vases".into())).await?;
    println!("  = the shop is down: {}", root.ended().await);
    println!("  = {} messages of stock wait for whoever opens it again", stock.waiting());
    saved(&stock).await
}

async fn clerk(of: &SupervisorRef, name: &str) -> Result<ActorRef<Clerk>, Box<dyn std::error::Error>> {
    Ok(of.actor(name).await?)
}

async fn saved(clerk: &ActorRef<Clerk>) -> Done {
    println!("  = saved: {} has done {}", clerk.name(), clerk.cell(&HANDLED).await?.unwrap_or(0));
    Ok(())
}
