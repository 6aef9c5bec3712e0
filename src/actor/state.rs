//! An actor's durable state: cells, maps and lists read and written through the context, or the whole struct. What a turn
//! writes is a working copy until the turn is committed, together with everything else the turn did.
//!
//! # Invariants
//! - A turn reads its own writes; nobody else sees them before its commit.
//! - A failed turn's writes are dropped whole.
//! - What cannot be decoded is an error; no default ever takes its place.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::runtime::Runtime;
use crate::codec::{self, DecodeError};
use crate::durable::{StoredCell, Upcast};
use crate::error::StateError;
use crate::store::{Batch, MailboxId, keys};

/// The longest key of a map cell, in bytes.
const LONGEST_KEY: usize = 512;

/// How an actor's state is stored; see [`Actor::state`](crate::Actor::state).
pub struct State<A> {
    whole: Option<Whole<A>>,
    checks: Vec<Check>,
}

/// Reads one cell as its type says.
type Check = Box<dyn Fn(&Runtime, &Cells) -> Result<(), StateError> + Send + Sync>;

struct Whole<A> {
    version: u32,
    upcast: Option<Upcast<A>>,
    shape: fn(&Runtime) -> u32,
    save: fn(&StoredCell<'_>, &A, &mut Vec<u8>) -> Result<(), StateError>,
    load: fn(&StoredCell<'_>, &[u8], Option<Upcast<A>>) -> Result<A, StateError>,
}

impl<A> State<A> {
    /// State lies in cells, which handlers read and write through [`Context::state`](crate::Context::state). The struct
    /// itself is made by the factory at each start and after each failed turn.
    pub fn cells() -> Self {
        State { whole: None, checks: Vec::new() }
    }

    /// Has a cell read at each start: an actor one of whose cells cannot be read does not start, and its mail waits.
    #[must_use]
    pub fn with<T>(mut self, cell: Cell<T>) -> Self
    where
        T: Serialize + DeserializeOwned + 'static,
    {
        self.checks.push(Box::new(move |runtime, cells| match cells.get(cell.name) {
            Some(bytes) => cell.decode(runtime, bytes).map(drop),
            None => Ok(()),
        }));
        self
    }

    /// Whether the struct itself is the state.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    pub(crate) fn check(&self, runtime: &Runtime, cells: &Cells) -> Result<(), StateError> {
        self.checks.iter().try_for_each(|check| check(runtime, cells))
    }

    /// The whole struct is the state: saved with each turn that changed it, restored at each start and after each failed
    /// turn. `version` is that of its fields; raise it when they change, and say how to read the older one with
    /// [`State::upcast`].
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// #[derive(Serialize, Deserialize, Debug, PartialEq)]
    /// struct Tally { total: u64, additions: u32 }
    ///
    /// impl Actor for Tally {
    ///     const NAME: &'static str = "tally";
    ///     type Messages = (Add,);
    ///     fn state() -> State<Self> {
    ///         State::whole(2).upcast(|_version, stored| {
    ///             // version 1 was the total alone
    ///             Ok(Tally { total: decode_value(stored)?, additions: 0 })
    ///         })
    ///     }
    /// }
    /// impl Handler<Add> for Tally {
    ///     async fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Result<u64, Failure> {
    ///         self.total += add.amount;
    ///         self.additions += 1;
    ///         Ok(self.total) // saved in the commit that settles the message
    ///     }
    /// }
    /// # let system = System::builder().open_in_memory().await?;
    /// let tally = system.spawn("tally-1", || Tally { total: 0, additions: 0 }).await?;
    /// tally.ask(Add { amount: 5 }).await?;
    /// assert_eq!(tally.snapshot().await?, Some(Tally { total: 5, additions: 1 }));
    /// # Ok(()) }
    /// ```
    pub fn whole(version: u32) -> Self
    where
        A: Serialize + DeserializeOwned + 'static,
    {
        State {
            whole: Some(Whole {
                version,
                upcast: None,
                shape: Runtime::shape_of::<A>,
                save: |cell, actor, out| cell.encode(actor, out),
                load: |cell, bytes, upcast| cell.decode(bytes, upcast),
            }),
            checks: Vec::new(),
        }
    }

    /// How to read an older version: `upcast` is given the stored version and its encoded value, and decodes it with
    /// [`decode_value`].
    #[must_use]
    pub fn upcast(mut self, upcast: fn(u32, &[u8]) -> Result<A, DecodeError>) -> Self {
        if let Some(whole) = &mut self.whole {
            whole.upcast = Some(upcast);
        }
        self
    }

    /// The struct's stored form; none when the state lies in cells.
    pub(crate) fn save(&self, runtime: &Runtime, actor: &A) -> Result<Option<Vec<u8>>, StateError> {
        let Some(whole) = &self.whole else { return Ok(None) };
        let mut out = Vec::new();
        (whole.save)(&whole.cell(runtime), actor, &mut out)?;
        Ok(Some(out))
    }

    /// The struct that is stored; none when the state lies in cells or nothing is stored yet.
    pub(crate) fn load(&self, runtime: &Runtime, stored: Option<&[u8]>) -> Result<Option<A>, StateError> {
        match (&self.whole, stored) {
            (Some(_), Some(_)) if cfg!(steadfast_bug = "start_without_the_state") => Ok(None),
            (Some(whole), Some(stored)) => (whole.load)(&whole.cell(runtime), stored, whole.upcast).map(Some),
            _ => Ok(None),
        }
    }
}

impl<A> Whole<A> {
    fn cell(&self, runtime: &Runtime) -> StoredCell<'static> {
        StoredCell { name: WHOLE, version: self.version, shape: (self.shape)(runtime) }
    }
}

