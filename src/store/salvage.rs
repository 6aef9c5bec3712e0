//! What is left of a store that does not open: looks through it without changing it, and carries what can be read into a new
//! one.
//!
//! The order in which commits were admitted is the order of the world: a commit may build on any one before it. So the world is
//! carried up to the first hole in it and no further. The engine is the world as of its checkpoint; on it the journal is applied
//! as long as it is an unbroken row of groups that verify. A commit behind a hole is not applied, whole as it may be: a letter
//! in it may be the answer to one that is lost, its acknowledgement may be of a letter that is not there, its state may be
//! computed from what nobody has any more. Such commits are counted, and the original is left as it is for whoever wants to look
//! at them.
//!
//! # Invariants
//! - Nothing is invented: what is carried was written so, verifies, and waits at its own place under its own name.
//! - Nothing that can be read before the first hole is left out.
//! - What is left out is told: by file and place, in positions of messages, in numbers of commits.
//! - The damaged store is not written, not even its lock.
//!
//! Three things are lost differently than a letter is. Of a log whose *cursor* is lost nobody knows what was handled: all that its
//! pages have waits again. A mailbox whose *name* is lost cannot be carried: its number would be given to another. And values that
//! an interrupted checkpoint wrote ahead of the journal stand, also when the journal is damaged behind the checkpoint: what was
//! there before is gone.
//!
//! Where to look: [`source`] what is opened · [`known`] who is there · [`journal`] how far it counts · [`carry`] the engine's
//! part · [`apply`] the journal's · [`count`] what came of it · [`report`] what is told.

mod apply;
mod carry;
mod count;
mod journal;
mod known;
mod pairs;
mod report;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::apply::Apply;
use self::carry::{Carry, Target};
use self::journal::{Plan, Survey};
use self::known::Known;
use self::report::Findings;
pub use self::report::{
    CheckReport, Contents, Finding, LostCommits, LostMessages, MailboxContents, SalvageReport, Severity,
    SubscriptionContents, TopicContents,
};
use self::source::Source;
use super::StoreConfig;
use super::admission::Admission;
use super::backup;
use super::census::Census;
use super::disk::Disk;
use super::engine::Engine;
use super::fault::StoreError;
use super::keys::LogId;
use super::lock::Lock;
use super::manifest::{CleanClose, Manifest};
use super::packer::Packer;
use super::page_files::{self, PageFiles};
use super::recovery::{Place, Replay, Report};
use super::view;
use super::writer::Writer;
use crate::clock::{Clock, SystemClock};

/// What the shelf above knows of its records.
pub(crate) struct Records {
    /// Why a value cannot be read by its owner, if it cannot.
    pub(crate) fault: fn(&[u8], &[u8]) -> Option<String>,
    /// What must lie beside a value, and follows from it.
    pub(crate) companion: fn(&[u8], &[u8]) -> Option<(Vec<u8>, Vec<u8>)>,
    /// The name of the topic whose log has a name.
    pub(crate) topic: fn(&str) -> Option<&str>,
}

/// Looks through the store in a directory; see [`crate::check`].
pub(crate) fn check_directory(path: &Path, records: &Records) -> Result<CheckReport, StoreError> {
    let _lock = must_be_a_directory(path)?;
    let aside = Aside::new(std::env::temp_dir().join(format!("steadfast-check-{}", SystemClock.id())))?;
    let to = Place::directory(&aside.path.join("carried"));
    std::fs::create_dir(aside.path.join("carried"))
        .map_err(|e| StoreError::io(&aside.path, "making a directory for what is carried", e))?;
    check(read_only(path), to, &aside.path, records)
}

/// Carries what can be read of the store in a directory to another; see [`crate::salvage`].
pub(crate) fn salvage_directory(
    path: &Path,
    to: &Path,
    records: &Records,
) -> Result<SalvageReport, StoreError> {
    let _lock = must_be_a_directory(path)?;
    backup::must_be_empty(to, "the directory to salvage to")?;
    let _new_lock = Lock::take(to)?;
    let aside = Aside::new(to.join("aside"))?;
    salvage(read_only(path), Place::directory(to), &aside.path, records)
}

fn must_be_a_directory(path: &Path) -> Result<Option<Lock>, StoreError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Lock::take_to_read(path),
        Ok(_) => Err(StoreError::Foreign { path: path.into(), what: "it is no directory".into() }),
        Err(source) => Err(StoreError::io(path, "looking for the store", source)),
    }
}

fn read_only(path: &Path) -> Place {
    Place { medium: Arc::new(Disk::read_only(path)), ..Place::directory(path) }
}

/// A directory that goes when it is not needed any more.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn new(path: PathBuf) -> Result<Self, StoreError> {
        let mut builder = std::fs::DirBuilder::new();
        // copies of what is in the store are nobody else's to read
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made = builder.create(&path);
        made.map_err(|e| StoreError::io(&path, "making a directory for a copy of the engine", e))?;
        Ok(Aside { path })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a copy of an engine was left behind");
        }
    }
}

