//! The store that is looked into: its manifest, and a copy of its engine. Nothing of it is written.

use std::io;
use std::path::Path;

use super::super::backup::UNFINISHED;
use super::super::census::Census;
use super::super::engine::{Engine, Which};
use super::super::fault::StoreError;
use super::super::keys::{self, class};
use super::super::manifest::{self, Manifest};
use super::super::page_files;
use super::super::recovery::{CREATING, JOURNAL, Place};
use super::super::sealed;
use super::pairs::Pairs;
use super::report::Findings;

/// What was opened of a store.
pub(super) struct Source {
    pub(super) place: Place,
    pub(super) manifest: Option<Manifest>,
    /// A copy of the engine; none when nothing of it can be read.
    pub(super) engine: Option<Box<dyn Engine>>,
    /// The commit up to which the engine has everything, and what it says to hold; none when it does not say.
    pub(super) census: Option<(u64, Census)>,
}

impl Source {
    pub(super) fn open(place: Place, aside: &Path, findings: &mut Findings) -> Result<Self, StoreError> {
        must_be_a_store(&place)?;
        let manifest = match Manifest::read(&*place.medium, &place.root) {
            Ok(Some(manifest)) => Some(manifest),
            Ok(None) => {
                let what = "the file is missing: how far journal and engine must reach is not known";
                findings.loss(manifest::NAME, "", what);
                None
            }
            Err(newer @ StoreError::Newer { .. }) => return Err(newer),
            Err(why) => {
                let what = format!("{}: how far journal and engine must reach is not known", told(&why));
                findings.loss(manifest::NAME, "", what);
                None
            }
        };
        if let Some(manifest) = manifest.as_ref().filter(|manifest| manifest.engine != place.engine.name()) {
            let what = format!("it was written with the engine {}", manifest.engine);
            return Err(StoreError::Foreign { path: place.root.join(manifest::NAME), what });
        }
        let (engine, census) = match open_engine(&place, manifest.as_ref(), aside, findings)? {
            Some((engine, census)) => (Some(engine), census),
            None => (None, None),
        };
        Ok(Source { place, manifest, engine, census })
    }

    pub(super) fn engine_name(&self) -> &'static str {
        self.place.engine.name()
    }
}

/// What an error says, without the file and what is to be done.
pub(super) fn told(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

fn must_be_a_store(place: &Place) -> Result<(), StoreError> {
    let listed = place.medium.list("").map_err(|e| StoreError::io(&place.root, "listing the store", e))?;
    let has = |name: &str| listed.iter().any(|file| file == name);
    let foreign = |what: &str| Err(StoreError::Foreign { path: place.root.clone(), what: what.into() });
    if has(manifest::NAME) {
        return Ok(());
    }
    if has(CREATING) {
        return foreign("the making of a store was not finished here; nothing was accepted yet");
    }
    if has(UNFINISHED) {
        return foreign("a copy of a store was not finished here; make it again from the store itself");
    }
    let parts = [(JOURNAL, ".seg"), (page_files::DIR, ".pages")];
    let is_there = |(dir, end): (&str, &str)| match place.medium.list(dir) {
        Ok(files) => files.iter().any(|file| file.ends_with(end)),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    match parts.into_iter().any(is_there) || place.engine.exists()? {
        true => Ok(()),
        false => foreign("it has neither a manifest nor a journal, pages or an engine"),
    }
}

type Copied = (Box<dyn Engine>, Option<(u64, Census)>);

/// The best that can be read of the engine: as it is, unless a copy of before an open is whole and it is not.
fn open_engine(
    place: &Place,
    manifest: Option<&Manifest>,
    aside: &Path,
    findings: &mut Findings,
) -> Result<Option<Copied>, StoreError> {
    let name = place.engine.name();
    let least = manifest.map_or(0, |manifest| manifest.checkpoint);
    let present = copied(place, Which::Present, &aside.join("present"))?;
    let is_whole = |copied: &Copied| {
        copied.1.as_ref().is_some_and(|(number, census)| {
            *number >= least && census.difference(&count(&*copied.0)).is_none()
        })
    };
    match present {
        Ok(present) if present.as_ref().is_some_and(&is_whole) => Ok(present),
        present => {
            if let Ok(Ok(Some(before))) = copied(place, Which::PutAside, &aside.join("before"))
                && is_whole(&before)
            {
                findings.note(
                    name,
                    "",
                    "it is not whole, but the copy of it in `rescue` is, and was read instead",
                );
                return Ok(Some(before));
            }
            match present {
                Ok(Some(present)) => Ok(Some(present)),
                Ok(None) => {
                    findings.loss(
                        name,
                        "",
                        "the engine is missing: state, names and all that was checkpointed",
                    );
                    Ok(None)
                }
                Err(why) => {
                    let what = "the engine cannot be opened: state, names and all that was checkpointed cannot be read";
                    findings.loss(name, "", format!("{what} ({})", told(&why)));
                    Ok(None)
                }
            }
        }
    }
}

/// A copy of the engine, or why there can be none. No room for one is an error of the whole.
#[allow(
    clippy::type_complexity,
    reason = "two kinds of failure: of the look itself, and of what is looked at"
)]
fn copied(
    place: &Place,
    which: Which,
    aside: &Path,
) -> Result<Result<Option<Copied>, StoreError>, StoreError> {
    let opened: Result<_, StoreError> = place.engine.open_copy(which, aside).map_err(StoreError::from);
    match opened {
        Err(full @ StoreError::Full { .. }) => Err(full),
        Err(why) => Ok(Err(why)),
        Ok(None) => Ok(Ok(None)),
        Ok(Some(engine)) => {
            let census = match engine.get(&keys::meta("checkpoint")) {
                Ok(None) => Some((0, Census::default())),
                _ => Census::read(&*engine).ok(),
            };
            Ok(Ok(Some((engine, census))))
        }
    }
}

/// What an engine holds, by its classes, whether it verifies or not.
pub(super) fn count(engine: &dyn Engine) -> Census {
    let mut counted = Census::default();
    for (key, sealed) in Pairs::between(engine, &[class::META + 1], &[u8::MAX]) {
        // one that was changed in its bytes keeps its checksum, and must not count as whole
        match sealed::verify(&key, &sealed) {
            Ok((_, value)) => counted.count_linked(&key, &sealed, value),
            Err(_) => counted.count(&[0], &[]),
        }
    }
    counted
}
