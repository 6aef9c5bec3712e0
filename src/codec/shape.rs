//! A number for what a type's bytes mean: two types with equal fingerprints read each other's bytes in the
//! same way. A made-up value is deserialized from a recorder that notes what the type asks for; as one value
//! shows one variant of an enum, this is repeated until every variant was seen.
//!
//! What counts: kinds of values and their order, the names and order of fields and variants (with serde's
//! aliases). What does not: names of containers, and newtype structs, which add no bytes.
//!
//! # Invariants
//! - Nothing goes into the number that another process or compiler could change: no addresses, no Rust type
//!   names.
//! - Made-up values do not go into it either, so more of them may be tried in later versions.
//! - It ends: passes, nodes and depth are limited, and a type inside itself is recorded once more, then by
//!   how far up it stands.

use crc32fast::Hasher;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::bounds::MAX_DEPTH;

/// How many made-up values are tried for one type.
const MAX_PASSES: usize = 1_000;

/// How many places a shape may have.
const MAX_NODES: usize = 16_384;

/// Below this depth a type that has no name to be recognised by is taken for recursive.
const DEEP: usize = MAX_DEPTH / 2;

/// The fingerprint of `T`, never 0; `None` where the type cannot be traced: it accepts no made-up value, it
/// asks for a self-describing format, it never ends, or it has too many variants inside variants.
pub(crate) fn fingerprint<T: DeserializeOwned>() -> Option<u32> {
    // a generic type may lie in itself with other parameters and the same name, so one repetition is followed
    // where the type is small enough for it
    let shape = shape::<T>(2).or_else(|| shape::<T>(1))?;
    let mut hasher = Hasher::new();
    shape.hash(&mut hasher);
    Some(hasher.finalize().max(1))
}

fn shape<T: DeserializeOwned>(repeats: usize) -> Option<Node> {
    let mut root = Node::Unknown;
    let mut trace = Trace { repeats, ..Trace::default() };
    for _ in 0..MAX_PASSES {
        trace.begin();
        let made = T::deserialize(Recorder { trace: &mut trace, node: &mut root });
        match (trace.verdict.take(), made) {
            (Some(Verdict::Never), _) => return None,
            (Some(Verdict::Again), _) => {}
            (None, Err(_)) => trace.offer_another_value()?,
            (None, Ok(_)) if root.is_complete() => return Some(root),
            (None, Ok(_)) => {}
        }
    }
    None
}

/// One place in a shape, as far as it is known.
#[derive(Debug, Default)]
enum Node {
    #[default]
    Unknown,
    Unit,
    Leaf {
        kind: Kind,
        id: usize,
    },
    Optional(Box<Node>),
    Sequence(Box<Node>),
    Map(Box<(Node, Node)>),
    Fields {
        names: &'static [&'static str],
        children: Vec<Node>,
    },
    Enum {
        names: &'static [&'static str],
        contents: Vec<Node>,
    },
    /// The type that stands `up` named containers further up. The filler ends the value and is no part of the
    /// shape.
    Again {
        up: usize,
        filler: Box<Node>,
        /// The filler did end the value. Until then each pass comes back here, to go on counting.
        ended: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool = 1,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
}

impl Node {
    fn is_complete(&self) -> bool {
        match self {
            Node::Unknown => false,
            Node::Unit | Node::Leaf { .. } => true,
            Node::Again { ended, .. } => *ended,
            Node::Optional(inside) | Node::Sequence(inside) => inside.is_complete(),
            Node::Map(pair) => pair.0.is_complete() && pair.1.is_complete(),
            Node::Fields { children, .. } => children.iter().all(Node::is_complete),
            Node::Enum { contents, .. } => contents.iter().all(Node::is_complete),
        }
    }

    fn hash(&self, hasher: &mut Hasher) {
        match self {
            // only complete shapes are hashed
            Node::Unknown => hasher.update(&[0]),
            Node::Unit => hasher.update(&[1]),
            Node::Leaf { kind, .. } => hasher.update(&[2, *kind as u8]),
            Node::Optional(inside) => {
                hasher.update(&[3]);
                inside.hash(hasher);
            }
            Node::Sequence(inside) => {
                hasher.update(&[4]);
                inside.hash(hasher);
            }
            Node::Map(pair) => {
                hasher.update(&[5]);
                pair.0.hash(hasher);
                pair.1.hash(hasher);
            }
            Node::Fields { names, children } => hash_parts(6, names, children, hasher),
            Node::Enum { names, contents } => hash_parts(7, names, contents, hasher),
            Node::Again { up, .. } => {
                hasher.update(&[8]);
                hash_number(*up, hasher);
            }
        }
    }
}

