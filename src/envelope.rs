//! The sealed form of a message, as it lies in a mailbox and in the journal.
//!
//! # Format 1 Numbers are big-endian; the head is written by hand, so that it stays readable whatever the
//! body's format becomes.
//!
//! | Bytes | What |
//! |---|---|
//! | 1 | format version: 1 |
//! | 1 | flags: 1 = somebody waits for a reply, 2 = expires, 4 = mark, 8 = headers; the others are 0 |
//! | 16 | message id (UUID) |
//! | 4 | version of the message type |
//! | 4 | shape of the message type; 0 = not traceable |
//! | 8 | sent at, milliseconds since 1970 |
//! | 1 | length of the name, at most 128 |
//! | n | name of the message type, UTF-8 |
//! | 8 | expires at, milliseconds since 1970; only with flag 2 |
//! | 16 | dedup mark whose record keeps the reply; only with flag 4 |
//! | 1 | number of headers, 1 to 64; only with flag 8 |
//! | per header | 1: key length, at most 128 · 2: value length, at most 4 096 · key and value, UTF-8 |
//! | rest | body, as the codec wrote it |
//!
//! # Invariants
//! - One message has one sealed form: what [`open`] accepts, [`seal_into`] writes again byte by byte.
//! - The body has no length of its own: whoever stores an envelope knows where it ends.
//! - [`open`] copies nothing, and reserves memory only for a list of headers.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::codec::{DecodeError, EncodeError};

/// The header that says which messages are handled one after the other.
pub(crate) const ORDER_KEY: &str = "steadfast-key";

/// The header that says that an event's key is gone; its value is empty.
pub(crate) const TOMBSTONE: &str = "steadfast-tombstone";

/// The only format there is so far.
const FORMAT: u8 = 1;

/// The longest message name, in bytes.
pub(crate) const MAX_NAME: usize = 128;
/// The most headers of one message.
pub(crate) const MAX_HEADERS: usize = 64;
/// The longest key of a header, in bytes.
pub(crate) const MAX_KEY: usize = 128;
/// The longest value of a header, in bytes.
pub(crate) const MAX_VALUE: usize = 4096;

const ASKS: u8 = 1;
const EXPIRES: u8 = 2;
const MARK: u8 = 4;
const HEADERS: u8 = 8;

const NAME: &str = "the message name, in bytes";
const COUNT: &str = "the number of headers";
const KEY: &str = "the key of a header, in bytes";
const VALUE: &str = "the value of a header, in bytes";

/// The identity of one message, the same through every retry and restart.
///
/// Ids of messages sent from outside are UUIDs of version 7. Ids of messages sent in a turn are derived (UUID version 5)
/// from the message that was handled, so that a turn that is run again sends the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId([u8; 16]);

impl MessageId {
    pub(crate) fn of(id: Uuid) -> Self {
        MessageId(id.into_bytes())
    }

    /// The id's 16 bytes, as of a UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From the 16 bytes of [`MessageId::as_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        MessageId(bytes)
    }

    /// A key for calls to the outside world, the same whenever the message is handled.
    pub(crate) fn key_for(self, label: &str) -> String {
        Uuid::new_v5(&self.uuid(), label.as_bytes()).to_string()
    }

    pub(crate) fn uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid().fmt(f)
    }
}

/// Text that travels with a message: trace ids, tenants, whatever the receiver or an edge should know beside
/// the message itself. Each key stands once; the order is that of the first insertion.
///
/// A message carries at most 64 headers, with keys of at most 128 bytes and values of at most 4 KiB. Sending
/// one with more is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Headers(Vec::new())
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(k, value)| (k == key).then_some(value))
    }

    /// Puts `value` under `key`; gives back the value that was there before.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> Option<String> {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, there)) => Some(std::mem::replace(there, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut headers = Headers::new();
        for (key, value) in pairs {
            headers.insert(key, value);
        }
        headers
    }
}

/// What is known of a message beside its body.
#[derive(Debug, Clone)]
pub(crate) struct EnvelopeHead<'a> {
    pub(crate) id: Uuid,
    /// The message type's NAME.
    pub(crate) name: &'a str,
    /// The message type's version.
    pub(crate) version: u32,
    /// The message type's fingerprint, 0 where it cannot be traced.
    pub(crate) shape: u32,
    pub(crate) sent_at: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    /// Somebody waits for a reply.
    pub(crate) asks: bool,
    /// The dedup mark whose record keeps the reply.
    pub(crate) mark: Option<[u8; 16]>,
    pub(crate) headers: &'a Headers,
}

