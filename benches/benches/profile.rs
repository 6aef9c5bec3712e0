//! A fixed number of durable messages and nothing that looks at a clock: for callgrind, which counts instructions, and for perf.
//!
//! `cargo bench -p steadfast-benches --bench profile -- KIND MESSAGES`, where the kind is `send` (on disk, nobody handles it), `tell`
//! (on disk; the actors handle meanwhile) or `cycle` (asked, handled and stored, one after the other). The program
//! prints how many messages it handled. Opening and closing cost some tens of millions of instructions: the difference of two
//! runs is that of the messages alone, and `scripts/instructions.sh` takes it.

use std::time::Duration;

use steadfast_benches::args::Args;
use steadfast_benches::durable::{Add, Counters, Handled, USUAL_SEGMENT};
use steadfast_benches::{ACTORS, Outcome, PAYLOAD};

const SENDERS: u64 = 256;

async fn run(kind: &'static str, messages: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let handled = if kind == "send" { Handled::No } else { Handled::Yes };
    let counters = Counters::open(directory.path(), ACTORS, handled, USUAL_SEGMENT).await?;
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let actor = counters.actors[sender as usize % ACTORS].clone();
            tokio::spawn(async move {
                for _ in (sender..messages).step_by(SENDERS as usize) {
                    let add = Add::of(PAYLOAD);
                    let done = match kind {
                        "cycle" => actor.ask(add).timeout(Duration::from_secs(3600)).await.is_ok(),
                        _ => actor.tell(add).await.is_ok(),
                    };
                    assert!(done, "the message is taken");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await?;
    }
    if handled == Handled::Yes {
        counters.all_handled().await?;
        let handled = counters.handled().await?;
        assert_eq!(handled, messages + ACTORS as u64, "each was handled once");
    }
    println!("{messages} messages");
    counters.close().await
}

fn main() -> Outcome<()> {
    let args = Args::of_process()?;
    let kind = args.words.first().map_or("tell", String::as_str);
    let kind = ["send", "tell", "cycle"].into_iter().find(|known| *known == kind);
    let kind = kind.ok_or("the kind is send, tell or cycle")?;
    args.runtime()?.block_on(run(kind, args.number().unwrap_or(20_000)))
}