fn hash_parts(tag: u8, names: &[&str], parts: &[Node], hasher: &mut Hasher) {
    hasher.update(&[tag]);
    hash_number(names.len(), hasher);
    for name in names {
        hash_number(name.len(), hasher);
        hasher.update(name.as_bytes());
    }
    hash_number(parts.len(), hasher);
    parts.iter().for_each(|part| part.hash(hasher));
}

fn hash_number(number: usize, hasher: &mut Hasher) {
    hasher.update(&(number as u64).to_be_bytes());
}

/// What a container is recognised by when it lies inside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Newtype(&'static str),
    Tuple(&'static str, usize),
    Struct(&'static str, &'static [&'static str]),
    Enum(&'static str, &'static [&'static str]),
}

/// What the passes over one type share.
#[derive(Debug, Default)]
struct Trace {
    /// How often a name may stand above itself before it is not followed.
    repeats: usize,
    /// The named containers around the current place.
    around: Vec<Name>,
    depth: usize,
    nodes: usize,
    /// For each leaf which made-up value it gets, and how many there are for its kind.
    values: Vec<(usize, usize)>,
    last_leaf: Option<usize>,
    /// The value is only to be ended, as shortly as possible.
    ending: bool,
    endings: Vec<Ending>,
    /// The endings that are being tried, outermost first.
    trying: Vec<usize>,
    verdict: Option<Verdict>,
}

/// By which variant a value of an enum is ended.
#[derive(Debug)]
struct Ending {
    name: Name,
    index: usize,
    variants: usize,
    works: bool,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Again,
    Never,
}

impl Trace {
    fn begin(&mut self) {
        self.around.clear();
        self.trying.clear();
        self.depth = 0;
        self.ending = false;
        self.last_leaf = None;
    }

    fn stop(&mut self, verdict: Verdict) -> Stop {
        // the first reason stands, should the type try something else after an error
        self.verdict.get_or_insert(verdict);
        Stop
    }

    /// The type refused a value: most likely the one it was given last.
    fn offer_another_value(&mut self) -> Option<()> {
        let (tried, known) = self.values.get_mut(self.last_leaf?)?;
        *tried += 1;
        (*tried < *known).then_some(())
    }

    /// How far up the type stands that is not to be followed again.
    fn repeated(&self, name: Option<Name>) -> Option<usize> {
        let same = |around: &&Name| name == Some(**around);
        if self.ending {
            return None;
        }
        if self.around.iter().filter(same).count() >= self.repeats {
            // newtypes add no bytes, so they do not count
            let closer = self.around.iter().rev().take_while(|around| !same(around));
            return name.map(|_| closer.filter(|around| !matches!(around, Name::Newtype(_))).count());
        }
        (self.depth >= DEEP).then_some(usize::MAX)
    }

    /// The variant that ends a value of this enum, and where it is noted.
    fn ending(&mut self, name: Name, variants: usize) -> Result<(usize, usize), Stop> {
        let known = self.endings.iter().position(|ending| ending.name == name);
        let place = known.unwrap_or_else(|| {
            self.endings.push(Ending { name, index: 0, variants, works: false });
            self.endings.len() - 1
        });
        if !self.endings[place].works && self.trying.contains(&place) {
            return Err(self.try_other_endings());
        }
        Ok((place, self.endings[place].index))
    }

    /// What is being tried leads back into itself: counts on, the innermost enum first.
    fn try_other_endings(&mut self) -> Stop {
        while let Some(place) = self.trying.pop() {
            let ending = &mut self.endings[place];
            if ending.works {
                continue;
            }
            ending.index += 1;
            if ending.index < ending.variants {
                return self.stop(Verdict::Again);
            }
            ending.index = 0;
        }
        self.stop(Verdict::Never)
    }
}

/// The pass is over; the reason is in the trace.
#[derive(Debug)]
struct Stop;

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no made-up value fits")
    }
}

impl std::error::Error for Stop {}

impl Error for Stop {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Stop
    }
}

/// Answers what a type asks for, and notes it at one place.
struct Recorder<'t> {
    trace: &'t mut Trace,
    node: &'t mut Node,
}