/// The name under which a whole struct is stored; no cell can have it.
pub(crate) const WHOLE: &str = "";

/// Decodes the value an upcast was given.
///
/// # Errors
/// The bytes are not a `T`.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    codec::decode(bytes)
}

macro_rules! cell_type {
    ($(#[$doc:meta])* $Cell:ident<$($T:ident),+> of $V:ident) => {
        $(#[$doc])*
        pub struct $Cell<$($T),+> {
            name: &'static str,
            version: u32,
            upcast: Option<Upcast<$V>>,
            _value: PhantomData<fn() -> ($($T,)+)>,
        }

        impl<$($T),+> $Cell<$($T),+> {
            /// `name` is what it is stored under, at most 64 bytes; `version` is that of the value's fields.
            pub const fn new(name: &'static str, version: u32) -> Self {
                assert!(!name.is_empty(), "a cell needs a name");
                $Cell { name, version, upcast: None, _value: PhantomData }
            }

            /// How to read an older version: given the stored version and the encoded value; see [`decode_value`].
            #[must_use]
            pub const fn upcast(mut self, upcast: fn(u32, &[u8]) -> Result<$V, DecodeError>) -> Self {
                self.upcast = Some(upcast);
                self
            }
        }

        impl<$($T: 'static),+> $Cell<$($T),+>
        where
            $V: Serialize + DeserializeOwned + 'static,
        {
            fn stored(&self, runtime: &Runtime) -> StoredCell<'static> {
                StoredCell { name: self.name, version: self.version, shape: runtime.shape_of::<$V>() }
            }

            pub(crate) fn decode(&self, runtime: &Runtime, bytes: &[u8]) -> Result<$V, StateError> {
                self.stored(runtime).decode(bytes, self.upcast)
            }

            fn encode(&self, runtime: &Runtime, value: &$V) -> Result<Vec<u8>, StateError> {
                let mut out = Vec::new();
                self.stored(runtime).encode(value, &mut out)?;
                Ok(out)
            }
        }
    };
}

cell_type! {
    /// One named value of an actor's state.
    ///
    /// ```
    /// use steadfast::{Actor, Cell, Context, Failure};
    ///
    /// const TOTAL: Cell<u64> = Cell::new("total", 1);
    ///
    /// fn add<A: Actor>(ctx: &mut Context<A>, amount: u64) -> Result<u64, Failure> {
    ///     let total = ctx.state().get(&TOTAL)?.unwrap_or(0) + amount;
    ///     ctx.state().set(&TOTAL, &total)?;
    ///     Ok(total)
    /// }
    /// ```
    ///
    /// With a raised version and an upcast it reads what an older program stored:
    ///
    /// ```
    /// use steadfast::{Cell, decode_value};
    ///
    /// // version 1 was a whole number of euros
    /// const CENTS: Cell<u64> = Cell::new("balance", 2).upcast(|_, bytes| Ok(decode_value::<u32>(bytes)? as u64 * 100));
    /// ```
    Cell<T> of T
}
cell_type! {
    /// Named values by key, in the order of their keys; read one by one or by page, so that there may be millions.
    ///
    /// ```
    /// use steadfast::{Actor, CellMap, Context, Failure};
    ///
    /// const STOCK: CellMap<String, u32> = CellMap::new("stock", 1);
    ///
    /// async fn take<A: Actor>(ctx: &mut Context<A>, sku: String) -> Result<bool, Failure> {
    ///     let mut stock = ctx.state().map(&STOCK);
    ///     match stock.get(&sku).await? {
    ///         None | Some(0) => return Ok(false),
    ///         Some(1) => stock.remove(&sku)?,
    ///         Some(more) => stock.insert(&sku, &(more - 1))?,
    ///     }
    ///     let first = stock.page(None, 10).await?; // in order of key, with this turn's own writes
    ///     assert!(first.len() <= 10);
    ///     Ok(true)
    /// }
    /// ```
    CellMap<K, V> of V
}
cell_type! {
    /// A named list: appended at its end, taken from its front, read by page.
    ///
    /// ```
    /// use steadfast::{Actor, CellList, Context, Failure};
    ///
    /// const LATEST: CellList<String> = CellList::new("latest", 1);
    ///
    /// async fn remember<A: Actor>(ctx: &mut Context<A>, line: String) -> Result<(), Failure> {
    ///     let mut latest = ctx.state().list(&LATEST);
    ///     latest.push(&line).await?;
    ///     while latest.len().await? > 100 {
    ///         latest.pop_front().await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    CellList<T> of T
}

impl<K: MapKey, V> CellMap<K, V> {
    pub(crate) fn key(&self, mailbox: MailboxId, key: &K) -> Result<Vec<u8>, StateError> {
        let bytes = key.to_bytes();
        if bytes.len() > LONGEST_KEY {
            let (cell, len) = (self.name.into(), bytes.len());
            return Err(StateError::TooLong { cell, len, limit: LONGEST_KEY });
        }
        Ok(keys::map_entry(mailbox, self.name, &bytes))
    }

    pub(crate) fn prefix(&self, mailbox: MailboxId) -> Vec<u8> {
        keys::map_entry(mailbox, self.name, &[])
    }

    /// The key of an entry's stored key.
    pub(crate) fn key_of(&self, prefix: &[u8], stored: &[u8]) -> Result<K, StateError> {
        let key = stored.get(prefix.len()..).and_then(K::from_bytes);
        key.ok_or_else(|| StateError::Decode {
            cell: self.name.into(),
            version: self.version,
            why: "an entry's key is not of the map's key type".into(),
        })
    }
}

impl<T> Cell<T> {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// A key of a [`CellMap`]: its bytes sort as the keys do.
pub trait MapKey: Sized {
    /// The key's bytes, at most 512.
    fn to_bytes(&self) -> Vec<u8>;
    /// The key of these bytes; none if they are not one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl MapKey for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

macro_rules! number_key {
    ($($Unsigned:ident $Signed:ident),+) => {$(
        impl MapKey for $Unsigned {
            fn to_bytes(&self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map($Unsigned::from_be_bytes)
            }
        }

        impl MapKey for $Signed {
            fn to_bytes(&self) -> Vec<u8> {
                // with the sign turned over, negative numbers sort before positive ones
                ((*self as $Unsigned) ^ (1 << ($Unsigned::BITS - 1))).to_bytes()
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                $Unsigned::from_bytes(bytes).map(|number| (number ^ (1 << ($Unsigned::BITS - 1))) as $Signed)
            }
        }
    )+};
}

number_key!(u8 i8, u16 i16, u32 i32, u64 i64, u128 i128);

impl MapKey for crate::envelope::MessageId {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }
}

/// The plain cells of an actor as last committed, by name; the whole struct lies under [`WHOLE`].
pub(crate) type Cells = HashMap<String, Arc<[u8]>>;

/// What one turn reads and writes.
pub(crate) struct WorkingCopy {
    pub(crate) cells: Cells,
    /// Plain cells written in this turn; none means removed.
    pub(crate) written: HashMap<&'static str, Option<Arc<[u8]>>>,
    /// Entries of maps and lists written in this turn, by key; none means removed.
    entries: BTreeMap<Vec<u8>, Option<Arc<[u8]>>>,
    /// Several workers would write the same cells, unseen by each other.
    shared: bool,
    /// A cell that was removed although it must not be written.
    refused: Option<&'static str>,
}

impl WorkingCopy {
    /// `shared`: others have copies of the same cells, so nothing may be written.
    pub(crate) fn new(cells: Cells, shared: bool) -> Self {
        WorkingCopy { cells, written: HashMap::new(), entries: BTreeMap::new(), shared, refused: None }
    }

    fn may_write(&self, cell: &'static str) -> Result<(), StateError> {
        match self.shared && !cfg!(steadfast_bug = "write_state_in_a_pool") {
            true => Err(StateError::Pool { cell: cell.into() }),
            false => Ok(()),
        }
    }

    /// Whether all that was written may be.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        self.refused.map_or(Ok(()), |cell| self.may_write(cell))
    }

    /// Adds the writes of this turn.
    pub(crate) fn settle(&self, mailbox: MailboxId, batch: &mut Batch) {
        for (name, value) in &self.written {
            write(batch, keys::cell(mailbox, name, &[]), value.as_deref());
        }
        for (key, value) in &self.entries {
            write(batch, key.clone(), value.as_deref());
        }
    }

    /// The cells after the turn was committed.
    pub(crate) fn committed(mut self) -> Cells {
        for (name, value) in self.written {
            match value {
                Some(value) => self.cells.insert(name.to_owned(), value),
                None => self.cells.remove(name),
            };
        }
        self.cells
    }
}

fn write(batch: &mut Batch, key: Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => batch.put_bytes(key, value),
        None => batch.delete(key),
    }
}

/// A turn's view of its actor's state; see [`Context::state`](crate::Context::state).
pub struct StateRef<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) mailbox: MailboxId,
    pub(super) copy: &'a mut WorkingCopy,
}

