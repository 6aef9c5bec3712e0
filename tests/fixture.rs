//! Stores written by released versions open in this one, with all that is in them (promise G20). One directory of
//! `tests/fixtures` per format version, never changed once that version is released; in it the same store twice:
//! `closed` after a clean shutdown, and `killed` as a process that was killed would have left it, its end only in the
//! journal.
//!
//! A store's files are pre-written and end in megabytes of zeros. A fixture's do not: the zeros at their ends are cut
//! off, and `LENGTHS` has the length of each, to which the test fills it up again.
//!
//! The fixture of the format that is being worked on is written anew by
//! `STEADFAST_WRITE_FIXTURE=1 cargo test --test fixture`, which then reads it as always.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Address, Cell, CellList, CellMap, Context, Failure, Handler, ManualClock, Message,
    Priority, Reason, RetryPolicy, State, Status, System, Timestamp,
};
use tokio::sync::Notify;

type Checked = Result<(), Box<dyn std::error::Error>>;

// The types stand for those of the program that wrote the fixture: they stay as they are.

/// The clock stood still here while the fixture was written.
const WRITTEN: Timestamp = Timestamp::from_millis(1_767_225_600_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Serialize, Deserialize)]
struct Add {
    what: String,
    amount: u64,
}
impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "fixture.add";
}

#[derive(Serialize, Deserialize)]
struct Note {
    text: String,
}
impl Message for Note {
    type Reply = ();
    const NAME: &'static str = "fixture.note";
}

/// What is in the list [`ORDER`].
#[derive(Serialize, Deserialize)]
struct Lines;
impl Message for Lines {
    type Reply = Vec<String>;
    const NAME: &'static str = "fixture.lines";
}

struct Account;
const TOTAL: Cell<u64> = Cell::new("total", 1);
const BY_NAME: CellMap<String, u64> = CellMap::new("by-name", 1);
const ORDER: CellList<String> = CellList::new("order", 1);

impl Actor for Account {
    const NAME: &'static str = "fixture.account";
    type Messages = (Add, Note, Lines);
}

impl Handler<Add> for Account {
    async fn handle(&mut self, add: Add, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        let traced = ctx.headers().get("traceparent").is_some();
        let total = ctx.state().get(&TOTAL)?.unwrap_or(0) + add.amount;
        ctx.state().set(&TOTAL, &total)?;
        let before = ctx.state().map(&BY_NAME).get(&add.what).await?.unwrap_or(0);
        ctx.state().map(&BY_NAME).insert(&add.what, &(before + add.amount))?;
        let line = if traced { format!("{} (traced)", add.what) } else { add.what };
        ctx.state().list(&ORDER).push(&line).await?;
        Ok(total)
    }
}

impl Handler<Note> for Account {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<(), Failure> {
        match note.text.as_str() {
            "bury" => ctx.bury(b"some bytes".to_vec(), "they are no message"),
            text => {
                let line = format!("{text}, attempt {}", ctx.attempt());
                ctx.state().list(&ORDER).push(&line).await?;
            }
        }
        Ok(())
    }
}

impl Handler<Lines> for Account {
    async fn handle(&mut self, _: Lines, ctx: &mut Context<Self>) -> Result<Vec<String>, Failure> {
        Ok(ctx.state().list(&ORDER).page(0, 100).await?)
    }
}

/// Fails at every note, or writes it down.
struct Stubborn {
    fails: bool,
    tried: Arc<Notify>,
}
impl Actor for Stubborn {
    const NAME: &'static str = "fixture.stubborn";
    type Messages = (Note, Lines);
}
impl Handler<Note> for Stubborn {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.tried.notify_one();
        match self.fails {
            true => Err(Failure::new(format!("no to {}", note.text))),
            false => {
                let line = format!("{}, attempt {}", note.text, ctx.attempt());
                Ok(ctx.state().list(&ORDER).push(&line).await?)
            }
        }
    }
}

