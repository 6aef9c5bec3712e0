use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::bounds::MAX_EMPTY;
use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Pair(Box<Tree>, Box<Tree>),
    Many { name: String, inside: Vec<Tree> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Link {
    next: Option<Box<Link>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nest(Vec<Nest>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Bare(Vec<Bare>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Chain {
    End,
    Next(Box<Chain>),
}

/// As ids and hashes of other crates do: exactly 16 bytes or an error.
#[derive(Debug, PartialEq)]
struct Digest([u8; 16]);

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Digest;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("16 bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Digest, E> {
                bytes.try_into().map(Digest).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    integers: (u8, u16, u32, u64, u128, usize),
    signed: (i8, i16, i32, i64, i128),
    floats: (f32, f64),
    letter: char,
    flag: bool,
    text: String,
    unit: (),
    option: Option<Option<u8>>,
    map: BTreeMap<String, Vec<u32>>,
    array: [u8; 3],
    tree: Tree,
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut buffer = Vec::new();
    encode_into(value, &mut buffer).map(|()| buffer)
}

/// Decodes, and where that gives a value, writes it and reads it once more.
fn survives<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        let again = encode(&value).expect("what was decoded is within the limits of encoding");
        decode::<T>(&again).expect("what was encoded can be decoded");
    }
}

fn survives_as_anything(bytes: &[u8]) {
    survives::<Vec<Vec<String>>>(bytes);
    survives::<Tree>(bytes);
    survives::<HashMap<String, u8>>(bytes);
    survives::<HashMap<(), Vec<()>>>(bytes);
    survives::<Vec<()>>(bytes);
    survives::<Vec<Vec<()>>>(bytes);
    survives::<Option<Box<Link>>>(bytes);
    survives::<Nest>(bytes);
    survives::<Bare>(bytes);
    survives::<Chain>(bytes);
    survives::<BTreeMap<Chain, Chain>>(bytes);
    survives::<u128>(bytes);
    survives::<char>(bytes);
    survives::<f64>(bytes);
    survives::<(bool, i16, std::time::Duration)>(bytes);
    survives::<std::time::SystemTime>(bytes);
    survives::<Digest>(bytes);
    survives::<Everything>(bytes);
}

fn in_a_small_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap();
    thread.join().unwrap()
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![Just(Tree::Leaf), any::<i64>().prop_map(Tree::Number)];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Tree::Pair(Box::new(a), Box::new(b))),
            (".{0,9}", proptest::collection::vec(inner, 0..4))
                .prop_map(|(name, inside)| Tree::Many { name, inside }),
        ]
    })
}

fn everything() -> impl Strategy<Value = Everything> {
    let numbers =
        (any::<(u8, u16, u32, u64, u128, usize)>(), any::<(i8, i16, i32, i64, i128)>(), any::<(f32, f64)>());
    let map = proptest::collection::btree_map(".{0,5}", any::<Vec<u32>>(), 0..4);
    let rest =
        (any::<(char, bool)>(), ".{0,300}", any::<Option<Option<u8>>>(), map, any::<[u8; 3]>(), tree());
    (numbers, rest).prop_map(
        |((integers, signed, floats), ((letter, flag), text, option, map, array, tree))| Everything {
            integers,
            signed,
            floats,
            letter,
            flag,
            text,
            unit: (),
            option,
            map,
            array,
            tree,
        },
    )
}