impl<'a> StateRef<'a> {
    /// A cell's value; none when it was never set.
    ///
    /// # Errors
    /// What is stored cannot be read as this cell.
    pub fn get<T>(&self, cell: &Cell<T>) -> Result<Option<T>, StateError>
    where
        T: Serialize + DeserializeOwned + 'static,
    {
        let bytes = match self.copy.written.get(cell.name) {
            Some(written) => written.as_ref(),
            None => self.copy.cells.get(cell.name),
        };
        bytes.map(|bytes| cell.decode(self.runtime, bytes)).transpose()
    }

    /// Sets a cell; it is stored when the turn is committed.
    ///
    /// # Errors
    /// The value cannot be encoded.
    pub fn set<T>(&mut self, cell: &Cell<T>, value: &T) -> Result<(), StateError>
    where
        T: Serialize + DeserializeOwned + 'static,
    {
        self.copy.may_write(cell.name)?;
        let bytes = cell.encode(self.runtime, value)?;
        self.copy.written.insert(cell.name, Some(bytes.into()));
        Ok(())
    }

    /// Removes a cell's value.
    pub fn remove<T>(&mut self, cell: &Cell<T>) {
        // in a pool the turn fails for it
        self.copy.refused = Some(cell.name);
        self.copy.written.insert(cell.name, None);
    }