/// The same, of a store at any place; `to` is a place that is thrown away.
pub(crate) fn check(
    from: Place,
    to: Place,
    aside: &Path,
    records: &Records,
) -> Result<CheckReport, StoreError> {
    let engine = to.engine.create()?;
    let target = Target { engine, pages: None, census: Census::default() };
    Ok(carry(from, target, aside, records, usize::MAX)?.report)
}

/// The same, from and to any place.
pub(crate) fn salvage(
    from: Place,
    to: Place,
    aside: &Path,
    records: &Records,
) -> Result<SalvageReport, StoreError> {
    backup::begin(&to)?;
    let config = StoreConfig::default();
    let manifest = backup::manifest(&to, 0, config.segment);
    let pages = PageFiles::find(to.medium.clone(), to.root.clone(), manifest.store, config.page_file)?;
    let target = Target { engine: to.engine.create()?, pages: Some(pages), census: Census::default() };
    let carried = carry(from, target, aside, records, config.overlay)?;
    let number = carried.number;
    let manifest = Manifest { checkpoint: number, high_water: number, ..manifest };
    let report = close(&to, manifest, carried)?;
    Ok(SalvageReport { found: report, store: hex(&manifest_store(&to)?) })
}

fn manifest_store(place: &Place) -> Result<[u8; 16], StoreError> {
    let manifest = Manifest::read(&*place.medium, &place.root)?;
    Ok(manifest.map(|manifest| manifest.store).unwrap_or_default())
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was carried, with the part of the journal that is still in memory.
struct Carried {
    report: CheckReport,
    admission: Admission,
    target: Target,
    /// Above every number that was ever given.
    number: u64,
}

/// No commit gets a number near this; what only claims to have one must not leave later ones without.
const HIGHEST: u64 = 1 << 62;

/// Looks through a store and carries what can be read, holding about `spill_at` bytes of the journal in memory.
fn carry(
    from: Place,
    mut target: Target,
    aside: &Path,
    records: &Records,
    spill_at: usize,
) -> Result<Carried, StoreError> {
    let mut findings = Findings::new(from.root.clone());
    let source = Source::open(from, aside, &mut findings)?;
    let mut known = source.engine.as_ref().map(|engine| Known::read(&**engine, records)).unwrap_or_default();
    let mut plan = survey(&source, &known, &mut findings)?;
    let pages = old_pages(&source, &mut findings);
    let mut report = report_of(&source, &plan);
    if let Some(engine) = &source.engine {
        let name = source.engine_name();
        let mut carry =
            Carry::new(&**engine, pages.as_ref(), &mut target, &known, &plan, records, &mut findings, name);
        carry.run()?;
        (report.keys, report.pages) = (carry.key_count, carry.page_count);
        compare(&source, &**engine, &mut findings);
    }
    let admission = apply(&source, &mut target, &mut known, &mut plan, spill_at, &mut findings, &mut report)?;
    let highest = known.cursors.values().map(|cursor| cursor.as_of).max().unwrap_or(0);
    report.contents = count::contents(&*target.engine, &admission, &known, records)?;
    report.last_commit = plan.last;
    report.lost_commits = plan.lost;
    report.findings = findings.all;
    report.lost_messages = findings.messages;
    Ok(Carried { report, admission, target, number: plan.seen.max(plan.last).max(highest).min(HIGHEST) })
}

fn survey(source: &Source, known: &Known, findings: &mut Findings) -> Result<Plan, StoreError> {
    let base = match (&source.engine, &source.census) {
        (None, _) => Some(0),
        (Some(_), Some((number, _))) => Some(*number),
        (Some(_), None) => source.manifest.as_ref().map(|manifest| manifest.checkpoint),
    };
    let as_of = |log: LogId| known.cursors.get(&log).map_or(0, |cursor| cursor.as_of);
    Survey::new(source, base, &as_of, findings).run()
}

/// The page files there are.
fn old_pages(source: &Source, findings: &mut Findings) -> Option<PageFiles> {
    let place = &source.place;
    let store = source.manifest.as_ref().map(|manifest| manifest.store).unwrap_or_default();
    let size = StoreConfig::default().page_file;
    let pages = match PageFiles::find(place.medium.clone(), place.root.clone(), store, size) {
        Ok(pages) => pages,
        Err(why) => {
            findings.loss(page_files::DIR, "", source::told(&why));
            return None;
        }
    };
    let accounts = source.census.iter().flat_map(|(_, census)| census.accounts().iter());
    for (file, account) in accounts.filter(|_| source.manifest.is_some()) {
        if let Err(why) = pages.check_file(file, account.end) {
            let what = format!("{}; each page in it is looked at by itself", source::told(&why));
            findings.note(&page_files::name(file), "", what);
        }
    }
    Some(pages)
}

fn report_of(source: &Source, plan: &Plan) -> CheckReport {
    let manifest = source.manifest.as_ref();
    let was_opened = source.place.engine.was_opened_since_close().unwrap_or(true);
    CheckReport {
        format: manifest.map(|manifest| manifest.format),
        store: if plan.store == [0; 16] { String::new() } else { hex(&plan.store) },
        engine: source.engine_name().into(),
        closed_cleanly: manifest.is_some_and(|manifest| manifest.clean.is_some()) && !was_opened,
        checkpoint: plan.base,
        segments: plan.segments,
        ..CheckReport::default()
    }
}

/// What the engine says to hold, against what it holds.
fn compare(source: &Source, engine: &dyn Engine, findings: &mut Findings) {
    let name = source.engine_name();
    let Some((number, census)) = &source.census else {
        let what = "the record of the last checkpoint cannot be read: what the engine must hold is not known";
        return findings.loss(name, "", what);
    };
    let least = source.manifest.as_ref().map_or(0, |manifest| manifest.checkpoint);
    if *number < least {
        let what =
            format!("it ends at commit {number}, and {least} was checkpointed: it is older than it was");
        findings.loss(name, "", what);
    }
    let counted = source::count(engine);
    for (class, expected, found) in census.differences(&counted).filter(|(class, ..)| *class != 0) {
        let place = format!("values of class {class:02x} ({})", carry::of_class(class));
        if found < expected {
            findings.loss(name, place, format!("{expected} must be there, {found} can be read"));
        } else if !findings.has_loss_in(name) {
            let what = format!("{expected} must be there and {found} are, not all as they were written last");
            findings.doubt(name, place, what, "Compare what matters with what is known elsewhere");
        }
    }
}

/// Applies what counts of the journal.
fn apply(
    source: &Source,
    target: &mut Target,
    known: &mut Known,
    plan: &mut Plan,
    spill_at: usize,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<Admission, StoreError> {
    let config = StoreConfig::default();
    let manifest = backup::manifest(&source.place, plan.base, config.segment);
    let none;
    let pages = match &target.pages {
        Some(pages) => pages,
        // nothing is moved there: all of the journal stays in memory
        None => {
            none = PageFiles::nowhere(source.place.medium.clone(), source.place.root.clone());
            &none
        }
    };
    let mut replay = Replay {
        place: &source.place,
        manifest: &manifest,
        engine: &*target.engine,
        pages,
        admission: Admission::new(config.bounds()?, plan.base),
        census: std::mem::take(&mut target.census),
        spill_at,
        report: Report::default(),
    };
    Apply::new(source, &mut replay, known, findings).run(plan)?;
    report.commits = replay.report.commits;
    let Replay { mut admission, census, .. } = replay;
    target.census = census;
    put_views_back(&mut admission, known, findings);
    Ok(admission)
}

/// A reader that has come further than its topic reaches is proof of events that are lost: their numbers are not given again.
fn put_views_back(admission: &mut Admission, known: &Known, findings: &mut Findings) {
    while let Some(view) = admission.view_beyond_its_log() {
        let Some(record) = known.views.get(&view) else { break };
        let reader = LogId { mailbox: view, lane: view::LANE };
        let front =
            admission.mailboxes.get(&view).map_or(0, |state| state.lanes[usize::from(view::LANE)].front);
        let Some(shown) = admission.mailboxes.get_mut(&record.of.mailbox) else { break };
        let cursor = &mut shown.lanes[usize::from(record.of.lane)];
        let next = cursor.next;
        if next >= front {
            break;
        }
        cursor.next = front;
        cursor.give_up(next, front);
        admission.touch(record.of);
        admission.advance_views(record.of, front);
        admission.touch(reader);
        let what = format!("events {next} to {} were read and are lost", front - 1);
        let place = format!("topic {}", known.name(record.of.mailbox));
        findings.doubt("journal", place, what, "Nothing needs to be done for those who had read them");
    }
}

/// Writes what is still in memory, and makes it a store that was closed.
fn close(to: &Place, manifest: Manifest, carried: Carried) -> Result<CheckReport, StoreError> {
    let Carried { report, mut admission, target, number } = carried;
    let Target { engine, pages, census } = target;
    let pages = pages.ok_or(StoreError::Closed)?;
    admission.last = number;
    let frozen = admission.freeze();
    let packed = Arc::new(Packer::new(frozen.clone()).pack(&*engine, &census, &pages)?);
    let before = Census::read(&*engine)?.0;
    let census = Writer::new(frozen, census, before, packed).write_all(&*engine)?;
    pages.sync()?;
    let synced = to.medium.sync_dir(page_files::DIR);
    synced.map_err(|e| StoreError::io(to.root.join(page_files::DIR), "writing pages", e))?;
    let living = census.accounts().iter().map(|(file, account)| (file, account.end)).collect();
    let seal = engine.close()?;
    backup::end(to, Manifest { clean: Some(CleanClose { last: number, seal, pages: living }), ..manifest })?;
    Ok(report)
}
