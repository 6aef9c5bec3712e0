//! The shelves of the crate, read from its source: a module names only modules on lower shelves, and what
//! belongs to one place (the clock, spawning, the format, the engine) is named in that place alone.
//!
//! # Invariants
//! - Every rule is a row in a table below; an exception is a row with its reason.
//! - Every fault of a run is reported, not the first one only.
//! - What only tests compile (`#[cfg(test)]`, `#[cfg(all(test, ..))]`) is not looked at, nor are comments and
//!   strings.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest shelf to the highest. A module may name those on shelves above it in this list, never one
/// beside it or below it in the list. `lib` is the crate root: it may name all, and nobody names it.
const SHELVES: &[(&str, &[&str])] = &[
    ("ground", &["clock", "codec", "sync"]),
    // drawn beside them: it is made of their types
    ("envelope", &["envelope"]),
    // below the store, though drawn beside it: the store tells an observer what happened and asks a policy
    // how long to wait, and modules on one shelf do not know each other
    ("listen and judge", &["policy", "observe"]),
    ("store", &["store"]),
    ("error", &["error"]),
    ("durable", &["durable"]),
    ("actor", &["actor"]),
    ("entity", &["entity"]),
    ("supervisor", &["supervisor"]),
    ("flow", &["topic", "task", "workflow", "stream", "cron"]),
    ("system", &["system"]),
    ("edge", &["webhook", "http", "brokers", "metrics", "console"]),
    // compiled with `--cfg fuzzing` alone
    ("testkit", &["testkit", "fuzz"]),
];

/// Imports that break the order of the shelves, each with the reason why it may: (who, whom, why).
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// What one place owns: the name, and the modules that may say it (with what is inside them).
struct Owned {
    what: Name,
    owners: &'static [&'static str],
    why: &'static str,
}

