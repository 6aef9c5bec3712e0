//! The simulated file system: a tree of names over numbered files, the durable tree, and the changes between.
//!
//! # Invariants
//! - `now` is always `durable` with every pending change made, in order.
//! - A change is made durable together with every earlier one that it builds on, so the durable tree is always
//!   one that some order of the calls could have left. Changes to other names stay undecided.
//! - The contents of a file stay as long as a name, a pending change or an open handle leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::super::file_name::{check_dir, split};
use super::chance::Chance;
use super::contents::Contents;

/// Which file, whatever its name.
pub(super) type Number = u64;

/// Held by every open handle of a file.
pub(super) type Hold = Arc<()>;

/// All files of one machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    now: Tree,
    durable: Tree,
    pending: Vec<Pending>,
    kept: BTreeMap<Number, Kept>,
    made: Number,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    contents: Contents,
    hold: Hold,
}

#[derive(Debug, Clone, Default)]
struct Tree {
    dirs: BTreeSet<String>,
    files: BTreeMap<String, Number>,
}

#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// The directories still to be synced: two when a rename crosses from one to another.
    unsynced: Vec<String>,
}

#[derive(Debug, Clone)]
enum Change {
    CreateDir(String),
    Create(String, Number),
    Rename { from: String, to: String, number: Number },
    Remove(String, Number),
}

impl Files {
    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.find_dir(dir)?;
        let names = self.now.files.keys().filter_map(|name| split(name).ok());
        Ok(names.filter(|(found, _)| *found == dir).map(|(_, file)| file.to_owned()).collect())
    }

    /// Full names of all files.
    pub(super) fn names(&self) -> Vec<String> {
        self.now.files.keys().cloned().collect()
    }

    /// The bytes all named files take.
    pub(super) fn used(&self) -> u64 {
        self.now
            .files
            .values()
            .filter_map(|number| self.kept.get(number))
            .map(|k| k.contents.len() as u64)
            .sum()
    }

    pub(super) fn create_dir(&mut self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        if self.now.files.contains_key(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.find_dir(dir).is_err() {
            self.change(Change::CreateDir(dir.to_owned()));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<(Number, Hold)> {
        let (dir, _) = split(name)?;
        self.find_dir(dir)?;
        if self.now.files.contains_key(name) || self.now.dirs.contains(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.made += 1;
        self.kept.insert(self.made, Kept::default());
        self.change(Change::Create(name.to_owned(), self.made));
        self.open(name)
    }

    pub(super) fn open(&self, name: &str) -> io::Result<(Number, Hold)> {
        let number = self.find(name)?;
        let kept = self.kept.get(&number).ok_or(io::ErrorKind::NotFound)?;
        Ok((number, Arc::clone(&kept.hold)))
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let number = self.find(from)?;
        self.find_dir(split(to)?.0)?;
        if self.now.dirs.contains(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from != to {
            self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), number });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let number = self.find(name)?;
        self.change(Change::Remove(name.to_owned(), number));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        self.find_dir(dir)?;
        for pending in &mut self.pending {
            pending.unsynced.retain(|unsynced| unsynced != dir);
        }
        self.settle(|pending| pending.unsynced.is_empty());
        self.forget_unreachable();
        Ok(())
    }

    pub(super) fn contents(&self, number: Number) -> io::Result<&Contents> {
        self.kept.get(&number).map(|kept| &kept.contents).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn contents_mut(&mut self, number: Number) -> io::Result<&mut Contents> {
        self.kept
            .get_mut(&number)
            .map(|kept| &mut kept.contents)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Decides what of all that is pending has reached the device. How many writes were torn.
    pub(super) fn crash(&mut self, chance: &mut Chance) -> u64 {
        let odds = chance.odds();
        self.settle(|_| chance.happens(odds));
        self.pending.clear();
        self.now = self.durable.clone();
        self.let_go();
        self.forget_unreachable();
        self.kept.values_mut().map(|kept| kept.contents.crash(chance)).sum()
    }

    /// From now on no handle opened before keeps a removed file.
    pub(super) fn let_go(&mut self) {
        for kept in self.kept.values_mut() {
            kept.hold = Hold::default();
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    fn find(&self, name: &str) -> io::Result<Number> {
        split(name)?;
        if self.now.dirs.contains(name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.now.files.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn find_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        if dir.is_empty() || self.now.dirs.contains(dir) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        let unsynced = change.dirs();
        self.pending.push(Pending { change, unsynced });
    }

    /// Makes durable every pending change that is `chosen`, and what it builds on.
    fn settle(&mut self, mut chosen: impl FnMut(&Pending) -> bool) {
        let mut needed: BTreeSet<String> = BTreeSet::new();
        let mut settled = Vec::new();
        let mut open = Vec::new();
        for pending in std::mem::take(&mut self.pending).into_iter().rev() {
            let is_needed = pending.change.entries().iter().any(|entry| needed.contains(entry));
            // asked in any case, so that each change draws its own chance
            if chosen(&pending) || is_needed {
                needed.extend(pending.change.entries());
                needed.extend(pending.change.dirs().iter().map(|dir| dir_entry(dir)));
                settled.push(pending.change);
            } else {
                open.push(pending);
            }
        }
        settled.iter().rev().for_each(|change| self.durable.apply(change));
        open.reverse();
        self.pending = open;
    }

    fn forget_unreachable(&mut self) {
        let pending = self.pending.iter().filter_map(|pending| pending.change.number());
        let named = self.now.files.values().chain(self.durable.files.values()).copied();
        let reachable: BTreeSet<Number> = named.chain(pending).collect();
        self.kept.retain(|number, kept| reachable.contains(number) || Arc::strong_count(&kept.hold) > 1);
    }
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::CreateDir(dir) => drop(self.dirs.insert(dir.clone())),
            Change::Create(name, number) => drop(self.files.insert(name.clone(), *number)),
            Change::Rename { from, to, number } => {
                self.files.remove(from);
                self.files.insert(to.clone(), *number);
            }
            Change::Remove(name, _) => drop(self.files.remove(name)),
        }
    }
}

impl Change {
    /// What it changes: a later change of the same entry builds on it.
    fn entries(&self) -> Vec<String> {
        match self {
            Change::CreateDir(dir) => vec![dir_entry(dir)],
            Change::Create(name, _) | Change::Remove(name, _) => vec![name.clone()],
            Change::Rename { from, to, .. } => vec![from.clone(), to.clone()],
        }
    }

    /// The directories whose sync makes it durable.
    fn dirs(&self) -> Vec<String> {
        let dir = |name: &str| name.split_once('/').map_or("", |(dir, _)| dir).to_owned();
        let mut dirs: Vec<String> = match self {
            Change::CreateDir(_) => vec![String::new()],
            Change::Create(name, _) | Change::Remove(name, _) => vec![dir(name)],
            Change::Rename { from, to, .. } => vec![dir(from), dir(to)],
        };
        dirs.dedup();
        dirs
    }

    fn number(&self) -> Option<Number> {
        match self {
            Change::CreateDir(_) => None,
            Change::Create(_, number) | Change::Remove(_, number) | Change::Rename { number, .. } => {
                Some(*number)
            }
        }
    }
}

/// The entry of a directory itself: no name of a file ends like this.
fn dir_entry(dir: &str) -> String {
    format!("{dir}/")
}