/// Bytes that look like lengths, tags and small numbers more often than random ones do.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..4, 2 => any::<u8>(), 1 => 250_u8..=255];
    proptest::collection::vec(byte, 0..400)
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_bincode_and_come_back(value in everything()) {
        let bytes = encode(&value).unwrap();
        prop_assert_eq!(&bytes, &encode_theirs(&value));
        prop_assert_eq!(encode(&decode::<Everything>(&bytes).unwrap()).unwrap(), bytes);
        prop_assert_eq!(probe(&value), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_are_a_value(bytes in likely_bytes()) {
        survives_as_anything(&bytes);
    }

    #[test]
    fn damaged_bytes_are_refused_or_are_a_value(
        value in everything(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&value).unwrap();
        prop_assert!(decode::<Everything>(&bytes[..cut.index(bytes.len())]).is_err());
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives_as_anything(&bytes);
    }
}

#[test]
fn a_depth_bomb_of_a_mebibyte_is_refused_on_a_small_stack() {
    in_a_small_thread(|| {
        for byte in [1_u8, 2, 3] {
            let bomb = vec![byte; 1024 * 1024];
            survives_as_anything(&bomb);
        }
        let bomb = vec![1; 1024 * 1024];
        let too_deep = |result| matches!(result, Err(DecodeError::TooDeep { .. }));
        assert!(too_deep(decode::<Link>(&bomb).map(drop)));
        assert!(too_deep(decode::<Nest>(&bomb).map(drop)));
        assert!(too_deep(decode::<Bare>(&bomb).map(drop)));
        assert!(too_deep(decode::<Chain>(&bomb).map(drop)));
        assert!(too_deep(decode::<Tree>(&vec![2; 1024 * 1024]).map(drop)));
    });
}

#[test]
fn what_is_accepted_for_encoding_is_never_too_deep_for_decoding() {
    fn agree<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> bool {
        let read = decode::<T>(&encode_theirs(value));
        match encode(value) {
            Ok(_) => assert_eq!(read.as_ref(), Ok(value)),
            Err(error) => {
                assert_eq!(error, EncodeError::TooDeep);
                assert!(matches!(read, Err(DecodeError::TooDeep { .. })), "{read:?}");
            }
        }
        read.is_ok()
    }
    in_a_small_thread(|| {
        let (mut link, mut nest, mut bare, mut chain, mut tree) =
            (Link { next: None }, Nest(vec![]), Bare(vec![]), Chain::End, Tree::Leaf);
        let mut accepted = [0; 5];
        for _ in 0..150 {
            accepted[0] += usize::from(agree(&link));
            accepted[1] += usize::from(agree(&nest));
            accepted[2] += usize::from(agree(&bare));
            accepted[3] += usize::from(agree(&chain));
            accepted[4] += usize::from(agree(&tree));
            link = Link { next: Some(Box::new(link)) };
            nest = Nest(vec![nest]);
            bare = Bare(vec![bare]);
            chain = Chain::Next(Box::new(chain));
            tree = Tree::Many { name: String::new(), inside: vec![tree] };
        }
        // an option and a struct, or a newtype and a sequence, are two layers each
        assert_eq!(accepted, [64, 64, 128, 128, 64]);
    });
}

/// The varint of a length that needs eight bytes.
fn length(claimed: u64) -> Vec<u8> {
    [&[253][..], &claimed.to_le_bytes()].concat()
}

#[test]
fn a_claimed_length_beyond_the_bytes_is_refused_where_it_stands() {
    for claimed in [200_000, u64::from(u32::MAX), 1 << 40, u64::MAX] {
        let bomb = length(claimed);
        let expected = DecodeError::ClaimTooLong { at: 0, claimed, left: 0 };
        assert_eq!(decode::<Vec<u64>>(&bomb), Err(expected.clone()));
        assert_eq!(decode::<String>(&bomb), Err(expected.clone()));
        assert_eq!(decode::<HashMap<u64, u64>>(&bomb), Err(expected.clone()));
        assert_eq!(decode::<Vec<()>>(&bomb), Err(expected.clone()));
        assert_eq!(decode_borrowed::<&str>(&bomb), Err(expected.clone()));
        assert_eq!(decode_borrowed::<&[u8]>(&bomb), Err(expected));
    }
}

#[test]
fn elements_without_bytes_are_limited_in_number_alike_on_both_sides() {
    let most = vec![(); MAX_EMPTY];
    assert_eq!(decode::<Vec<()>>(&encode(&most).unwrap()).unwrap().len(), MAX_EMPTY);
    let halves = |extra: usize| vec![vec![(); MAX_EMPTY / 2], vec![(); MAX_EMPTY / 2 + extra]];
    assert!(decode::<Vec<Vec<()>>>(&encode(&halves(0)).unwrap()).is_ok());
    assert_eq!(encode(&halves(1)), Err(EncodeError::TooManyEmpty));
    let refused = decode::<Vec<Vec<()>>>(&encode_theirs(&halves(1)));
    assert!(matches!(refused, Err(DecodeError::ClaimTooLong { .. } | DecodeError::TooManyEmpty { .. })));
}

#[test]
#[cfg(target_os = "linux")]
fn hostile_lengths_reserve_next_to_nothing() {
    if !crate::hostile::with_memory_limit("codec::tests::hostile_lengths_reserve_next_to_nothing", 24) {
        return;
    }
    // a string of 60 MiB, claimed by ten bytes
    assert!(decode::<String>(&length(60 * 1024 * 1024)).is_err());
    assert!(decode::<Vec<Vec<u8>>>(&[&[1][..], &length(60 * 1024 * 1024)].concat()).is_err());
    // every level claims as many elements as there are bytes left
    let claims: Vec<u8> = (0..120).flat_map(|_| length(500_000)).collect();
    let mut bomb = claims;
    bomb.resize(1024 * 1024, 0);
    assert!(decode::<Bare>(&bomb).is_err());
    assert!(decode::<Nest>(&bomb).is_err());
    assert!(decode::<Vec<[[u64; 32]; 32]>>(&bomb).is_err());
    survives_as_anything(&bomb);
}

#[test]
fn an_error_leaves_the_buffer_as_it_was() {
    let mut buffer = b"before".to_vec();
    let value = (String::from("written first"), std::cell::RefCell::new(1));
    let held = value.1.borrow_mut();
    assert!(matches!(encode_into(&value, &mut buffer), Err(EncodeError::Rejected { .. })));
    drop(held);
    assert_eq!(buffer, b"before");
    encode_into(&value, &mut buffer).unwrap();
    assert_eq!(buffer, b"before\x0dwritten first\x02");
}

#[test]
fn a_value_larger_than_64_mebibytes_is_refused_on_both_sides() {
    let mut text = "x".repeat(MAX_BYTES - 5);
    assert_eq!(encode(&text).unwrap().len(), MAX_BYTES);
    text.push('x');
    let (found, limit) = (MAX_BYTES + 1, MAX_BYTES);
    assert_eq!(encode(&text), Err(EncodeError::OverLimit { what: "the value, in bytes", found, limit }));
    assert_eq!(
        decode::<String>(&vec![0; MAX_BYTES + 1]),
        Err(DecodeError::OverLimit { what: "the value, in bytes", found, limit })
    );
}

#[test]
fn errors_say_at_which_byte() {
    assert_eq!(decode::<(u8, bool)>(&[0, 2]), Err(DecodeError::Invalid { at: 1, what: "a boolean" }));
    assert_eq!(decode::<(u8, Option<u8>)>(&[0, 7]), Err(DecodeError::Invalid { at: 1, what: "an option" }));
    assert_eq!(decode::<(u8, char)>(&[0, 0xff]), Err(DecodeError::Invalid { at: 1, what: "a character" }));
    assert_eq!(
        decode::<String>(&[3, b'a', 0xff, b'b']),
        Err(DecodeError::Invalid { at: 2, what: "a character in UTF-8" })
    );
    assert_eq!(decode::<(u8, u64)>(&[0, 253, 1]), Err(DecodeError::Truncated { at: 1, missing: 7 }));
    assert_eq!(decode::<u8>(&[1, 2, 3]), Err(DecodeError::TrailingBytes { at: 1, left: 2 }));
    let unknown = decode::<(u8, Chain)>(&[0, 9]).unwrap_err();
    assert!(matches!(unknown, DecodeError::Rejected { at: 2, .. }), "{unknown}");
    assert!(unknown.to_string().contains("expected variant index 0 <= i < 2"), "{unknown}");
}

#[test]
fn a_borrowed_value_says_how_many_bytes_it_took() {
    assert_eq!(decode_borrowed::<(&str, u8)>(b"\x02ab\x07rest").unwrap(), (("ab", 7), 4));
}

mod probing {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        A { x: u8 },
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        A(u8),
    }

    #[derive(Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        b: u8,
    }

    #[derive(Serialize, Deserialize)]
    struct OneSided {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "only how it is encoded matters")]
        a: u8,
        b: u8,
    }

    #[derive(Serialize, Deserialize)]
    struct Flattens {
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }

    #[derive(Serialize, Deserialize)]
    struct Swapped {
        #[serde(with = "swapped")]
        pair: (u8, u8),
    }

    mod swapped {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(super) fn serialize<S: Serializer>(pair: &(u8, u8), serializer: S) -> Result<S::Ok, S::Error> {
            (pair.1, pair.0).serialize(serializer)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u8, u8), D::Error> {
            Deserialize::deserialize(deserializer)
        }
    }

    #[test]
    fn types_that_cannot_be_read_back_are_found_and_the_error_names_the_attribute() {
        let tagged = probe(&Tagged::A { x: 1 }).unwrap_err();
        assert!(matches!(tagged, ProbeError::NotReadBack { .. }));
        assert!(tagged.to_string().contains("#[serde(tag)]"), "{tagged}");
        let untagged = probe(&Untagged::A(1)).unwrap_err();
        assert!(matches!(untagged, ProbeError::NotReadBack { .. }));
        let value = probe(&serde_json::json!({"a": 1})).unwrap_err();
        assert!(matches!(value, ProbeError::NotReadBack { .. }));
        assert!(matches!(probe(&OneSided { a: 1, b: 2 }), Err(ProbeError::NotReadBack { .. })));
        let flattens = probe(&Flattens { rest: BTreeMap::new() }).unwrap_err();
        assert!(flattens.to_string().contains("#[serde(flatten)]"), "{flattens}");
        assert!(matches!(probe(&Swapped { pair: (1, 2) }), Err(ProbeError::Changed { at: 0, .. })));
    }

    #[test]
    fn a_skipped_field_is_refused_at_the_value_that_skips_it_not_only_when_probed() {
        assert_eq!(probe(&Skips { a: Some(1), b: 2 }), Ok(()));
        let skips = encode(&Skips { a: None, b: 2 }).unwrap_err();
        assert_eq!(skips, EncodeError::SkippedField { field: "a" });
        assert!(skips.to_string().contains("skip_serializing_if"), "{skips}");
    }

    #[test]
    fn a_collection_without_an_order_is_read_back_in_any_order() {
        for _ in 0..20 {
            let map: HashMap<u32, HashSet<String>> =
                (0..9).map(|i| (i, (0..9).map(|j| format!("{i}{j}")).collect())).collect();
            assert_eq!(probe(&map), Ok(()));
        }
    }

    #[test]
    fn a_sequence_that_miscounts_is_refused() {
        struct Miscounts;
        impl Serialize for Miscounts {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq;
                let mut seq = serializer.serialize_seq(Some(2))?;
                seq.serialize_element(&1)?;
                seq.end()
            }
        }
        assert_eq!(encode(&Miscounts), Err(EncodeError::Miscounted { said: 2, wrote: 1 }));
    }
}