    /// A map cell.
    pub fn map<'m, K, V>(self, map: &'m CellMap<K, V>) -> MapRef<'a, 'm, K, V> {
        MapRef { state: self, map }
    }

    /// A list cell.
    pub fn list<'l, T>(self, list: &'l CellList<T>) -> ListRef<'a, 'l, T> {
        ListRef { state: self, list }
    }

    async fn entry(&self, key: Vec<u8>) -> Result<Option<Arc<[u8]>>, StateError> {
        match self.copy.entries.get(&key) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.runtime.ledger.get(key).await?),
        }
    }

    /// Stored entries merged with those written in this turn.
    async fn page(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Arc<[u8]>)>, StateError> {
        let range = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
        let removed = self.copy.entries.range(range.clone()).filter(|(_, value)| value.is_none()).count();
        let stored = self.runtime.ledger.scan(from, to, limit.saturating_add(removed)).await?;
        let mut merged: BTreeMap<_, _> = stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
        merged.extend(self.copy.entries.range(range).map(|(key, value)| (key.clone(), value.clone())));
        Ok(merged.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect())
    }
}

/// A turn's view of a map cell.
pub struct MapRef<'a, 'm, K, V> {
    state: StateRef<'a>,
    map: &'m CellMap<K, V>,
}

impl<K, V> MapRef<'_, '_, K, V>
where
    K: MapKey + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    /// The value of a key.
    ///
    /// # Errors
    /// What is stored cannot be read, or the key is too long.
    pub async fn get(&self, key: &K) -> Result<Option<V>, StateError> {
        let stored = self.state.entry(self.map.key(self.state.mailbox, key)?).await?;
        stored.map(|bytes| self.map.decode(self.state.runtime, &bytes)).transpose()
    }

    /// Sets the value of a key; it is stored when the turn is committed.
    ///
    /// # Errors
    /// The value cannot be encoded, or the key is too long.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), StateError> {
        self.state.copy.may_write(self.map.name)?;
        let bytes = self.map.encode(self.state.runtime, value)?;
        self.state.copy.entries.insert(self.map.key(self.state.mailbox, key)?, Some(bytes.into()));
        Ok(())
    }

    /// Removes a key.
    ///
    /// # Errors
    /// The key is too long.
    pub fn remove(&mut self, key: &K) -> Result<(), StateError> {
        self.state.copy.may_write(self.map.name)?;
        self.state.copy.entries.insert(self.map.key(self.state.mailbox, key)?, None);
        Ok(())
    }

    /// Up to `limit` entries in order of key, after `after`.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn page(&self, after: Option<&K>, limit: usize) -> Result<Vec<(K, V)>, StateError> {
        let prefix = self.map.prefix(self.state.mailbox);
        let from = match after {
            Some(after) => [self.map.key(self.state.mailbox, after)?.as_slice(), &[0]].concat(),
            None => prefix.clone(),
        };
        let entries = self.state.page(from, keys::after_prefix(&prefix), limit).await?;
        let read = |(key, value): (Vec<u8>, Arc<[u8]>)| {
            Ok((self.map.key_of(&prefix, &key)?, self.map.decode(self.state.runtime, &value)?))
        };
        entries.into_iter().map(read).collect()
    }
}

