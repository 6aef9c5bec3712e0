//! How to test a program that is built on steadfast: a bank whose power is cut at every operation of its disk, one after the other.
//! Whatever the cut leaves, no money is made and none is lost, and what was acknowledged is done.
//!
//! `cargo run --example testing` shows it; in your own project this is a `#[tokio::test]`.

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use steadfast::testkit::{CrashPoints, Outcome, run_until_idle};
use steadfast::{Actor, ActorRef, Address, Context, Failure, Handler, Message, SpawnError, State, System};

const EACH: u64 = 100;

/// Take so much from this account and give it to that.
#[derive(Serialize, Deserialize)]
struct Transfer {
    amount: u64,
    to: Address<Account>,
}

#[derive(Serialize, Deserialize)]
struct Deposit(u64);

impl Message for Transfer {
    type Reply = ();
    const NAME: &'static str = "transfer";
}

impl Message for Deposit {
    type Reply = ();
    const NAME: &'static str = "deposit";
}

#[derive(Serialize, Deserialize)]
struct Account {
    balance: u64,
}

impl Actor for Account {
    const NAME: &'static str = "account";
    type Messages = (Transfer, Deposit);

    fn state() -> State<Self> {
        State::whole(1)
    }
}

impl Handler<Transfer> for Account {
    async fn handle(&mut self, transfer: Transfer, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.balance =
            self.balance.checked_sub(transfer.amount).ok_or_else(|| Failure::new("too little").terminal())?;
        ctx.tell(&transfer.to, Deposit(transfer.amount))?;
        Ok(())
    }
}

impl Handler<Deposit> for Account {
    async fn handle(&mut self, Deposit(amount): Deposit, _: &mut Context<Self>) -> Result<(), Failure> {
        self.balance += amount;
        Ok(())
    }
}

async fn bank(system: &System) -> Result<[ActorRef<Account>; 2], SpawnError> {
    let open = async |name| system.spawn(name, || Account { balance: EACH }).await;
    Ok([open("anna").await?, open("ben").await?])
}

async fn balance(account: &ActorRef<Account>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    // one that nobody has sent anything to has no state yet
    Ok(account.snapshot().await?.map_or(EACH, |account| account.balance))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let work = async |system: &System, acknowledged: &Cell<u64>| -> Outcome {
        let [anna, ben] = bank(system).await?;
        for amount in 1..=5 {
            anna.tell(Transfer { amount, to: ben.address() }).await?;
            acknowledged.update(|sum| sum + amount); // from here on it must not be lost
        }
        Ok(run_until_idle(system).await?)
    };

    let check = async |system: &System, acknowledged: &Cell<u64>| -> Outcome {
        let [anna, ben] = bank(system).await?;
        run_until_idle(system).await?;
        let (anna, ben) = (balance(&anna).await?, balance(&ben).await?);
        match (anna + ben == 2 * EACH, ben >= EACH + acknowledged.get()) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("anna has {anna} and ben {ben}").into()),
            (_, false) => Err(format!("{} were acknowledged, and ben has {ben}", acknowledged.get()).into()),
        }
    };

    // small, so that there are checkpoints among the operations
    let small = || System::builder().max_message(8 << 10).journal_segment(64 << 10).overlay(48 << 10);
    let visited = CrashPoints::new(1).builder(small).run(work, check).await;
    let visited = visited.map_err(|why| why.to_string())?;
    println!(
        "{} crash points, {} of them in the middle of the work: no money was made and none was lost",
        visited.points, visited.cut_short
    );
    Ok(())
}