mod shapes {
    use std::num::{NonZeroI64, NonZeroU32};

    use super::*;

    /// Declares variations of one type, each in a scope of its own, and gives their fingerprints.
    macro_rules! fingerprints {
        ($($declaration:item as $name:ty;)*) => {
            [$({
                #[derive(Deserialize)]
                #[expect(dead_code, reason = "only its shape is asked for")]
                $declaration
                fingerprint::<$name>().expect("traceable")
            }),*]
        };
    }

    fn all_differ(prints: &[u32]) {
        let distinct: HashSet<_> = prints.iter().collect();
        assert_eq!(distinct.len(), prints.len(), "{prints:?}");
    }

    #[test]
    fn any_change_of_fields_changes_the_fingerprint() {
        all_differ(&fingerprints! {
            struct A { a: u8, b: String } as A;
            struct A { b: String, a: u8 } as A;
            struct A { a: u8 } as A;
            struct A { a: u8, b: String, c: u8 } as A;
            struct A { a: u16, b: String } as A;
            struct A { a: u8, c: String } as A;
            struct A { a: u8, b: Option<String> } as A;
            struct A { a: u8, b: Vec<String> } as A;
            struct A { a: u8, b: BTreeMap<String, u8> } as A;
            struct A { a: u8, b: BTreeMap<String, u16> } as A;
            struct A(u8, String); as A;
        });
    }