/// A turn's view of a list cell.
pub struct ListRef<'a, 'l, T> {
    state: StateRef<'a>,
    list: &'l CellList<T>,
}

impl<T> ListRef<'_, '_, T>
where
    T: Serialize + DeserializeOwned + 'static,
{
    /// How many values are in the list.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn len(&self) -> Result<u64, StateError> {
        let (front, next) = self.ends().await?;
        Ok(next - front)
    }

    /// Whether the list is empty.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn is_empty(&self) -> Result<bool, StateError> {
        Ok(self.len().await? == 0)
    }

    /// Appends a value.
    ///
    /// # Errors
    /// The value cannot be encoded, or what is stored cannot be read.
    pub async fn push(&mut self, value: &T) -> Result<(), StateError> {
        self.state.copy.may_write(self.list.name)?;
        let (front, next) = self.ends().await?;
        let bytes = self.list.encode(self.state.runtime, value)?;
        self.state.copy.entries.insert(self.key(next), Some(bytes.into()));
        self.set_ends(front, next + 1);
        Ok(())
    }

    /// Takes the first value.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn pop_front(&mut self) -> Result<Option<T>, StateError> {
        self.state.copy.may_write(self.list.name)?;
        let (front, next) = self.ends().await?;
        if front == next {
            return Ok(None);
        }
        let value = self.get_at(front).await?;
        self.state.copy.entries.insert(self.key(front), None);
        self.set_ends(front + 1, next);
        Ok(value)
    }

    /// The value at `index`, counted from the front.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn get(&self, index: u64) -> Result<Option<T>, StateError> {
        let (front, next) = self.ends().await?;
        match front.checked_add(index).filter(|at| *at < next) {
            Some(at) => self.get_at(at).await,
            None => Ok(None),
        }
    }

    /// Up to `limit` values from `index` on, counted from the front.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub async fn page(&self, index: u64, limit: usize) -> Result<Vec<T>, StateError> {
        let (front, next) = self.ends().await?;
        let from = front.saturating_add(index).min(next);
        let entries = self.state.page(self.key(from), self.key(next), limit).await?;
        entries.iter().map(|(_, bytes)| self.list.decode(self.state.runtime, bytes)).collect()
    }

    async fn get_at(&self, at: u64) -> Result<Option<T>, StateError> {
        let stored = self.state.entry(self.key(at)).await?;
        stored.map(|bytes| self.list.decode(self.state.runtime, &bytes)).transpose()
    }

    async fn ends(&self) -> Result<(u64, u64), StateError> {
        let key = keys::list_entry(self.state.mailbox, self.list.name, &[]);
        let Some(stored) = self.state.entry(key).await? else { return Ok((0, 0)) };
        let number = |at: usize| stored.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let are_ends =
            |front, next| front <= next && (next < u64::MAX || cfg!(steadfast_bug = "fill_a_list"));
        number(0).zip(number(8)).filter(|(front, next)| are_ends(*front, *next)).ok_or_else(|| {
            StateError::Decode {
                cell: self.list.name.into(),
                version: self.list.version,
                why: "the list's ends are no two numbers in order".into(),
            }
        })
    }

    fn set_ends(&mut self, front: u64, next: u64) {
        let ends = [front.to_be_bytes(), next.to_be_bytes()].concat();
        let key = keys::list_entry(self.state.mailbox, self.list.name, &[]);
        self.state.copy.entries.insert(key, Some(ends.into()));
    }

    fn key(&self, at: u64) -> Vec<u8> {
        keys::list_entry(self.state.mailbox, self.list.name, &at.to_be_bytes())
    }
}
