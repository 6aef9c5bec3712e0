//! How a value becomes bytes and comes back: bincode 2, `config::standard()`, through serde. This file is the
//! only one that names bincode: the decoder and the encoder beside it walk serde's data model themselves and
//! take single values from here, because bincode's own serde adaptor reserves memory by a claimed length and
//! tells no position.
//!
//! # Invariants
//! - What [`encode_into`] accepts is inside every limit of [`decode`]: both sides count with the same
//!   [`Bounds`](bounds::Bounds).
//! - No bytes make [`decode`] panic, overflow the stack, loop for ages or reserve memory they do not pay for.
//! - The bytes are those of bincode's own serde adaptor: any bincode 2 reads them.

mod bounds;
mod decoder;
mod encoder;
mod error;
mod shape;

use bincode::de::read::Reader;
use bincode::de::{Decode, Decoder as _, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder as _, EncoderImpl};
use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;

use self::decoder::Decoder;
use self::encoder::Encoder;

pub use self::error::{DecodeError, EncodeError, ProbeError};
pub(crate) use self::shape::fingerprint;

/// The largest encoded value, in bytes.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

// bincode charges a number by its size in memory (16 bytes at most), also where one byte was read; so this is
// out of reach for input within `MAX_BYTES`, which is checked first and exactly
const CLAIMS: usize = 16 * MAX_BYTES;

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<CLAIMS>,
>;

const CONFIG: Config = bincode::config::standard().with_limit::<CLAIMS>();

/// Appends `value` to `buffer`; on an error the buffer is as it was.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    let before = buffer.len();
    let encoded = value.serialize(&mut Encoder::new(Sink::new(buffer)));
    if encoded.is_err() {
        buffer.truncate(before);
    }
    encoded
}

/// Reads one value from exactly these bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MAX_BYTES {
        return Err(DecodeError::OverLimit {
            what: "the value, in bytes",
            found: bytes.len(),
            limit: MAX_BYTES,
        });
    }
    let (value, read) = decode_borrowed(bytes)?;
    match bytes.len() - read {
        0 => Ok(value),
        left => Err(DecodeError::TrailingBytes { at: read, left }),
    }
}

/// Reads one value, which may borrow, from the front of `bytes`; says how many of them it took.
pub(crate) fn decode_borrowed<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, usize), DecodeError> {
    let within = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let mut decoder = Decoder::new(Source::new(within));
    match T::deserialize(&mut decoder) {
        Ok(value) => Ok((value, decoder.at())),
        Err(error) => Err(error.located(decoder.at())),
    }
}

/// Writes `value`, reads it back and writes it again: finds the types that bincode writes but cannot read.
///
/// The order inside sequences and maps may change on the way, as it does in a `HashSet`.
pub(crate) fn probe<T: Serialize + DeserializeOwned>(value: &T) -> Result<(), ProbeError> {
    let type_name = std::any::type_name::<T>();
    let mut first = Vec::new();
    encode_into(value, &mut first).map_err(|source| ProbeError::NotWritten { type_name, source })?;
    let back: T = decode(&first).map_err(|source| ProbeError::NotReadBack { type_name, source })?;
    let mut second = Vec::new();
    encode_into(&back, &mut second).map_err(|source| ProbeError::NotWritten { type_name, source })?;
    if first == second || sorted(value).is_ok_and(|bytes| sorted(&back) == Ok(bytes)) {
        return Ok(());
    }
    let same = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
    Err(ProbeError::Changed { type_name, at: same })
}

/// The bytes of `value` with the elements of each sequence and map in the order of their bytes.
fn sorted<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut buffer = Vec::new();
    value.serialize(&mut Encoder::sorting(Sink::new(&mut buffer)))?;
    Ok(buffer)
}

/// Where the encoder puts single values.
struct Sink<'b>(EncoderImpl<Output<'b>, Config>);

struct Output<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    /// How long the value would have become when it was refused.
    refused: usize,
}