    #[test]
    fn any_change_of_variants_changes_the_fingerprint() {
        all_differ(&fingerprints! {
            enum A { X, Y(u8), Z { f: Option<u8> } } as A;
            enum A { Y(u8), X, Z { f: Option<u8> } } as A;
            enum A { X, Y(u8) } as A;
            enum A { X, Y(u8), Z { f: Option<u8> }, W } as A;
            enum A { X, Y(u16), Z { f: Option<u8> } } as A;
            enum A { X, Y(u8), Z { f: Option<u16> } } as A;
            enum A { X, Y(u8), Z { g: Option<u8> } } as A;
            enum A { X(u8), Y(u8), Z { f: Option<u8> } } as A;
            enum A { X, Q(u8), Z { f: Option<u8> } } as A;
        });
    }

    #[test]
    fn the_names_of_containers_and_newtypes_around_a_field_do_not_count() {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        struct Id(u64);
        let prints = fingerprints! {
            struct A { id: u64 } as A;
            struct Renamed { id: u64 } as Renamed;
            struct A { id: Id } as A;
            struct A { id: Box<usize> } as A;
        };
        // `usize` is written as `u64`
        assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    }

    #[test]
    fn a_change_deep_inside_nested_enums_is_seen() {
        all_differ(&fingerprints! {
            enum A { X(Result<Option<(u8, Result<u8, String>)>, Tree>), Y } as A;
            enum A { X(Result<Option<(u8, Result<u8, Vec<u8>>)>, Tree>), Y } as A;
            enum A { X(Result<Option<(u8, Result<u8, String>)>, Chain>), Y } as A;
        });
    }

