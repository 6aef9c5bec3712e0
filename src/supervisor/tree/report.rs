//! What a supervisor says of what it decides: to the log, for who reads it at night, and to the observer.

use super::super::handle::SupervisorExit;
use super::super::history::CountedFailure;
use super::super::roster::{Round, Why};
use super::Tree;
use crate::clock::Timestamp;
use crate::observe::Event;

impl Tree {
    pub(super) fn give_up(&self, name: &str, why: &Why, now: Timestamp) -> SupervisorExit {
        let (max, within) = (self.limit.max(), self.limit.within());
        tracing::error!(
            supervisor = self.path(),
            child = name,
            why = why.text,
            message_id = why.message.map(tracing::field::display),
            "more than {max} failures within {within:?}: the supervisor stops its children and fails"
        );
        self.handle.runtime.observer.event(&Event::RestartLimitExceeded {
            supervisor: self.path(),
            child: name,
            why: &why.text,
            message: why.message,
            limit: max,
            within,
        });
        let last = CountedFailure::new(now, name, why.message, &why.text);
        SupervisorExit::LimitExceeded { limit: self.limit, last }
    }

    pub(super) fn report_restart(&self, name: &str, why: &Why, round: &Round, now: Timestamp) {
        let (after, in_window) = (round.at.since(now), self.roster.in_window());
        tracing::warn!(
            supervisor = self.path(), child = name, why = why.text, message_id = why.message.map(tracing::field::display),
            start = ?round.start, ?after, "the child ended and is started again; {in_window} of {} failures within {:?}",
            self.limit.max(), self.limit.within()
        );
        self.handle.runtime.observer.event(&Event::ChildRestarted {
            supervisor: self.path(),
            child: name,
            why: &why.text,
            message: why.message,
            in_window: u32::try_from(in_window).unwrap_or(u32::MAX),
            limit: self.limit.max(),
            after,
        });
    }

    pub(super) fn report_end(&self, exit: &SupervisorExit) {
        if exit.is_normal() || *exit == SupervisorExit::StoreFailed {
            tracing::debug!(supervisor = self.path(), why = %exit, "ended");
        } else if self.is_root {
            let (why, supervisor) = (exit.to_string(), self.path());
            tracing::error!(
                supervisor,
                why,
                "the tree is down and its mail waits, until it is supervised again; what failed within {:?} still counts then",
                self.limit.within()
            );
            self.handle.runtime.observer.event(&Event::SupervisorDown { supervisor, why: &why });
        } else {
            tracing::error!(supervisor = self.path(), why = %exit, "the supervisor failed; its parent decides");
        }
    }
}
