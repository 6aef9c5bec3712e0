//! The processes this program starts: one that lives until it is harmed, and one that checks what is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use steadfast::System;

use super::bank::STUMBLES;
use super::checker::{self, Refusal};
use super::child::{NOBODY_LISTENS, say};
use super::ledger::Ledger;
use super::options::{Child, Task};
use super::plan::builder;
use super::traffic::{self, Life};

/// A file beside the store: when it is there, a child ends by itself.
pub(crate) fn end(store: &Path) -> PathBuf {
    store.with_extension("end")
}

/// A file beside the store: what was acknowledged.
pub(crate) fn ledger(store: &Path) -> PathBuf {
    store.with_extension("ledger")
}

pub(crate) async fn run(child: &Child) -> Result<(), Refusal> {
    quiet_about_stumbles();
    match child.task {
        Task::Live => live(child, None).await,
        Task::Lay => live(child, Some(60)).await,
        Task::Check | Task::Read => {
            let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr);
            log.with_max_level(tracing::level_filters::LevelFilter::ERROR).init();
            // what the store answers with is a finding too
            match check(child).await {
                Ok(found) => say(&format!("found {found}")),
                Err(why) => say(&format!("refused {}", why.to_string().replace('\n', " "))),
            }
            Ok(())
        }
    }
}

async fn open(child: &Child) -> Result<System, Refusal> {
    let began = Instant::now();
    let mut builder = builder().ballast(child.ballast);
    if let Some(engine) = child.engine {
        builder = builder.engine(engine);
    }
    let system = builder.open(&child.store).await?;
    say(&format!("open {}", began.elapsed().as_millis()));
    Ok(system)
}

async fn live(child: &Child, amount: Option<u64>) -> Result<(), Refusal> {
    let system = open(child).await?;
    if let Some(what) = checker::look(&system).await? {
        say(&format!("wrong before anybody ran: {what}"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let Child { life, settled, seed, broken, .. } = *child;
    let life =
        Life { life, settled, seed, broken, amount, say: Arc::new(|line| say(&line)), stop: stop.clone() };
    let end = end(&child.store);
    let ends = async {
        while !end.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        lived = traffic::live(&system, &life) => lived?,
        () = ends => {}
    }
    if child.task == Task::Lay {
        traffic::send_unheard(&system, &life).await?;
        say("quiet");
        while !end.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    } else if !end.exists() {
        // the store has failed, as it was made to: nothing ends well any more, and the end comes from outside
        std::future::pending::<()>().await;
    }
    system.shutdown(Duration::from_secs(30)).await?;
    say("done");
    Ok(())
}

async fn check(child: &Child) -> Result<String, Refusal> {
    let ledger = Ledger::of_text(&std::fs::read_to_string(ledger(&child.store))?);
    let system = open(child).await?;
    let prune = (child.task == Task::Check).then_some(child.life);
    let found = checker::check(&system, &ledger, prune).await?;
    system.shutdown(Duration::from_secs(30)).await?;
    Ok(serde_json::to_string(&found)?)
}

/// Some handlers panic on purpose.
pub(crate) fn quiet_about_stumbles() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() == Some(STUMBLES) {
            return;
        }
        usual(panic);
        // whoever started this is gone
        if panic.payload_as_str().is_some_and(|why| why.starts_with(NOBODY_LISTENS)) {
            std::process::exit(1);
        }
    }));
}