/// How a path is recognised.
enum Name {
    /// Two segments that follow one another anywhere in a path: `SystemTime::now`.
    Pair(&'static str, &'static str),
    /// The first segment, which is then a crate: `bincode`.
    Crate(&'static str),
    /// A method that is called: `.spawn(`.
    Method(&'static str),
}

const CLOCK: &str = "only clock reads the time and draws ids: ask a Clock, so that a seed replays";
const SPAWN: &str = "only those who start actors spawn tasks";

/// What engines are wrapped in bounds how long it waits for the operating system's lock: no clock of ours moves that.
const TIME_OWNERS: &[&str] = &["clock", "store::hardened"];
const SPAWN_OWNERS: &[&str] =
    &["actor::crew", "actor::start", "entity", "supervisor::tree", "system", "testkit", "topic::ephemeral"];
/// The store has threads, not tasks: one that commits, and one on which the engine opens, so that a hang or a
/// panic there is contained. So has the watchdog: what it looks for may hold every thread of the runtime. A method `spawn` is a
/// thread's builder there and a task's runtime elsewhere.
const THREAD_OWNERS: &[&str] = &[
    "actor::crew",
    "actor::start",
    "actor::watchdog",
    "entity",
    "supervisor::tree",
    "system",
    "testkit",
    "topic::ephemeral",
    "store::committer",
    "store::driver",
    "store::hardened",
];

const OWNED: &[Owned] = &[
    Owned { what: Name::Pair("SystemTime", "now"), owners: &["clock"], why: CLOCK },
    Owned { what: Name::Pair("Instant", "now"), owners: TIME_OWNERS, why: CLOCK },
    Owned { what: Name::Pair("Uuid", "now_v7"), owners: &["clock"], why: CLOCK },
    Owned { what: Name::Pair("Uuid", "new_v4"), owners: &["clock"], why: CLOCK },
    Owned { what: Name::Pair("tokio", "spawn"), owners: SPAWN_OWNERS, why: SPAWN },
    Owned { what: Name::Pair("task", "spawn"), owners: SPAWN_OWNERS, why: SPAWN },
    Owned { what: Name::Pair("Handle", "spawn"), owners: SPAWN_OWNERS, why: SPAWN },
    Owned { what: Name::Pair("thread", "spawn"), owners: THREAD_OWNERS, why: SPAWN },
    Owned { what: Name::Method("spawn"), owners: THREAD_OWNERS, why: SPAWN },
    Owned {
        what: Name::Crate("signal_hook"),
        owners: &["store::last_words"],
        why: "signals belong to the process: one place deals with them",
    },
    Owned { what: Name::Crate("bincode"), owners: &["codec"], why: "the format is named in codec alone" },
    Owned {
        what: Name::Crate("sled"),
        // `store` itself declares the module of that name, and there `sled::` means the module
        owners: &["store::sled", "store="],
        why: "an engine's types stay in its own file",
    },
    Owned {
        what: Name::Crate("redb"),
        owners: &["store::redb", "store="],
        why: "an engine's types stay in its own file",
    },
];

#[test]
fn modules_know_only_lower_shelves_and_leave_to_others_what_is_theirs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let faults = check_tree(&src);
    let list = faults.iter().map(|fault| format!("  {fault}\n")).collect::<String>();
    assert!(faults.is_empty(), "{} faults against the architecture:\n{list}", faults.len());
}

#[derive(Debug, PartialEq, Eq)]
struct Fault {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

fn check_tree(src: &Path) -> Vec<Fault> {
    let files = sources(src);
    assert!(files.iter().any(|file| file.ends_with("lib.rs")), "no lib.rs under {}", src.display());
    let read: Vec<_> = files.iter().map(|file| (relative(src, file), read(file))).collect();
    let for_tests: BTreeSet<_> = read.iter().flat_map(|(name, text)| test_only_modules(name, text)).collect();
    let compiled = |name: &str| !starts_with_any(&module_of(name), &for_tests);
    read.iter().filter(|(name, _)| compiled(name)).flat_map(|(name, text)| check_file(name, text)).collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(src: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(src).expect("it was listed under src");
    inside.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// `store/sled/mod.rs` and `store/sled.rs` are both `[store, sled]`; the root is empty.
fn module_of(name: &str) -> Vec<String> {
    let path = name.strip_suffix(".rs").unwrap_or(name);
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

fn starts_with_any(module: &[String], prefixes: &BTreeSet<Vec<String>>) -> bool {
    prefixes.iter().any(|prefix| module.starts_with(prefix))
}

/// The modules that `#[cfg(test)] mod name;` keeps in files of their own.
fn test_only_modules(name: &str, text: &str) -> Vec<Vec<String>> {
    let (_, cut) = without_tests(tokens(text));
    let here = module_of(name);
    cut.into_iter().map(|child| here.iter().cloned().chain([child]).collect()).collect()
}

fn check_file(name: &str, text: &str) -> Vec<Fault> {
    let module = module_of(name);
    let (tokens, _) = without_tests(tokens(text));
    let paths = paths(&tokens);
    let mut faults = Vec::new();
    let mut report = |line, what| faults.push(Fault { file: format!("src/{name}"), line, what });
    for path in &paths {
        if let Some(what) = shelf_fault(&module, path) {
            report(path.line, what);
        }
        for owned in OWNED.iter().filter(|owned| is_taken(owned, &module, path)) {
            report(path.line, format!("`{path}`: {}", owned.why));
        }
    }
    for line in features_inside_code(&tokens) {
        report(line, "a feature is asked for beside `mod` or `use` only, not inside code".to_owned());
    }
    if module.len() == 1 && shelf_of(&module[0]).is_none() {
        report(1, format!("module `{}` is on no shelf: give it one in tests/architecture.rs", module[0]));
    }
    faults.sort_by_key(|fault| fault.line);
    faults.dedup();
    faults
}

fn shelf_of(module: &str) -> Option<usize> {
    SHELVES.iter().position(|(_, modules)| modules.contains(&module))
}

fn shelf_fault(from: &[String], path: &NamedPath) -> Option<String> {
    let (me, other) = (from.first()?, reached(from, path)?);
    if me == other || EXCEPTIONS.iter().any(|(who, whom, _)| who == me && whom == other) {
        return None;
    }
    let Some(there) = shelf_of(other) else {
        // through `super` the name may be anything of an enclosing inline module
        let root = path.segments[0] == "crate";
        return root.then(|| format!("`{path}` goes through the crate root: name the module it lives in"));
    };
    let here = shelf_of(me)?;
    let (mine, its) = (SHELVES[here].0, SHELVES[there].0);
    match there.cmp(&here) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(format!("`{path}`: `{me}` and `{other}` share the shelf `{mine}`")),
        std::cmp::Ordering::Greater => Some(format!("`{path}`: `{me}` ({mine}) is below `{other}` ({its})")),
    }
}

/// The top module a path leads to, if it leads there from the crate root.
fn reached<'a>(from: &[String], path: &'a NamedPath) -> Option<&'a String> {
    let ups = path.segments.iter().take_while(|segment| *segment == "super").count();
    match path.segments[0].as_str() {
        "crate" => path.segments.get(1),
        "super" if ups >= from.len() => path.segments.get(ups),
        _ => None,
    }
}

fn is_taken(owned: &Owned, module: &[String], path: &NamedPath) -> bool {
    let named = match owned.what {
        Name::Pair(first, second) => path.segments.windows(2).any(|pair| pair == [first, second]),
        Name::Crate(name) => path.place == Place::Head && path.segments[0] == name,
        Name::Method(name) => path.place == Place::Method && path.segments[0] == name,
    };
    named && !owned.owners.iter().any(|owner| owns(owner, module))
}

/// `store::sled` speaks for itself, `store::sled::open` and `store::sled_open`; `store=` for itself alone.
fn owns(owner: &str, module: &[String]) -> bool {
    let module = module.join("::");
    let inside = |rest: &str| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_');
    match owner.strip_suffix('=') {
        Some(alone) => module == alone,
        None => module.strip_prefix(owner).is_some_and(inside),
    }
}

/// A path as it is written, or one leaf of a group of imports.
#[derive(Debug)]
struct NamedPath {
    segments: Vec<String>,
    line: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Method,
}

impl fmt::Display for NamedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.place == Place::Method { "." } else { "" };
        write!(f, "{dot}{}", self.segments.join("::"))
    }
}

