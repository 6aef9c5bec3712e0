//! Why a value was not written, not read, or would not come back. Texts say what did not happen first;
//! positions are bytes from the start of the value.

use super::bounds::{MAX_DEPTH, MAX_EMPTY};

/// The value was not encoded; nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Something is larger or more than is allowed.
    #[error("not encoded: {what}: {found}, and at most {limit} are allowed")]
    OverLimit {
        /// What was measured, and in which unit.
        what: &'static str,
        /// Its size; the least it would have become where the whole was not measured.
        found: usize,
        /// The largest size allowed.
        limit: usize,
    },
    /// The value lies deeper in itself than 128 sequences, maps, structs, enums, newtypes and options.
    #[error(
        "not encoded: the value is nested deeper than {MAX_DEPTH} levels; keep long chains in a \
         Vec, not in boxes"
    )]
    TooDeep,
    /// A sequence or map holds too many elements that take no bytes, such as those of a `Vec<()>`.
    #[error("not encoded: more than {MAX_EMPTY} elements take no bytes; store their number instead")]
    TooManyEmpty,
    /// A sequence or map did not say beforehand how long it is.
    #[error(
        "not encoded: a sequence or map did not say its length beforehand, as `#[serde(flatten)]` does; \
         remove `flatten`, or collect into a Vec first"
    )]
    UnknownLength,
    /// A sequence or map wrote another number of elements than it had said.
    #[error("not encoded: a sequence or map announced {said} elements and wrote {wrote}")]
    Miscounted {
        /// Announced elements.
        said: usize,
        /// Written elements.
        wrote: usize,
    },
    /// A field was left out, and what lies behind it could not be found again.
    #[error(
        "not encoded: field `{field}` was skipped; this format has no field names, so every field must be \
         written: remove `skip_serializing_if`"
    )]
    SkippedField {
        /// The field.
        field: &'static str,
    },
    /// The type's own `Serialize` refused the value.
    #[error("not encoded: {what}")]
    Rejected {
        /// Its words.
        what: String,
    },
}

impl serde::ser::Error for EncodeError {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        EncodeError::Rejected { what: what.to_string() }
    }
}

/// The bytes were not decoded; there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside the value.
    #[error("not decoded: the bytes end at {at} where {missing} more are needed")]
    Truncated {
        /// Where the part that was cut off begins.
        at: usize,
        /// How many bytes this part lacks.
        missing: usize,
    },
    /// The value ends before the bytes do: they were written by another version of the type.
    #[error("not decoded: the value ends at byte {at} and {left} bytes are left over; was a field removed?")]
    TrailingBytes {
        /// Where the value ends.
        at: usize,
        /// How many bytes follow it.
        left: usize,
    },
    /// A length claims more than the bytes that follow can hold.
    #[error("not decoded: byte {at} claims {claimed} elements or bytes, and {left} bytes follow")]
    ClaimTooLong {
        /// Where the length stands.
        at: usize,
        /// What it claims.
        claimed: u64,
        /// How many bytes follow it.
        left: usize,
    },
    /// The value lies deeper in itself than 128 sequences, maps, structs, enums, newtypes and options.
    #[error("not decoded: at byte {at} the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// Where it went too deep.
        at: usize,
    },
    /// Too many elements take no bytes, such as those of a `Vec<()>`.
    #[error("not decoded: at byte {at} more than {MAX_EMPTY} elements took no bytes")]
    TooManyEmpty {
        /// Where they stand.
        at: usize,
    },
    /// Something is larger or more than is allowed.
    #[error("not decoded: {what}: {found}, and at most {limit} are allowed")]
    OverLimit {
        /// What was measured, and in which unit.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size allowed.
        limit: usize,
    },
    /// No value of the expected kind is written like this.
    #[error("not decoded: byte {at} is not the beginning of {what}")]
    Invalid {
        /// Where the expected value begins.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
    /// The first byte names a format that this version does not know.
    #[error(
        "not decoded: format version {found} is unknown; it was written by a later version, or is damaged"
    )]
    UnknownFormat {
        /// The version found.
        found: u8,
    },
    /// The type asks the bytes what they hold, and they do not say.
    #[error(
        "not decoded: at byte {at} the type asks for {asked}, which only self-describing formats \
         such as JSON know"
    )]
    NotSelfDescribing {
        /// Where it asked.
        at: usize,
        /// What it asked for.
        asked: &'static str,
    },
    /// The type's own `Deserialize` refused what was read.
    #[error("not decoded: before byte {at}: {what}")]
    Rejected {
        /// How far was read.
        at: usize,
        /// Its words.
        what: String,
    },
}

impl DecodeError {
    /// Adds where it happened to an error that the type itself made.
    pub(super) fn located(self, at: usize) -> Self {
        match self {
            DecodeError::Rejected { what, .. } => DecodeError::Rejected { at, what },
            other => other,
        }
    }
}

impl serde::de::Error for DecodeError {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        // serde's types know no position: `located` adds it where the decoder is still at hand
        DecodeError::Rejected { at: 0, what: what.to_string() }
    }
}

/// A value would not come back from its bytes as it went in, so its type cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// It cannot be written.
    #[error("`{type_name}` cannot be stored: {source}")]
    NotWritten {
        /// The type.
        type_name: &'static str,
        /// Why not.
        source: EncodeError,
    },
    /// It is written, but cannot be read back.
    #[error(
        "`{type_name}` cannot be stored, because it cannot be read back: {source}. Enums must be externally \
         tagged: remove `#[serde(tag)]`, `#[serde(untagged)]`, `flatten`, and `skip` attributes that hold on \
         one side only; keep a `serde_json::Value` as its text (`#[serde(with = ..)]`)"
    )]
    NotReadBack {
        /// The type.
        type_name: &'static str,
        /// Why not.
        source: DecodeError,
    },
    /// It is read back as another value.
    #[error(
        "`{type_name}` cannot be stored, because it is read back as another value (the bytes differ from {at} \
         on). Its `Serialize` and `Deserialize` must agree on every field: look for `skip`, `serialize_with`, \
         `into` or `from` that stand on one side only"
    )]
    Changed {
        /// The type.
        type_name: &'static str,
        /// The first byte that differs.
        at: usize,
    },
}