/// A message as it was sealed, its body still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) id: Uuid,
    pub(crate) name: &'a str,
    pub(crate) version: u32,
    pub(crate) shape: u32,
    pub(crate) sent_at: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) asks: bool,
    pub(crate) mark: Option<[u8; 16]>,
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
}

/// Appends the sealed message to `buffer`, whose body `body` appends in its turn; on an error the buffer is
/// as it was.
pub(crate) fn seal_into(
    head: &EnvelopeHead<'_>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    buffer: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let before = buffer.len();
    let sealed = write_head(head, buffer).and_then(|()| body(buffer));
    if sealed.is_err() {
        buffer.truncate(before);
    }
    sealed
}

/// Changes when a sealed message says that it was sent.
pub(crate) fn date(sealed: &mut [u8], sent_at: Timestamp) {
    // behind the format, the flags, the id, the version and the shape
    const AT: usize = 1 + 1 + 16 + 4 + 4;
    if let Some(bytes) = sealed.get_mut(AT..AT + 8) {
        bytes.copy_from_slice(&sent_at.as_millis().to_be_bytes());
    }
}

fn write_head(head: &EnvelopeHead<'_>, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    buffer.push(FORMAT);
    buffer.push(flags(head));
    buffer.extend_from_slice(head.id.as_bytes());
    buffer.extend_from_slice(&head.version.to_be_bytes());
    buffer.extend_from_slice(&head.shape.to_be_bytes());
    buffer.extend_from_slice(&head.sent_at.as_millis().to_be_bytes());
    buffer.push(within(NAME, head.name.len(), MAX_NAME)?);
    buffer.extend_from_slice(head.name.as_bytes());
    if let Some(expires) = head.expires {
        buffer.extend_from_slice(&expires.as_millis().to_be_bytes());
    }
    if let Some(mark) = head.mark {
        buffer.extend_from_slice(&mark);
    }
    write_headers(head.headers, buffer)
}

fn flags(head: &EnvelopeHead<'_>) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(head.asks, ASKS)
        | flag(head.expires.is_some(), EXPIRES)
        | flag(head.mark.is_some(), MARK)
        | flag(!head.headers.is_empty(), HEADERS)
}

fn write_headers(headers: &Headers, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    if headers.is_empty() {
        return Ok(());
    }
    buffer.push(within(COUNT, headers.len(), MAX_HEADERS)?);
    for (key, value) in headers.iter() {
        buffer.push(within(KEY, key.len(), MAX_KEY)?);
        buffer.extend_from_slice(&within::<u16>(VALUE, value.len(), MAX_VALUE)?.to_be_bytes());
        buffer.extend_from_slice(key.as_bytes());
        buffer.extend_from_slice(value.as_bytes());
    }
    Ok(())
}

/// The size as the number that is written, where it is within its limit.
fn within<N: TryFrom<usize>>(what: &'static str, found: usize, limit: usize) -> Result<N, EncodeError> {
    let over = EncodeError::OverLimit { what, found, limit };
    if found > limit { Err(over) } else { N::try_from(found).map_err(|_| over) }
}

/// Reads the head of a sealed message; everything in it borrows from `bytes`.
pub(crate) fn open(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let [format] = reader.array()?;
    if format != FORMAT {
        return Err(DecodeError::UnknownFormat { found: format });
    }
    let [flags] = reader.array()?;
    if flags & !(ASKS | EXPIRES | MARK | HEADERS) != 0 {
        return Err(DecodeError::Invalid { at: 1, what: "an envelope's flags" });
    }
    let id = Uuid::from_bytes(reader.array()?);
    let version = u32::from_be_bytes(reader.array()?);
    let shape = u32::from_be_bytes(reader.array()?);
    let sent_at = reader.time()?;
    let [name_len] = reader.array()?;
    let name = reader.text(NAME, name_len.into(), MAX_NAME)?;
    let expires = if flags & EXPIRES == 0 { None } else { Some(reader.time()?) };
    let mark = if flags & MARK == 0 { None } else { Some(reader.array()?) };
    let headers = if flags & HEADERS == 0 { Vec::new() } else { reader.headers()? };
    let body = &bytes[reader.at..];
    Ok(Envelope { id, name, version, shape, sent_at, expires, asks: flags & ASKS != 0, mark, headers, body })
}

