//! A value of an actor's state as it is stored: with its version and the fingerprint of its shape, so that what an older
//! program wrote is upcast or refused, never misread.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::StateError;

/// Reads an older version of a cell: the stored version and the encoded value.
pub(crate) type Upcast<T> = fn(u32, &[u8]) -> Result<T, codec::DecodeError>;

/// How a cell is stored now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredCell<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: u32,
    /// The fingerprint of the type, 0 where it cannot be traced.
    pub(crate) shape: u32,
}

const HEAD: usize = 8;
/// The longest name of a cell, in bytes.
pub(crate) const LONGEST_NAME: usize = 64;

impl StoredCell<'_> {
    pub(crate) fn encode<T: Serialize + ?Sized>(
        &self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        if self.name.len() > LONGEST_NAME {
            let (cell, len) = (self.name.into(), self.name.len());
            return Err(StateError::TooLong { cell, len, limit: LONGEST_NAME });
        }
        let before = out.len();
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.shape.to_be_bytes());
        codec::encode_into(value, out).map_err(|why| {
            out.truncate(before);
            StateError::Encode { cell: self.name.into(), why }
        })
    }

    pub(crate) fn decode<T: DeserializeOwned>(
        &self,
        bytes: &[u8],
        upcast: Option<Upcast<T>>,
    ) -> Result<T, StateError> {
        let cell = || self.name.to_owned();
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let (Some(stored), Some(shape), Some(body)) = (number(0), number(4), bytes.get(HEAD..)) else {
            return Err(StateError::Decode { cell: cell(), version: 0, why: "it is too short".into() });
        };
        let read = match stored.cmp(&self.version) {
            std::cmp::Ordering::Greater => {
                return Err(StateError::Newer { cell: cell(), stored, known: self.version });
            }
            std::cmp::Ordering::Equal if shape != self.shape && shape != 0 && self.shape != 0 => {
                return Err(StateError::Changed { cell: cell(), version: stored });
            }
            std::cmp::Ordering::Equal => codec::decode(body),
            std::cmp::Ordering::Less => match upcast {
                Some(upcast) => upcast(stored, body),
                None => return Err(StateError::NoUpcast { cell: cell(), stored }),
            },
        };
        read.map_err(|why| StateError::Decode { cell: cell(), version: stored, why: why.to_string() })
    }
}