impl<'b> Sink<'b> {
    fn new(buffer: &'b mut Vec<u8>) -> Self {
        let start = buffer.len();
        Sink(EncoderImpl::new(Output { buffer, start, refused: 0 }, CONFIG))
    }

    #[inline]
    fn put<T: Encode + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.encode(&mut self.0).map_err(|error| self.explain(error))
    }

    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.0.writer().buffer
    }

    #[cold]
    fn explain(&mut self, error: bincode::error::EncodeError) -> EncodeError {
        match error {
            bincode::error::EncodeError::UnexpectedEnd => EncodeError::OverLimit {
                what: "the value, in bytes",
                found: self.0.writer().refused,
                limit: MAX_BYTES,
            },
            other => EncodeError::Rejected { what: other.to_string() },
        }
    }
}

impl Writer for Output<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        let grown = self.buffer.len() - self.start + bytes.len();
        if grown > MAX_BYTES {
            self.refused = grown;
            return Err(bincode::error::EncodeError::UnexpectedEnd);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

/// Where the decoder takes single values from.
struct Source<'a>(DecoderImpl<Input<'a>, Config, ()>);

struct Input<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Source(DecoderImpl::new(Input { rest: bytes, at: 0 }, CONFIG, ()))
    }

    /// Bytes read so far.
    #[inline]
    fn at(&mut self) -> usize {
        self.0.reader().at
    }

    /// Bytes still to be read.
    #[inline]
    fn left(&mut self) -> usize {
        self.0.reader().rest.len()
    }

    #[inline]
    fn get<T: Decode<()>>(&mut self) -> Result<T, DecodeError> {
        let at = self.at();
        T::decode(&mut self.0).map_err(|error| explain(error, at))
    }

    /// The next `len` bytes, not copied.
    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let input = self.0.reader();
        match input.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                input.rest = rest;
                input.at += len;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated { at: input.at, missing: len - input.rest.len() }),
        }
    }
}

impl Reader for Input<'_> {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), bincode::error::DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes.len()) else {
            let additional = bytes.len() - self.rest.len();
            return Err(bincode::error::DecodeError::UnexpectedEnd { additional });
        };
        bytes.copy_from_slice(taken);
        self.rest = rest;
        self.at += bytes.len();
        Ok(())
    }

    #[inline]
    fn peek_read(&mut self, n: usize) -> Option<&[u8]> {
        self.rest.get(..n)
    }

    #[inline]
    fn consume(&mut self, n: usize) {
        let n = n.min(self.rest.len());
        self.rest = &self.rest[n..];
        self.at += n;
    }
}

#[cold]
fn explain(error: bincode::error::DecodeError, at: usize) -> DecodeError {
    use bincode::error::DecodeError as Theirs;
    match error {
        Theirs::UnexpectedEnd { additional } => DecodeError::Truncated { at, missing: additional },
        Theirs::InvalidBooleanValue(_) => DecodeError::Invalid { at, what: "a boolean" },
        Theirs::InvalidCharEncoding(_) => DecodeError::Invalid { at, what: "a character" },
        Theirs::InvalidIntegerType { .. } => DecodeError::Invalid { at, what: "an integer of this size" },
        Theirs::LimitExceeded => {
            DecodeError::OverLimit { what: "the value, in bytes", found: at, limit: MAX_BYTES }
        }
        other => DecodeError::Rejected { at, what: other.to_string() },
    }
}

/// Decodes; a value is written and read once more, and must be the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
) -> Option<T> {
    let value = decode::<T>(bytes).ok()?;
    let mut again = Vec::new();
    assert_eq!(encode_into(&value, &mut again), Ok(()), "what was decoded is within the limits");
    assert_eq!(decode::<T>(&again).as_ref(), Ok(&value));
    Some(value)
}

/// The bytes of bincode's own serde adaptor, for tests.
#[cfg(test)]
fn encode_theirs<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, CONFIG).unwrap()
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests;