/// The bytes of an envelope and how many of them are read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let missing = || DecodeError::Truncated { at: self.at, missing: len - rest.len() };
        let taken = rest.get(..len).ok_or_else(missing)?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn time(&mut self) -> Result<Timestamp, DecodeError> {
        Ok(Timestamp::from_millis(u64::from_be_bytes(self.array()?)))
    }

    fn text(&mut self, what: &'static str, len: usize, limit: usize) -> Result<&'a str, DecodeError> {
        if len > limit {
            return Err(DecodeError::OverLimit { what, found: len, limit });
        }
        let at = self.at;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|error| DecodeError::Invalid {
            at: at + error.valid_up_to(),
            what: "a character in UTF-8",
        })
    }

    fn headers(&mut self) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        let [count] = self.array()?;
        match usize::from(count) {
            0 => Err(DecodeError::Invalid { at: self.at - 1, what: "a list of headers" }),
            found if found > MAX_HEADERS => {
                Err(DecodeError::OverLimit { what: COUNT, found, limit: MAX_HEADERS })
            }
            // 64 pairs are 2 KiB: little enough to reserve for a count that may lie
            found => (0..found).try_fold(Vec::with_capacity(found), |mut headers, _| {
                headers.push(self.header()?);
                Ok(headers)
            }),
        }
    }

    fn header(&mut self) -> Result<(&'a str, &'a str), DecodeError> {
        let [key] = self.array()?;
        let value = u16::from_be_bytes(self.array()?);
        Ok((self.text(KEY, key.into(), MAX_KEY)?, self.text(VALUE, value.into(), MAX_VALUE)?))
    }
}