    #[test]
    fn a_change_inside_a_recursive_type_is_seen() {
        all_differ(&fingerprints! {
            enum E { Add(Box<E>, Box<E>), Neg(Box<E>), Lit(i64) } as E;
            enum E { Add(Box<E>, Box<E>), Neg(Box<E>), Lit(i32) } as E;
            enum E { Add(Box<E>, Box<E>), Neg(i64), Lit(Box<E>) } as E;
            enum E { Add(Box<E>, i64), Neg(Box<E>), Lit(i64) } as E;
        });
        all_differ(&[
            fingerprint::<Tree>().unwrap(),
            fingerprint::<Link>().unwrap(),
            fingerprint::<Nest>().unwrap(),
            fingerprint::<Bare>().unwrap(),
            fingerprint::<Chain>().unwrap(),
            fingerprint::<Vec<Chain>>().unwrap(),
        ]);
    }

    #[test]
    fn a_generic_type_inside_itself_shows_its_parameter() {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        struct Page<T> {
            items: Vec<T>,
        }
        all_differ(&[
            fingerprint::<Page<Page<u8>>>().unwrap(),
            fingerprint::<Page<Page<u16>>>().unwrap(),
            fingerprint::<Page<u8>>().unwrap(),
        ]);
    }

    #[test]
    fn mutually_recursive_enums_whose_first_variants_never_end_are_traced() {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        enum E {
            F(Box<F>),
            Leaf(u8),
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        enum F {
            E(Box<E>),
            F(Box<F>),
        }
        assert!(fingerprint::<E>().is_some());
        assert!(fingerprint::<F>().is_some());
        assert!(fingerprint::<(F, E, F)>().is_some());
    }

    #[test]
    fn large_types_are_traced_soon_or_given_up_soon() {
        macro_rules! syntax {
            ($($name:ident)*) => {
                $(
                    #[derive(Deserialize)]
                    #[expect(dead_code, reason = "only its shape is asked for")]
                    enum $name {
                        Leaf(u8),
                        A(Vec<Stmt>),
                        B(Box<Expr>, Box<Type>),
                        C { of: Option<Box<Item>> },
                    }
                )*
            };
        }
        syntax!(Stmt Expr Type Item);
        let begun = std::time::Instant::now();
        assert!(fingerprint::<Vec<Result<Tree, (Tree, Chain)>>>().is_some());
        let _given_up_or_not = fingerprint::<(Stmt, Item)>();
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn types_that_check_their_values_are_traced_with_a_value_they_accept() {
        for print in [
            fingerprint::<NonZeroU32>(),
            fingerprint::<(NonZeroI64, String)>(),
            fingerprint::<Digest>(),
            fingerprint::<(String, Option<Digest>, Vec<Digest>)>(),
            fingerprint::<std::net::SocketAddr>(),
            fingerprint::<std::time::SystemTime>(),
            fingerprint::<HashMap<char, HashSet<[u8; 32]>>>(),
            fingerprint::<std::ops::Bound<std::path::PathBuf>>(),
        ] {
            assert!(print.is_some_and(|print| print != 0));
        }
    }

    #[test]
    fn what_cannot_be_traced_has_no_fingerprint() {
        #[derive(Deserialize)]
        #[serde(try_from = "u32")]
        struct Picky;
        impl TryFrom<u32> for Picky {
            type Error = &'static str;
            fn try_from(number: u32) -> Result<Self, Self::Error> {
                if number == 77 { Ok(Picky) } else { Err("not 77") }
            }
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        struct Endless {
            next: Box<Endless>,
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        enum EndlessToo {
            A(Box<EndlessToo>),
            B(Box<EndlessToo>, u8),
        }
        in_a_small_thread(|| {
            assert_eq!(fingerprint::<Picky>(), None);
            assert_eq!(fingerprint::<serde_json::Value>(), None);
            assert_eq!(fingerprint::<Endless>(), None);
            assert_eq!(fingerprint::<EndlessToo>(), None);
        });
    }

    #[test]
    fn a_variant_with_an_alias_is_traced() {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        enum A {
            #[serde(alias = "Old", alias = "Older")]
            New(u8),
            Other(u16),
        }
        assert!(fingerprint::<A>().is_some());
    }

    #[test]
    fn a_fingerprint_is_the_same_in_every_process_and_build() {
        // these numbers lie in stores: a change of them is `SchemaChanged` for every user
        assert_eq!(fingerprint::<Everything>(), Some(3_892_934_533));
        assert_eq!(fingerprint::<u8>(), Some(3_985_368_542));
    }
}
