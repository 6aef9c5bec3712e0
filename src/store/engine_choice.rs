//! Which engine a store has, by its name. Each engine adds its own choice in its own file, so that none is named here but the
//! default; one that is optional is there when its feature is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::engine::EngineKind;
#[cfg(feature = "redb")]
use super::redb::REDB;
#[cfg(not(feature = "redb"))]
use without::REDB;

#[cfg(not(feature = "redb"))]
mod without {
    pub(super) const REDB: &[super::EngineChoice] = &[];
}

/// The engine of a store: the ordered map on disk that keeps what still waits, once it has left the journal.
///
/// A store keeps the engine it was made with. Which to take is in `docs/engines.md`; if in doubt, choose none: a new store then
/// has sled.
#[derive(Clone, Copy)]
pub struct EngineChoice {
    name: &'static str,
    in_store: fn(&Path) -> Arc<dyn EngineKind>,
}

impl EngineChoice {
    pub(super) const fn new(name: &'static str, in_store: fn(&Path) -> Arc<dyn EngineKind>) -> Self {
        EngineChoice { name, in_store }
    }

    /// The engines this build has, the default first.
    pub fn available() -> impl Iterator<Item = EngineChoice> {
        std::iter::once(EngineChoice::sled()).chain(REDB.iter().copied())
    }

    /// The engine of this name, such as `sled`, if this build has it.
    pub fn named(name: &str) -> Option<EngineChoice> {
        EngineChoice::available().find(|engine| engine.name == name)
    }

    /// Its name, which the store's manifest keeps.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// This engine in the directory of a store.
    pub(super) fn in_store(&self, root: &Path) -> Arc<dyn EngineKind> {
        (self.in_store)(root)
    }
}

/// sled.
impl Default for EngineChoice {
    fn default() -> Self {
        EngineChoice::sled()
    }
}

impl PartialEq for EngineChoice {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for EngineChoice {}

impl fmt::Debug for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EngineChoice").field(&self.name).finish()
    }
}