/// Opened and sealed again, an envelope is the same bytes; or it is refused.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_canonical(bytes: &[u8]) -> bool {
    let Ok(envelope) = open(bytes) else { return false };
    // not through `insert`: damaged bytes may hold a key twice
    let pairs = envelope.headers.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    let headers = Headers(pairs.collect());
    let head = EnvelopeHead {
        id: envelope.id,
        name: envelope.name,
        version: envelope.version,
        shape: envelope.shape,
        sent_at: envelope.sent_at,
        expires: envelope.expires,
        asks: envelope.asks,
        mark: envelope.mark,
        headers: &headers,
    };
    let mut again = Vec::new();
    let copied = |buffer: &mut Vec<u8>| {
        buffer.extend_from_slice(envelope.body);
        Ok(())
    };
    assert_eq!(seal_into(&head, copied, &mut again), Ok(()));
    assert_eq!(again, bytes);
    true
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head<'a>(headers: &'a Headers, name: &'a str) -> EnvelopeHead<'a> {
        EnvelopeHead {
            id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            name,
            version: 2,
            shape: 0xa1b2_c3d4,
            sent_at: Timestamp::from_millis(1_000),
            expires: None,
            asks: false,
            mark: None,
            headers,
        }
    }

    fn sealed(head: &EnvelopeHead<'_>, body: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let mut buffer = Vec::new();
        let copy = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(body);
            Ok(())
        };
        seal_into(head, copy, &mut buffer)?;
        Ok(buffer)
    }

    #[test]
    fn the_bytes_of_an_envelope_are_those_of_format_1() {
        let headers = Headers::from_iter([("k", "val")]);
        let full = EnvelopeHead {
            expires: Some(Timestamp::from_millis(2_000)),
            asks: true,
            mark: Some([9; 16]),
            ..head(&headers, "a.b")
        };
        #[rustfmt::skip]
        let expected = [
            &[1, 15][..],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
            &[0, 0, 0, 2], &[0xa1, 0xb2, 0xc3, 0xd4], &[0, 0, 0, 0, 0, 0, 3, 232],
            &[3], b"a.b",
            &[0, 0, 0, 0, 0, 0, 7, 208], &[9; 16],
            &[1, 1, 0, 3], b"k", b"val",
            b"body",
        ]
        .concat();
        assert_eq!(sealed(&full, b"body").unwrap(), expected);
    }

    #[test]
    fn a_plain_envelope_takes_35_bytes_and_its_name() {
        let headers = Headers::new();
        assert_eq!(sealed(&head(&headers, "inventory.reserve"), b"").unwrap().len(), 35 + 17);
    }

    #[test]
    fn a_later_format_is_an_error_of_its_own() {
        let mut bytes = sealed(&head(&Headers::new(), "m"), b"").unwrap();
        bytes[0] = 2;
        assert_eq!(open(&bytes), Err(DecodeError::UnknownFormat { found: 2 }));
    }

    #[test]
    fn an_empty_list_of_headers_is_refused_for_it_is_written_without_one() {
        let mut bytes = sealed(&head(&Headers::new(), "m"), &[0]).unwrap();
        bytes[1] = HEADERS;
        assert_eq!(open(&bytes), Err(DecodeError::Invalid { at: 36, what: "a list of headers" }));
        *bytes.last_mut().unwrap() = 65;
        assert_eq!(open(&bytes), Err(DecodeError::OverLimit { what: COUNT, found: 65, limit: 64 }));
    }

    #[test]
    fn names_and_headers_over_their_limits_are_refused_and_the_buffer_is_as_before() {
        let long = |n: usize| "x".repeat(n);
        let many = |n: usize| (0..n).map(|i| (i.to_string(), "v")).collect::<Headers>();
        let cases = [
            (Headers::new(), long(129), EncodeError::OverLimit { what: NAME, found: 129, limit: 128 }),
            (many(65), long(1), EncodeError::OverLimit { what: COUNT, found: 65, limit: 64 }),
            (
                Headers::from_iter([(long(300), "v")]),
                long(1),
                EncodeError::OverLimit { what: KEY, found: 300, limit: 128 },
            ),
            (
                Headers::from_iter([("k", long(70_000))]),
                long(1),
                EncodeError::OverLimit { what: VALUE, found: 70_000, limit: 4096 },
            ),
        ];
        for (headers, name, expected) in cases {
            let mut buffer = b"before".to_vec();
            assert_eq!(seal_into(&head(&headers, &name), |_| Ok(()), &mut buffer), Err(expected));
            assert_eq!(buffer, b"before");
        }
        let widest: Headers =
            (0..64).map(|i| (format!("{i:0>128}"), long(4096))).collect::<Vec<_>>().into_iter().collect();
        let bytes = sealed(&head(&widest, &long(128)), b"body").unwrap();
        let opened = open(&bytes).unwrap();
        assert_eq!((opened.headers.len(), opened.body), (64, &b"body"[..]));
    }

    #[test]
    fn a_body_that_fails_leaves_the_buffer_as_before() {
        let mut buffer = b"before".to_vec();
        let body = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(b"half");
            Err(EncodeError::TooDeep)
        };
        assert_eq!(seal_into(&head(&Headers::new(), "m"), body, &mut buffer), Err(EncodeError::TooDeep));
        assert_eq!(buffer, b"before");
    }

    #[test]
    fn inserting_under_a_key_again_replaces_its_value_in_place() {
        let mut headers = Headers::from_iter([("a", "1"), ("b", "2")]);
        assert_eq!(headers.insert("a", "3"), Some("1".to_owned()));
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!((headers.get("b"), headers.get("c"), headers.len()), (Some("2"), None, 2));
    }

    fn any_envelope() -> impl Strategy<Value = Vec<u8>> {
        let headers = proptest::collection::vec((".{0,8}", ".{0,40}"), 0..6);
        let numbers = any::<(u128, u64, Option<u64>, Option<[u8; 16]>, bool)>();
        (headers, ".{0,20}", numbers, any::<Vec<u8>>()).prop_map(
            |(headers, name, (id, sent, expires, mark, asks), body)| {
                let headers = headers.into_iter().collect();
                let head = EnvelopeHead {
                    id: Uuid::from_u128(id),
                    sent_at: Timestamp::from_millis(sent),
                    expires: expires.map(Timestamp::from_millis),
                    asks,
                    mark,
                    ..head(&headers, &name)
                };
                sealed(&head, &body).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_as_it_was(bytes in any_envelope()) {
            prop_assert!(is_canonical(&bytes));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_are_an_envelope(mut bytes in any::<Vec<u8>>(), flags in 0_u8..20) {
            is_canonical(&bytes);
            if bytes.len() > 2 {
                (bytes[0], bytes[1]) = (1, flags);
                is_canonical(&bytes);
            }
        }

        #[test]
        fn a_damaged_envelope_is_refused_or_is_another_one(
            mut bytes in any_envelope(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            is_canonical(&bytes);
            is_canonical(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn an_envelope_cut_within_its_head_is_truncated(cut in 0_usize..36) {
            let bytes = sealed(&head(&Headers::new(), "m"), b"").unwrap();
            let truncated = matches!(open(&bytes[..cut]), Err(DecodeError::Truncated { .. }));
            prop_assert!(truncated);
        }
    }

    #[test]
    fn a_hostile_envelope_is_refused_or_is_another_one() {
        let headers = Headers::from_iter([("k", "val"), ("steadfast-key", "")]);
        let head = EnvelopeHead {
            expires: Some(Timestamp::from_millis(2)),
            mark: Some([9; 16]),
            ..head(&headers, "m")
        };
        let plain = sealed(&super::tests::head(&Headers::new(), "m"), b"body").unwrap();
        crate::hostile::survives(&[sealed(&head, b"body").unwrap(), plain], |bytes| {
            is_canonical(bytes);
        });
    }
}