/// Every path, groups spread out: `use crate::{a, b::{c, d}}` gives `crate::a`, `crate::b::c`, `crate::b::d`.
fn paths(tokens: &[Token]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(&tokens[at].text) && !is_keyword(&tokens[at].text) && !goes_on(tokens, at) {
            let place = if at > 0 && tokens[at - 1].text == "." { Place::Method } else { Place::Head };
            at = spread(tokens, at, &[], place, &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Whether the name at `at` is the rest of a path begun before, as `now` in `<T>::now`.
fn goes_on(tokens: &[Token], at: usize) -> bool {
    let back = |by: usize| at.checked_sub(by).map_or("", |at| tokens[at].text.as_str());
    let arrow = ["-", "="].contains(&back(3));
    back(1) == "::" && (back(2) == ">" && !arrow || is_name(back(2)) && !is_keyword(back(2)))
}

fn spread(tokens: &[Token], at: usize, prefix: &[String], place: Place, found: &mut Vec<NamedPath>) -> usize {
    let line = tokens[at].line;
    let mut segments = prefix.to_vec();
    let mut at = at;
    loop {
        match tokens.get(at).map(|token| token.text.as_str()) {
            Some("{") if segments.len() > prefix.len() || !prefix.is_empty() => {
                return spread_group(tokens, at + 1, &segments, place, found);
            }
            Some(name) if is_name(name) || name == "*" => segments.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    found.push(NamedPath { segments, line, place });
    at
}

fn spread_group(
    tokens: &[Token],
    at: usize,
    prefix: &[String],
    place: Place,
    found: &mut Vec<NamedPath>,
) -> usize {
    let mut at = at;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            // the new name of `a as b` is no path
            "as" => at += 2,
            name if is_name(name) || name == "*" => at = spread(tokens, at, prefix, place, found),
            _ => at += 1,
        }
    }
    at
}

/// The lines where a feature is asked for anywhere but in an attribute of a `mod` or a `use`.
fn features_inside_code(tokens: &[Token]) -> Vec<usize> {
    let asks = |at: usize| tokens[at].text == "feature" && tokens.get(at + 1).is_some_and(|t| t.text == "=");
    let declares = |at: usize| match attribute_around(tokens, at) {
        Some(end) => ["mod", "use"].contains(&item_keyword(tokens, end)),
        None => false,
    };
    (0..tokens.len()).filter(|at| asks(*at) && !declares(*at)).map(|at| tokens[at].line).collect()
}

/// Where the outer attribute that holds the token at `at` ends, if one does.
fn attribute_around(tokens: &[Token], at: usize) -> Option<usize> {
    let start = (0..at).rev().find(|i| tokens[*i].text == "#")?;
    let end = attribute_end(tokens, start)?;
    (end > at).then_some(end)
}

/// The keyword of the item behind its attributes and its visibility.
fn item_keyword(tokens: &[Token], at: usize) -> &str {
    let mut at = at;
    while let Some(token) = tokens.get(at) {
        at = match token.text.as_str() {
            "#" => attribute_end(tokens, at).unwrap_or(at + 1),
            "pub" => at + 1,
            "(" => closing(tokens, at) + 1,
            "async" | "const" | "unsafe" if tokens.get(at + 1).is_some_and(|t| t.text == "fn") => at + 1,
            keyword => return keyword,
        };
    }
    ""
}

/// Behind `#[..]` (or `#![..]`) that starts at `at`.
fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let inner = usize::from(tokens.get(at + 1)?.text == "!");
    let open = at + 1 + inner;
    (tokens.get(open)?.text == "[").then(|| closing(tokens, open) + 1)
}

/// The bracket that closes the one at `open`, or the last token.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

/// The tokens without the items that only tests compile, and the names of the modules among those that live
/// in files of their own.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut cut, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        match attribute_end(&tokens, at).filter(|end| only_for_tests(&tokens[at..*end])) {
            Some(_) if tokens[at + 1].text == "!" => return (Vec::new(), cut),
            Some(end) if is_item(item_keyword(&tokens, end)) => {
                let last = item_end(&tokens, end);
                if tokens[last].text == ";" && item_keyword(&tokens, end) == "mod" {
                    cut.push(tokens[last - 1].text.clone());
                }
                at = last + 1;
            }
            _ => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    (kept, cut)
}

/// `any` and `not` may hold without a test: what they guard is looked at.
fn only_for_tests(attribute: &[Token]) -> bool {
    let has = |name: &str| attribute.iter().any(|token| token.text == name);
    attribute[0].text == "#" && has("cfg") && has("test") && !has("any") && !has("not")
}

fn is_item(keyword: &str) -> bool {
    ["mod", "use", "fn", "impl", "struct", "enum", "trait", "const", "static", "type"].contains(&keyword)
}

fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut at = at;
    let ends_with_brace = !["use", "const", "static", "type"].contains(&item_keyword(tokens, at));
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at,
            "{" if ends_with_brace => return closing(tokens, at),
            "(" | "[" | "{" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

fn is_keyword(text: &str) -> bool {
    ["use", "in", "return", "as", "else", "match", "if", "mut", "ref", "dyn", "impl", "for", "where"]
        .contains(&text)
}

/// Names, `::`, and single characters; comments are left out, a literal is one token without its content.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let (kind, end) = lexeme(&chars, at);
        if kind != Lexeme::Nothing {
            let text = if kind == Lexeme::Literal { "0".to_owned() } else { chars[at..end].iter().collect() };
            found.push(Token { text, line });
        }
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lexeme {
    Nothing,
    Literal,
    Text,
}

fn lexeme(chars: &[char], at: usize) -> (Lexeme, usize) {
    let peek = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    match (peek(0), peek(1)) {
        ('/', '/') => (Lexeme::Nothing, at + line_length(&chars[at..])),
        ('/', '*') => (Lexeme::Nothing, at + block_comment_length(&chars[at..])),
        ('"', _) => (Lexeme::Literal, quoted_end(chars, at, '"')),
        ('b' | 'c', '"') => (Lexeme::Literal, quoted_end(chars, at + 1, '"')),
        ('b', '\'') => (Lexeme::Literal, quoted_end(chars, at + 1, '\'')),
        ('\'', '\\') => (Lexeme::Literal, quoted_end(chars, at, '\'')),
        ('\'', _) if peek(2) == '\'' => (Lexeme::Literal, at + 3),
        ('\'', _) => (Lexeme::Literal, word_end(chars, at + 1)),
        ('r', '"' | '#') | ('b' | 'c', 'r') => match raw_end(chars, at) {
            Some(end) => (Lexeme::Literal, end),
            None => (Lexeme::Text, word_end(chars, at)),
        },
        (':', ':') => (Lexeme::Text, at + 2),
        (first, _) if first.is_numeric() => (Lexeme::Literal, word_end(chars, at)),
        (first, _) if first == '_' || first.is_alphabetic() => (Lexeme::Text, word_end(chars, at)),
        (first, _) if first.is_whitespace() => (Lexeme::Nothing, at + 1),
        _ => (Lexeme::Text, at + 1),
    }
}

fn line_length(chars: &[char]) -> usize {
    chars.iter().position(|c| *c == '\n').unwrap_or(chars.len())
}

fn block_comment_length(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn word_end(chars: &[char], at: usize) -> usize {
    let rest = chars[at..].iter().position(|c| *c != '_' && !c.is_alphanumeric());
    rest.map_or(chars.len(), |length| at + length)
}

/// The end of a raw string (`r"`, `r#"`, `br"`, ..) that starts at `at`; none for a raw identifier.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let r = at + usize::from(chars[at] != 'r');
    let hashes = chars[r + 1..].iter().take_while(|c| **c == '#').count();
    let open = r + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: &usize| {
        chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    Some((open + 1..chars.len()).find(closes).map_or(chars.len(), |quote| quote + 1 + hashes))
}

mod the_checker {
    use super::*;

    /// The faults of one planted file, as `line: words`.
    fn faults(name: &str, text: &str) -> Vec<(usize, String)> {
        check_file(name, text).into_iter().map(|fault| (fault.line, fault.what)).collect()
    }

    fn assert_one(name: &str, text: &str, line: usize, words: &str) {
        let found = faults(name, text);
        assert_eq!(found.len(), 1, "one fault was planted in {text:?}, found {found:?}");
        assert_eq!(found[0].0, line, "{found:?}");
        assert!(found[0].1.contains(words), "{found:?} does not say {words:?}");
    }

    fn assert_good(name: &str, text: &str) {
        assert_eq!(faults(name, text), []);
    }

    #[test]
    fn lets_a_module_name_lower_shelves_and_its_own_parts() {
        assert_good(
            "actor/turn.rs",
            "use crate::store::committer::Batch;\nuse crate::{clock, durable::log};\n",
        );
        assert_good("store/overlay.rs", "use crate::store::keys::Key; pub(in crate::store) fn f() {}\n");
        assert_good("lib.rs", "pub use crate::system::System;\npub mod system;\n");
    }

    #[test]
    fn reports_an_import_of_a_higher_shelf_with_its_line() {
        let text = "//! What it is.\n\nuse std::fmt;\nuse crate::actor::turn::Turn;\n";
        assert_one("store/journal.rs", text, 4, "`store` (store) is below `actor` (actor)");
        assert_one("durable/log.rs", "fn f() -> crate::system::System { g() }\n", 1, "crate::system::System");
    }

    #[test]
    fn reports_an_import_of_a_module_on_the_same_shelf() {
        assert_one("task.rs", "use crate::topic::Topic;\n", 1, "`task` and `topic` share the shelf");
    }

    #[test]
    fn reports_each_bad_leaf_of_a_group() {
        let text = "use crate::{\n    clock::Clock,\n    durable::{log::Log, cursor},\n    error as e,\n};\n";
        let found = faults("store/mod.rs", text);
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 3, 4], "{found:?}");
        assert!(found[1].1.contains("crate::durable::cursor"), "{found:?}");
        assert_one("policy.rs", "use crate::{clock, store};\n", 1, "`crate::store`");
    }

    #[test]
    fn follows_super_to_the_crate_root() {
        assert_one("store/sled/open.rs", "use super::super::super::actor::Turn;\n", 1, "below `actor`");
        assert_good("store/sled/open.rs", "use super::super::keys::Key;\n");
        assert_one("clock.rs", "use super::codec::Codec;\n", 1, "share the shelf");
    }

    #[test]
    fn reports_a_name_taken_from_the_crate_root() {
        assert_one("durable/log.rs", "use crate::Timestamp;\n", 1, "goes through the crate root");
    }

    #[test]
    fn reports_a_module_that_has_no_shelf() {
        assert_one("helper.rs", "//! Nothing.\n", 1, "`helper` is on no shelf");
    }

    #[test]
    fn does_not_read_comments_and_strings() {
        let text = concat!(
            "//! See [`crate::actor`]. /* not open\n",
            "/* crate::actor /* nested */ crate::system */\n",
            "const A: &str = \"crate::actor \\\" crate::actor\";\n",
            "const B: &str = r#\"crate::actor \" crate::actor\"#;\n",
            "fn f<'a>(x: &'a str) -> char { '\"' }\n",
            "fn g() -> u8 { b'\\'' }\n",
        );
        assert_good("store/journal.rs", text);
        let behind = format!("{text}use crate::actor::Turn;\n");
        assert_one("store/journal.rs", &behind, 7, "below `actor`");
    }

    #[test]
    fn does_not_read_what_only_tests_compile() {
        let test =
            "#[cfg(test)]\nmod tests {\n    use crate::actor::Turn;\n    fn f() { tokio::spawn(g()); }\n}\n";
        assert_good("store/journal.rs", test);
        assert_good(
            "store/journal.rs",
            "#[cfg(all(test, steadfast_loom))]\nmod loom { use crate::actor::Turn; }\n",
        );
        assert_good("store/journal.rs", "#[cfg(test)]\nuse crate::{actor::Turn, system};\n");
        let behind = format!("{test}use crate::actor::Turn;\n");
        assert_one("store/journal.rs", &behind, 6, "below `actor`");
        assert_one("store/journal.rs", "#[cfg(not(test))]\nuse crate::actor::Turn;\n", 2, "below `actor`");
    }

    #[test]
    fn knows_which_files_only_tests_compile() {
        let found =
            test_only_modules("store/mod.rs", "mod journal;\n#[cfg(test)]\n#[rustfmt::skip]\nmod sim;\n");
        assert_eq!(found, [["store", "sim"]]);
    }

    #[test]
    fn reports_time_and_ids_read_outside_the_clock() {
        assert_one("actor/turn.rs", "fn f() { std::time::SystemTime::now(); }\n", 1, "only clock");
        assert_one("actor/turn.rs", "use std::time::Instant;\nfn f() { Instant::now(); }\n", 2, "only clock");
        assert_one("durable/log.rs", "fn f() { uuid::Uuid::now_v7(); }\n", 1, "only clock");
        assert_good("clock.rs", "fn f() { SystemTime::now(); Uuid::now_v7(); }\n");
        assert_good("store/hardened/handle.rs", "fn f() { Instant::now(); }\n");
    }

    #[test]
    fn reports_a_task_spawned_where_none_may_be() {
        assert_one("durable/log.rs", "fn f() { tokio::spawn(g()); }\n", 1, "spawn tasks");
        assert_one("durable/log.rs", "use tokio::{spawn, sync::Notify};\n", 1, "tokio::spawn");
        assert_one(
            "durable/log.rs",
            "fn f() { tokio::runtime::Handle::current().spawn(g()); }\n",
            1,
            ".spawn",
        );
        assert_good("actor/start.rs", "fn f() { tokio::spawn(g()); }\n");
        assert_good("store/committer.rs", "fn f() { std::thread::Builder::new().spawn(g); }\n");
        assert_one("store/committer.rs", "fn f() { tokio::spawn(g()); }\n", 1, "tokio::spawn");
    }

    #[test]
    fn reports_a_format_or_an_engine_named_outside_its_file() {
        assert_one("envelope.rs", "use bincode::config;\n", 1, "codec alone");
        assert_one("envelope.rs", "#[derive(bincode::Encode)]\nstruct A;\n", 1, "codec alone");
        assert_good("codec.rs", "use ::bincode::{config, serde};\n");
        assert_one("store/checkpoint.rs", "fn f(tree: ::sled::Tree) {}\n", 1, "its own file");
        assert_good("store/sled/open.rs", "fn f(tree: sled::Tree) {}\n");
        assert_good("store/checkpoint.rs", "use crate::store::{sled::Engine, sled};\n");
    }

    #[test]
    fn sees_a_crate_behind_leading_colons_wherever_it_stands() {
        assert_one("store/checkpoint.rs", "fn f() -> ::sled::Db { g() }\n", 1, "its own file");
        assert_one("store/checkpoint.rs", "use ::sled::Db;\n", 1, "its own file");
        assert_one("store/checkpoint.rs", "fn f() { match 1 { _ => ::sled::open(p) } }\n", 1, "its own file");
    }

    #[test]
    fn reports_a_feature_asked_for_inside_code() {
        assert_one(
            "actor/turn.rs",
            "fn f() {\n    #[cfg(feature = \"otel\")]\n    trace();\n}\n",
            2,
            "feature",
        );
        assert_one("actor/turn.rs", "fn f() {\n    if cfg!(feature = \"otel\") {}\n}\n", 2, "feature");
        assert_one("actor/turn.rs", "#[cfg(feature = \"otel\")]\nfn f() {}\n", 1, "feature");
        assert_good(
            "lib.rs",
            "#[cfg(feature = \"http\")]\n/// Edge.\n#[doc(inline)]\npub(crate) mod http;\n",
        );
        assert_good("lib.rs", "#[cfg(all(unix, feature = \"http\"))]\npub use http::Server;\n");
    }
}
