//! Applies to a fresh engine what counts of the journal.
//!
//! # Invariants
//! - A group is applied wholly or not at all; with one that cannot be, the row of commits ends.
//! - What a commit did to a log that is lost is left out; the rest of the commit stands.

use std::collections::BTreeMap;

use super::super::admission::Admission;
use super::super::fault::StoreError;
use super::super::group::{self, GroupHeader, Replayed, u32_at};
use super::super::keys::{self, LANES, LogId, MailboxId, class};
use super::super::recovery::Replay;
use super::super::segment::{self, SegmentBytes};
use super::super::view;
use super::journal::Plan;
use super::known::Known;
use super::report::{Findings, LostCommits};
use super::source::Source;

/// See the module's head.
pub(super) struct Apply<'a, 'b> {
    pub(super) source: &'a Source,
    pub(super) replay: &'a mut Replay<'b>,
    pub(super) known: &'a mut Known,
    pub(super) findings: &'a mut Findings,
    /// Messages for mailboxes whose name is lost.
    left_out: BTreeMap<MailboxId, u64>,
}

type Ops = Vec<(u32, Replayed)>;

impl<'a, 'b> Apply<'a, 'b> {
    pub(super) fn new(
        source: &'a Source,
        replay: &'a mut Replay<'b>,
        known: &'a mut Known,
        findings: &'a mut Findings,
    ) -> Self {
        Apply { source, replay, known, findings, left_out: BTreeMap::new() }
    }

    pub(super) fn run(mut self, plan: &mut Plan) -> Result<(), StoreError> {
        let mut last = plan.base;
        'row: for (id, begin, end) in &plan.parts {
            let place = &self.source.place;
            let Ok(bytes) = SegmentBytes::read(&*place.medium, &place.root, *id) else {
                self.cut(plan.last, &segment::name(*id), last);
                break;
            };
            let mut offset = *begin;
            while offset < *end {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let group = bytes.bytes.get(start..);
                let group = group.and_then(|rest| GroupHeader::verify(&plan.store, *id, rest));
                let body = group
                    .as_ref()
                    .and_then(|(_, body)| bytes.bytes.get(start + body.start..start + body.end));
                let Some((header, body)) = group.as_ref().map(|(header, _)| header).zip(body) else {
                    self.cut(plan.last, &segment::name(*id), last);
                    break 'row;
                };
                if header.last() > plan.base && !self.group(plan.base, header, body.to_vec())? {
                    self.cut(plan.last, &segment::name(*id), last);
                    break 'row;
                }
                last = last.max(header.last());
                offset = segment::after(offset, header);
            }
        }
        if last < plan.last {
            let until = plan.seen;
            plan.lost = Some(LostCommits { after: last, until, readable: 0, messages: 0 });
        }
        plan.last = last;
        for (mailbox, messages) in &self.left_out {
            let what = format!("its name is lost, and with it {messages} messages that the journal has");
            self.findings.loss("journal", format!("mailbox number {mailbox}"), what);
        }
        Ok(())
    }

    fn cut(&mut self, until: u64, file: &str, last: u64) {
        let what = format!("commits {} to {until} verify and cannot be applied", last + 1);
        self.findings.loss(file, "", what);
    }

    /// False when it cannot have been written after what was applied so far.
    fn group(&mut self, base: u64, header: &GroupHeader, body: Vec<u8>) -> Result<bool, StoreError> {
        let mut ops = Ops::new();
        if group::decode_commits(&body, header.commits, |commit, op| ops.push((commit, op))).is_none() {
            return Ok(false);
        }
        ops.retain(|(commit, _)| header.first + u64::from(*commit) > base);
        self.meet(&ops, &body);
        ops.retain(|(_, op)| self.is_carried(op, &body));
        for (_, op) in &ops {
            match op {
                Replayed::Append { log, .. }
                | Replayed::Settle { log, .. }
                | Replayed::Trim { log, .. }
                | Replayed::Seek { log, .. } => drop(self.replay.load(log.mailbox)?),
                Replayed::Put { key, value } if body.get(key.start) == Some(&class::VIEW) => {
                    let is_view = key.len() == 5
                        && view::ViewRecord::decode(&body[key.clone()], &body[value.clone()]).is_ok();
                    if !is_view {
                        return Ok(false);
                    }
                    self.replay.load_view(&body[key.clone()], &body[value.clone()])?;
                }
                Replayed::Put { .. } | Replayed::Delete { .. } => {}
            }
        }
        if !could_be_written(&self.replay.admission, header, &ops, &body) {
            return Ok(false);
        }
        self.replay.report.commits += u64::from(header.commits);
        let replayed = self.replay.admission.replay(header, body, ops);
        self.replay.spill()?;
        Ok(replayed.is_some())
    }

    /// Who is new in a group.
    fn meet(&mut self, ops: &Ops, body: &[u8]) {
        for (_, op) in ops {
            let Replayed::Put { key, value } = op else { continue };
            let (key, value) = (&body[key.clone()], &body[value.clone()]);
            let Some(id) = u32_at(key, 1) else { continue };
            match key.first() {
                Some(&class::MAILBOX) => {
                    self.known.names.insert(id, String::from_utf8_lossy(value).into_owned());
                    self.known.recorded.insert(id);
                }
                Some(&class::VIEW) => {
                    if let Ok(record) = view::ViewRecord::decode(key, value)
                        && self.known.has(record.of.mailbox)
                        && record.reader.is_none_or(|reader| self.known.has(reader))
                    {
                        self.known.views.insert(id, record);
                    }
                }
                _ => {}
            }
        }
    }

    fn is_carried(&mut self, op: &Replayed, body: &[u8]) -> bool {
        let mailbox = match op {
            Replayed::Append { log, .. }
            | Replayed::Settle { log, .. }
            | Replayed::Trim { log, .. }
            | Replayed::Seek { log, .. } => log.mailbox,
            Replayed::Put { key, .. } | Replayed::Delete { key } => {
                let key = &body[key.clone()];
                let class = key.first().copied().unwrap_or(0);
                let has_owner = (class::CELL..=class::SUSPECT).contains(&class)
                    || [class::DEAD, class::PATTERN, class::VIEW, class::READING].contains(&class);
                match u32_at(key, 1).filter(|_| has_owner) {
                    Some(mailbox) => mailbox,
                    None => return true,
                }
            }
        };
        let is_known = self.known.has(mailbox);
        if !is_known {
            *self.left_out.entry(mailbox).or_default() += u64::from(matches!(op, Replayed::Append { .. }));
        }
        is_known
    }
}

/// Whether the replay takes all of a group: it is asked first, for it must not take a part.
fn could_be_written(admission: &Admission, header: &GroupHeader, ops: &Ops, body: &[u8]) -> bool {
    let mut nexts: BTreeMap<LogId, u64> = BTreeMap::new();
    ops.iter().all(|(commit, op)| match op {
        Replayed::Append { log, position, .. } => {
            let Some(state) = admission.mailboxes.get(&log.mailbox) else { return true };
            let Some(cursor) =
                state.lanes.get(usize::from(log.lane)).filter(|_| usize::from(log.lane) < LANES)
            else {
                return false;
            };
            if header.first + u64::from(*commit) <= cursor.as_of {
                return true;
            }
            let next = nexts.entry(*log).or_insert(cursor.next);
            let is_new = *position >= *next && *position < u64::MAX - 1 && !log.is_shown();
            *next = position.saturating_add(1);
            is_new
        }
        Replayed::Put { key, .. } | Replayed::Delete { key } => keys::is_of_a_commit(&body[key.clone()]),
        _ => true,
    })
}