impl Recorder<'_> {
    /// Notes `new` at a place that is not known yet.
    fn note(&mut self, new: impl FnOnce(&mut Trace) -> Node) -> Result<(), Stop> {
        if let Node::Unknown = self.node {
            self.trace.nodes += 1;
            if self.trace.nodes > MAX_NODES {
                return Err(self.trace.stop(Verdict::Never));
            }
            *self.node = new(self.trace);
        }
        Ok(())
    }

    /// The type asks for another thing here than it did before: its bytes depend on their values.
    fn changed<R>(self) -> Result<R, Stop> {
        Err(self.trace.stop(Verdict::Never))
    }

    fn untraceable<R>(self) -> Result<R, Stop> {
        Err(self.trace.stop(Verdict::Never))
    }

    /// One of `values`: the next one each time the type refused.
    fn leaf<T: Copy>(mut self, kind: Kind, values: &[T]) -> Result<T, Stop> {
        self.note(|trace| {
            trace.values.push((0, values.len()));
            Node::Leaf { kind, id: trace.values.len() - 1 }
        })?;
        match *self.node {
            Node::Leaf { kind: before, id } if before == kind => {
                self.trace.last_leaf = Some(id);
                let (tried, _) = self.trace.values[id];
                values.get(tried).copied().ok_or(Stop)
            }
            _ => self.changed(),
        }
    }

    fn unit(mut self) -> Result<(), Stop> {
        self.note(|_| Node::Unit)?;
        if let Node::Unit = self.node { Ok(()) } else { self.changed() }
    }

    /// Goes one layer in, or, where that would repeat what is known, only ends the value.
    fn layer<R>(
        mut self,
        name: Option<Name>,
        inside: impl FnOnce(Recorder<'_>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        if self.trace.depth == MAX_DEPTH {
            return self.untraceable();
        }
        self.trace.depth += 1;
        let result = match self.trace.repeated(name) {
            Some(up) => self.end(up, name, inside),
            None => Recorder { trace: &mut *self.trace, node: &mut *self.node }.named(name, inside),
        };
        self.trace.depth -= 1;
        result
    }

    fn named<R>(
        self,
        name: Option<Name>,
        inside: impl FnOnce(Recorder<'_>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        self.trace.around.extend(name);
        let result = inside(Recorder { trace: &mut *self.trace, node: self.node });
        if name.is_some() {
            self.trace.around.pop();
        }
        result
    }

    /// Notes how far up the type stands, then ends the value.
    fn end<R>(
        &mut self,
        up: usize,
        name: Option<Name>,
        inside: impl FnOnce(Recorder<'_>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        self.note(|_| Node::Again { up, filler: Box::default(), ended: false })?;
        let Node::Again { filler, ended, .. } = &mut *self.node else {
            return Err(self.trace.stop(Verdict::Never));
        };
        self.trace.ending = true;
        let result = Recorder { trace: &mut *self.trace, node: filler }.named(name, inside);
        self.trace.ending = false;
        *ended |= result.is_ok();
        result
    }

    fn fields<'de, V: Visitor<'de>>(
        mut self,
        names: &'static [&'static str],
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(|_| Node::Fields { names, children: Vec::new() })?;
        match self.node {
            Node::Fields { names: before, children } if *before == names => {
                visitor.visit_seq(Parts { trace: self.trace, children, next: 0, len })
            }
            _ => self.changed(),
        }
    }
}

macro_rules! leaves {
    ($($method:ident => $visit:ident, $kind:ident, $values:expr;)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
                visitor.$visit(self.leaf(Kind::$kind, &$values)?)
            }
        )*
    };
}

/// Texts for types that check theirs: most accept one of these.
const TEXTS: [&str; 9] = [
    "a",
    "1",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "00:00:00",
    "https://example.com/",
    "a@example.com",
    "00000000-0000-4000-8000-000000000000",
    "",
];

