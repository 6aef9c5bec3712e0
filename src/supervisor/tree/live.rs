//! What was started: a running child, and a running tree for whoever holds its root.
//!
//! # Invariants
//! - A child is thrown away with its holder.

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::super::handle::{Gone, SupervisorRef, TreeEnd};
use super::super::roster::Name;
use crate::actor::{Exit, Running};
use crate::clock::Deadline;

/// A supervisor that was started, as far as ending it goes.
pub(crate) struct RunningTree {
    pub(crate) handle: SupervisorRef,
    pub(super) task: JoinHandle<()>,
}

impl RunningTree {
    pub(crate) fn path(&self) -> &str {
        self.handle.path()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.handle.is_running()
    }

    /// Ends it by the deadline; tells which actors' handlers do not yield even then.
    pub(crate) async fn end(&mut self, deadline: Deadline) -> Vec<String> {
        self.end_by(deadline).await.stuck
    }

    async fn end_by(&mut self, deadline: Deadline) -> TreeEnd {
        self.handle.stop_by(deadline);
        self.handle.tree_end().await
    }

    /// Throws the task away where it is, and with it the children's.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

/// A running child, thrown away with its holder.
pub(super) enum Live {
    Actor(Running),
    Supervisor(RunningTree),
}

pub(super) enum ChildExit {
    Actor(Exit),
    Supervisor(TreeEnd),
}

impl Live {
    pub(super) fn end_of(&self, name: Name, run: u64) -> BoxFuture<'static, (Name, u64, ChildExit)> {
        match self {
            Live::Actor(running) => {
                let end = running.end_of();
                Box::pin(async move { (name, run, ChildExit::Actor(end.await)) })
            }
            Live::Supervisor(tree) => {
                let handle = tree.handle.clone();
                Box::pin(async move { (name, run, ChildExit::Supervisor(handle.tree_end().await)) })
            }
        }
    }

    /// Ends it; tells which actors have ended, and whose handlers do not yield.
    pub(super) async fn end(&mut self, by: Deadline) -> (Vec<Gone>, Vec<String>) {
        match self {
            Live::Actor(running) => match running.end(by).await {
                true => (vec![(running.name.clone(), running.ended().await)], Vec::new()),
                false => (vec![(running.name.clone(), Exit::Aborted)], vec![running.name.to_string()]),
            },
            Live::Supervisor(tree) => {
                let TreeEnd { gone, stuck, .. } = tree.end_by(by).await;
                (gone, stuck)
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        match self {
            Live::Actor(running) => running.abort(),
            Live::Supervisor(tree) => tree.abort(),
        }
    }
}