impl Handler<Lines> for Stubborn {
    async fn handle(&mut self, _: Lines, ctx: &mut Context<Self>) -> Result<Vec<String>, Failure> {
        Ok(ctx.state().list(&ORDER).page(0, 100).await?)
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Whole {
    words: Vec<String>,
    count: u32,
}
impl Actor for Whole {
    const NAME: &'static str = "fixture.whole";
    type Messages = Note;
    fn state() -> State<Self> {
        State::whole(1)
    }
}
impl Handler<Note> for Whole {
    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<(), Failure> {
        self.words.push(note.text);
        self.count += 1;
        Ok(())
    }
}

fn add(what: &str, amount: u64) -> Add {
    Add { what: what.into(), amount }
}

/// So long that a checkpoint puts it into a page file.
fn long() -> String {
    "long ".repeat(600)
}

fn note(text: &str) -> Note {
    Note { text: text.into() }
}

async fn open(directory: &Path, clock: Arc<ManualClock>) -> Result<System, Box<dyn std::error::Error>> {
    let builder = System::builder().clock(clock).journal_segment(64 << 10).ballast(0).max_message(8 << 10);
    Ok(builder.open(directory).await?)
}

/// An hour lies between two attempts.
fn patient() -> RetryPolicy {
    RetryPolicy::strict().with_backoff(HOUR, 1.0, HOUR).without_jitter()
}

fn stubborn(fails: bool, tried: &Arc<Notify>) -> impl Fn() -> Stubborn + use<> {
    let tried = tried.clone();
    move || Stubborn { fails, tried: tried.clone() }
}

/// Fills a store. When this returns all of it is durable.
async fn fill(system: &System) -> Checked {
    let account = system.spawn("account", || Account).await?;
    account.ask(add("first", 1)).await?;
    account.ask(add("second", 20)).dedup_id("asked-once").await?;
    account.tell(note("bury")).await?;
    let whole = system.spawn("whole", || Whole { words: Vec::new(), count: 0 }).await?;
    whole.ask(note("kept")).await?;
    let tried = Arc::new(Notify::new());
    let hasty = RetryPolicy::immediately(2);
    let doomed = system.spawn("doomed", stubborn(true, &Arc::default())).retry(hasty).await?;
    doomed.tell(note("doomed")).await?;
    let patient = system.spawn("patient", stubborn(true, &tried)).retry(patient()).await?;
    patient.tell(note("once more")).await?;
    tried.notified().await;
    patient.stop().await;
    account.drain().await;
    whole.drain().await;
    doomed.drain().await;

    patient.tell(note("behind it")).await?;
    account.tell(add("third", 300)).header("traceparent", "00-1-2-01").await?;
    account.tell(note("last")).priority(Priority::Low).await?;
    account.tell(add("urgent", 4000)).priority(Priority::High).expires(DAY).await?;
    account.tell(add("sent once", 50_000)).dedup_id("sent-once").await?;
    account.tell(add("later", 600_000)).delay(2 * HOUR).dedup_id("later").await?;
    whole.tell(note("waits")).await?;
    whole.tell(note(&long())).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_format_1_opens_with_everything_in_it() -> Checked {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    if std::env::var_os("STEADFAST_WRITE_FIXTURE").is_some() {
        write(&fixture).await?;
    }
    for name in ["closed", "killed"] {
        let directory = tempfile::tempdir()?;
        restore(&fixture.join(name), directory.path())?;
        check(directory.path()).await.map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

async fn write(fixture: &Path) -> Checked {
    let directory = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::new(WRITTEN, 1));
    let system = open(directory.path(), clock).await?;
    fill(&system).await?;
    // nobody writes just now, so the copy is what a kill would leave
    save(directory.path(), &fixture.join("killed"))?;
    system.shutdown(Duration::from_secs(20)).await?;
    save(directory.path(), &fixture.join("closed"))
}

async fn check(directory: &Path) -> Checked {
    let clock = Arc::new(ManualClock::new(WRITTEN.after(HOUR / 2), 2));
    let system = open(directory, clock.clone()).await?;
    check_mailboxes(&system).await?;
    check_dead_letters(&system).await?;
    check_state(&system).await?;
    check_mail(&system).await?;
    check_schedule_and_retries(&system, &clock).await?;
    system.shutdown(Duration::from_secs(20)).await?;
    // and what this version made of it opens again
    let system = open(directory, clock).await?;
    let account = system.spawn("account", || Account).await?;
    assert_eq!(account.cell(&TOTAL).await?, Some(654_321));
    Ok(system.shutdown(Duration::from_secs(20)).await?)
}

async fn check_mailboxes(system: &System) -> Checked {
    let found = system.mailboxes().page(None, 10).await?;
    let found: Vec<_> = found
        .iter()
        .map(|mailbox| (mailbox.name.as_str(), mailbox.actor.as_str(), mailbox.waiting))
        .collect();
    let expected = [
        ("account", "fixture.account", 4),
        ("doomed", "fixture.stubborn", 0),
        ("patient", "fixture.stubborn", 2),
        ("whole", "fixture.whole", 2),
    ];
    assert_eq!(found, expected);
    Ok(())
}

async fn check_dead_letters(system: &System) -> Checked {
    let buried = system.dead_letters().page(Some("account"), None, 10).await?;
    assert_eq!(buried.len(), 1);
    assert_eq!(buried[0].body, b"some bytes");
    assert_eq!(buried[0].reason, Reason::Buried("they are no message".into()));
    let failed = system.dead_letters().page(Some("doomed"), None, 10).await?;
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].message.as_str(), &failed[0].reason), (Note::NAME, &Reason::AttemptsUsedUp));
    assert_eq!((failed[0].attempts.count, failed[0].at), (2, WRITTEN));
    let errors: Vec<_> = failed[0].attempts.last.iter().map(|attempt| attempt.error.as_str()).collect();
    assert_eq!(errors, ["no to doomed", "no to doomed"]);
    assert_eq!(system.status(failed[0].id.message()).await?, Status::Dead { letter: failed[0].id });
    system.dead_letters().redrive(failed[0].id).await?;
    let doomed = system.spawn("doomed", stubborn(false, &Arc::default())).await?;
    doomed.drain().await;
    let found = system.dead_letters().page(Some("doomed"), None, 10).await?;
    assert!(found.is_empty(), "redriven and handled");
    Ok(())
}

async fn check_state(system: &System) -> Checked {
    let account: ActorRef<Account> = system.bind(&Address::new("account")?).await?;
    assert_eq!(account.cell(&TOTAL).await?, Some(21));
    let entries = account.map_page(&BY_NAME, None, 10).await?;
    assert_eq!(entries, [("first".to_owned(), 1), ("second".to_owned(), 20)]);
    let whole: ActorRef<Whole> = system.bind(&Address::new("whole")?).await?;
    assert_eq!(whole.snapshot().await?, Some(Whole { words: vec!["kept".into()], count: 1 }));
    Ok(())
}

/// What waits is handled in the order of priority and sending; what was deduplicated is not accepted again.
async fn check_mail(system: &System) -> Checked {
    let account = system.spawn("account", || Account).await?;
    assert_eq!(account.ask(add("second", 20)).dedup_id("asked-once").await?, 21, "answered as the first was");
    account.tell(add("sent once", 50_000)).dedup_id("sent-once").await?;
    let whole = system.spawn("whole", || Whole { words: Vec::new(), count: 0 }).await?;
    account.drain().await;
    whole.drain().await;
    let account = system.spawn("account", || Account).await?;
    let expected = ["first", "second", "urgent", "third (traced)", "sent once", "last, attempt 1"];
    assert_eq!(account.ask(Lines).await?, expected);
    assert_eq!(account.cell(&TOTAL).await?, Some(54_321));
    let expected = Whole { words: vec!["kept".into(), "waits".into(), long()], count: 3 };
    assert_eq!(whole.snapshot().await?, Some(expected));
    Ok(())
}

async fn check_schedule_and_retries(system: &System, clock: &ManualClock) -> Checked {
    let account: ActorRef<Account> = system.bind(&Address::new("account")?).await?;
    let later = account.tell(add("later", 600_000)).delay(2 * HOUR).dedup_id("later").await?;
    let patient = system.spawn("patient", stubborn(false, &Arc::default())).retry(patient()).await?;
    assert_eq!(patient.waiting(), 2, "its second attempt comes an hour after the first");
    clock.advance(HOUR);
    patient.drain().await;
    let patient = system.spawn("patient", stubborn(false, &Arc::default())).await?;
    assert_eq!(patient.ask(Lines).await?, ["once more, attempt 2", "behind it, attempt 1"]);
    assert_eq!(system.status(later).await?, Status::Scheduled { due: WRITTEN.after(2 * HOUR) });
    clock.advance(HOUR);
    while system.status(later).await? != Status::Gone {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(account.cell(&TOTAL).await?, Some(654_321));
    account.stop().await;
    Ok(())
}

/// Copies a store as a fixture.
fn save(store: &Path, fixture: &Path) -> Checked {
    if fixture.exists() {
        fs::remove_dir_all(fixture)?;
    }
    fs::create_dir_all(fixture)?;
    let mut lengths = String::new();
    for name in entries(store, Path::new(""))? {
        let shown = name.display().to_string().replace('\\', "/");
        if store.join(&name).is_dir() {
            lengths += &format!("- {shown}\n");
            fs::create_dir_all(fixture.join(&name))?;
            continue;
        }
        let mut bytes = fs::read(store.join(&name))?;
        lengths += &format!("{} {shown}\n", bytes.len());
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        // an empty directory cannot be committed and an empty file need not be: both are in `LENGTHS`
        if !bytes.is_empty() {
            fs::write(fixture.join(&name), bytes)?;
        }
    }
    Ok(fs::write(fixture.join("LENGTHS"), lengths)?)
}

/// Makes a store of a fixture again.
fn restore(fixture: &Path, store: &Path) -> Checked {
    for line in fs::read_to_string(fixture.join("LENGTHS"))?.lines() {
        let (len, name) = line.split_once(' ').ok_or("a line of LENGTHS is no length and name")?;
        if len == "-" {
            fs::create_dir_all(store.join(name))?;
            continue;
        }
        let kept = fixture.join(name);
        let bytes = if kept.exists() { fs::read(kept)? } else { Vec::new() };
        fs::write(store.join(name), bytes)?;
        fs::OpenOptions::new().write(true).open(store.join(name))?.set_len(len.parse()?)?;
    }
    Ok(())
}

/// Files and directories below `directory`, a directory before what is in it; without the lock, which belongs to the
/// process that made it.
fn entries(root: &Path, directory: &Path) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let name = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(entries(root, &name)?);
        }
        if name != Path::new("LOCK") {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}