/// Lengths for types that are a fixed number of bytes: ids, keys, hashes.
const LENGTHS: [usize; 9] = [0, 16, 32, 8, 4, 12, 20, 24, 64];
const BYTES: [u8; 64] = [1; 64];

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Stop;

    leaves! {
        deserialize_bool => visit_bool, Bool, [true, false];
        deserialize_i8 => visit_i8, I8, [1, 0];
        deserialize_i16 => visit_i16, I16, [1, 0];
        deserialize_i32 => visit_i32, I32, [1, 0];
        deserialize_i64 => visit_i64, I64, [1, 0];
        deserialize_i128 => visit_i128, I128, [1, 0];
        deserialize_u8 => visit_u8, U8, [1, 0];
        deserialize_u16 => visit_u16, U16, [1, 0];
        deserialize_u32 => visit_u32, U32, [1, 0];
        deserialize_u64 => visit_u64, U64, [1, 0];
        deserialize_u128 => visit_u128, U128, [1, 0];
        deserialize_f32 => visit_f32, F32, [1.0, 0.0];
        deserialize_f64 => visit_f64, F64, [1.0, 0.0];
        deserialize_char => visit_char, Char, ['a', '1'];
        deserialize_str => visit_borrowed_str, Str, TEXTS;
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_string(self.leaf(Kind::Str, &TEXTS)?.to_owned())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_borrowed_bytes(&BYTES[..self.leaf(Kind::Bytes, &LENGTHS)?])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_byte_buf(BYTES[..self.leaf(Kind::Bytes, &LENGTHS)?].to_vec())
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.unit()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.layer(Some(Name::Newtype(name)), |inside| visitor.visit_newtype_struct(inside))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.layer(None, |mut inside| {
            inside.note(|_| Node::Optional(Box::default()))?;
            match inside.node {
                Node::Optional(_) if inside.trace.ending => visitor.visit_none(),
                Node::Optional(node) => visitor.visit_some(Recorder { trace: inside.trace, node }),
                _ => inside.changed(),
            }
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.layer(None, |mut inside| {
            inside.note(|_| Node::Sequence(Box::default()))?;
            let len = usize::from(!inside.trace.ending);
            match inside.node {
                Node::Sequence(node) => visitor.visit_seq(Repeated { trace: inside.trace, node, len }),
                _ => inside.changed(),
            }
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.layer(None, |mut inside| {
            inside.note(|_| Node::Map(Box::default()))?;
            let len = usize::from(!inside.trace.ending);
            match inside.node {
                Node::Map(node) => visitor.visit_map(Repeated { trace: inside.trace, node, len }),
                _ => inside.changed(),
            }
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.layer(None, |inside| inside.fields(&[], len, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.layer(Some(Name::Tuple(name, len)), |inside| inside.fields(&[], len, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.layer(Some(Name::Struct(name, fields)), |inside| inside.fields(fields, fields.len(), visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let name = Name::Enum(name, variants);
        self.layer(Some(name), |mut inside| {
            let unknown = || variants.iter().map(|_| Node::Unknown).collect();
            inside.note(|_| Node::Enum { names: variants, contents: unknown() })?;
            match inside.node {
                Node::Enum { names, contents } if *names == variants => {
                    choose(inside.trace, contents, name, visitor)
                }
                _ => inside.changed(),
            }
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        self.untraceable()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        self.untraceable()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        self.untraceable()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Gives a variant that is not completely known, or, to end a value, one that leads out of it.
fn choose<'de, V: Visitor<'de>>(
    trace: &mut Trace,
    contents: &mut Vec<Node>,
    name: Name,
    visitor: V,
) -> Result<V::Value, Stop> {
    if !trace.ending {
        let index = contents.iter().position(|content| !content.is_complete()).unwrap_or(0);
        return visitor.visit_enum(Chosen { trace, contents, index });
    }
    let (place, index) = trace.ending(name, contents.len())?;
    trace.trying.push(place);
    let value = visitor.visit_enum(Chosen { trace: &mut *trace, contents, index })?;
    trace.trying.pop();
    trace.endings[place].works = true;
    Ok(value)
}

/// The fields of a struct or tuple, in order.
struct Parts<'t> {
    trace: &'t mut Trace,
    children: &'t mut Vec<Node>,
    next: usize,
    len: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if self.next == self.len {
            return Ok(None);
        }
        if self.next == self.children.len() {
            self.children.push(Node::Unknown);
        }
        let node = &mut self.children[self.next];
        self.next += 1;
        seed.deserialize(Recorder { trace: self.trace, node }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.next)
    }
}

/// One element or pair of a collection; none where the value is to end.
struct Repeated<'t, N> {
    trace: &'t mut Trace,
    node: &'t mut N,
    len: usize,
}

impl<'de> SeqAccess<'de> for Repeated<'_, Box<Node>> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if self.len == 0 {
            return Ok(None);
        }
        self.len -= 1;
        seed.deserialize(Recorder { trace: self.trace, node: self.node }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len)
    }
}

impl<'de> MapAccess<'de> for Repeated<'_, Box<(Node, Node)>> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        if self.len == 0 {
            return Ok(None);
        }
        self.len -= 1;
        seed.deserialize(Recorder { trace: self.trace, node: &mut self.node.0 }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(Recorder { trace: self.trace, node: &mut self.node.1 })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len)
    }
}

/// One variant of an enum.
struct Chosen<'t> {
    trace: &'t mut Trace,
    contents: &'t mut Vec<Node>,
    index: usize,
}

impl<'de, 't> EnumAccess<'de> for Chosen<'t> {
    type Error = Stop;
    type Variant = Recorder<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Recorder<'t>), Stop> {
        let index = u32::try_from(self.index).map_err(|_| Stop)?;
        let key = IntoDeserializer::<Stop>::into_deserializer(index);
        match seed.deserialize(key) {
            Ok(variant) => match self.contents.get_mut(self.index) {
                Some(node) => Ok((variant, Recorder { trace: self.trace, node })),
                None => Err(self.trace.stop(Verdict::Never)),
            },
            // serde lists aliases among the names, so there are fewer variants than names
            Err(_) if self.index > 0 && !self.trace.ending => {
                self.contents.truncate(self.index);
                Err(self.trace.stop(Verdict::Again))
            }
            Err(_) => Err(self.trace.stop(Verdict::Never)),
        }
    }
}

impl<'de> VariantAccess<'de> for Recorder<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.unit()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.fields(&[], len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.fields(fields, fields.len(), visitor)
    }
}
