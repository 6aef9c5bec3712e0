//! What is asked of a running supervisor: children added, stopped, started and deleted by hand, and what it knows.
//!
//! # Invariants
//! - What is done by hand counts against no limit.

use super::super::Restart;
use super::super::child::ChildSpec;
use super::super::handle::{ChildInfo, ChildState, Command, SupervisorRef};
use super::super::history::CountedFailure;
use super::super::roster::{Member, Stand};
use super::live::Live;
use super::{Child, Memory, Stopped, Tree};
use crate::error::ChildError;

impl Tree {
    pub(super) async fn obey(&mut self, command: Command) -> Stopped {
        match command {
            // whoever asked may have gone away; what was done stands
            Command::Start(spec, answer) => drop(answer.send(self.add_by_hand(*spec).await)),
            Command::Stop(name, answer) => drop(answer.send(self.stop_by_hand(&name).await)),
            Command::Restart(name, answer) => drop(answer.send(self.restart_by_hand(&name).await)),
            Command::Delete(name, answer) => drop(answer.send(self.delete_by_hand(&name).await)),
            Command::Find(name, answer) => drop(answer.send(self.find(&name))),
            Command::Children(answer) => drop(answer.send(Ok(self.infos()))),
            Command::Failures(answer) => drop(answer.send(Ok(self.failures()))),
            Command::Reset(answer) => {
                self.roster.reset();
                let saved = self.save().await;
                let ended = || ChildError::Ended { supervisor: self.path().to_owned() };
                drop(answer.send(saved.clone().map_err(|_| ended())));
                return saved;
            }
        }
        Ok(())
    }

    async fn add_by_hand(&mut self, spec: ChildSpec) -> Result<(), ChildError> {
        if self.children.contains_key(&spec.name) {
            return Err(ChildError::Exists { child: self.full_name(&spec.name) });
        }
        spec.check(self.path())?;
        let name = spec.name.clone();
        let added = self.add(spec).await;
        if added.is_err() {
            self.forget(&name);
        }
        Ok(added?)
    }

    async fn stop_by_hand(&mut self, name: &str) -> Result<(), ChildError> {
        self.child(name)?;
        let ended = self.stop_child(name).await;
        self.roster.set(name, Stand::Ended);
        self.tell_gone(name).await;
        if self.child(name)?.spec.restart == Restart::Temporary {
            self.forget(name);
        }
        if ended { Ok(()) } else { Err(ChildError::Stuck { child: self.full_name(name) }) }
    }

    async fn restart_by_hand(&mut self, name: &str) -> Result<(), ChildError> {
        let child = self.child(name)?;
        if child.live.is_some() {
            return Err(ChildError::Running { child: self.full_name(name) });
        }
        let name = child.spec.name.clone();
        self.roster.set(&name, Stand::Ended);
        Ok(self.start_child(&name, Memory::Kept).await?)
    }

    async fn delete_by_hand(&mut self, name: &str) -> Result<(), ChildError> {
        if self.child(name)?.live.is_some() {
            return Err(ChildError::Running { child: self.full_name(name) });
        }
        self.tell_gone(name).await;
        self.forget(name);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Option<SupervisorRef>, ChildError> {
        let child = self.child(name)?;
        match &child.live {
            Some(Live::Supervisor(tree)) => Ok(Some(tree.handle.clone())),
            None if child.spec.is_supervisor() => Err(ChildError::OtherKind {
                child: self.full_name(name),
                is: "a supervisor that does not run",
            }),
            _ => Ok(None),
        }
    }

    fn infos(&mut self) -> Vec<ChildInfo> {
        self.roster.history.slide(self.limit, self.now());
        let failures = self.roster.history.failures();
        let info = |member: &Member| ChildInfo {
            name: member.name.to_string(),
            is_supervisor: self.children.get(&member.name).is_some_and(|child| child.spec.is_supervisor()),
            restart: member.restart,
            state: match member.stand {
                Stand::Runs { .. } => ChildState::Running,
                Stand::Waits { until } => ChildState::Waiting { until },
                Stand::Ended => ChildState::Ended,
            },
            restarts: member.restarts,
            last_failure: failures.iter().rev().find(|failure| *failure.child == *member.name).cloned(),
        };
        self.roster.members().iter().map(info).collect()
    }

    fn failures(&mut self) -> Vec<CountedFailure> {
        self.roster.history.slide(self.limit, self.now());
        self.roster.history.failures().to_vec()
    }

    fn child(&self, name: &str) -> Result<&Child, ChildError> {
        self.children.get(name).ok_or_else(|| ChildError::NotFound { child: self.full_name(name) })
    }

    fn forget(&mut self, name: &str) {
        self.children.remove(name);
        self.roster.remove(name);
    }
}
