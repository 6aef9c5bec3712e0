//! A value as the engine keeps it: with a checksum over its key and itself, and in chunks when it is large. So a value
//! that was changed, or that belongs to another key, is found when it is read.

use super::engine::Engine;
use super::fault::StoreError;
use super::group::u32_at;
use super::keys;

/// The largest body that is kept in one piece, in bytes.
pub(super) const PIECE: usize = 96 * 1024;
/// What stands before the body of a sealed value, in bytes.
pub(super) const OVERHEAD: usize = 5;
const WHOLE: u8 = 0;
const CHUNKED: u8 = 1;
const CHUNK: u8 = 2;

/// The key-value pairs that keep `value` under `key`.
pub(super) fn seal(key: Vec<u8>, value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    if value.len() <= PIECE {
        let sealed = seal_piece(&key, WHOLE, value);
        return vec![(key, sealed)];
    }
    let mut pairs: Vec<_> = value
        .chunks(PIECE)
        .zip(0..)
        .map(|(piece, index)| {
            let key = keys::chunk(&key, index);
            let sealed = seal_piece(&key, CHUNK, piece);
            (key, sealed)
        })
        .collect();
    let mut head = (value.len() as u32).to_be_bytes().to_vec();
    head.extend_from_slice(&crc32fast::hash(value).to_be_bytes());
    let sealed = seal_piece(&key, CHUNKED, &head);
    pairs.push((key, sealed));
    pairs
}

pub(super) fn seal_piece(key: &[u8], flag: u8, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(OVERHEAD + body.len());
    sealed.push(flag);
    sealed.extend_from_slice(&crc(key, flag, body).to_be_bytes());
    sealed.extend_from_slice(body);
    sealed
}

fn crc(key: &[u8], flag: u8, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(&[flag]);
    crc.update(body);
    crc.finalize()
}

/// The checksum that stands in a sealed value: what the census adds up.
pub(super) fn sum(sealed: &[u8]) -> u64 {
    u64::from(u32_at(sealed, 1).unwrap_or(0))
}

/// The keys of the chunks that belong to a sealed value; none when it is whole.
pub(super) fn chunk_keys(key: &[u8], sealed: &[u8]) -> Vec<Vec<u8>> {
    let len = match sealed.first() {
        Some(&CHUNKED) => u32_at(sealed, OVERHEAD).unwrap_or(0) as usize,
        _ => 0,
    };
    (0..len.div_ceil(PIECE) as u32).map(|index| keys::chunk(key, index)).collect()
}

/// Checks one stored pair by itself, as found.
pub(super) fn verify<'a>(key: &[u8], sealed: &'a [u8]) -> Result<(u8, &'a [u8]), StoreError> {
    let (flag, found, body) = match (sealed.first(), u32_at(sealed, 1)) {
        (Some(flag), Some(found)) if *flag <= CHUNK => (*flag, found, &sealed[OVERHEAD..]),
        _ => return Err(damaged(key, "is no sealed value")),
    };
    match crc(key, flag, body) == found {
        true => Ok((flag, body)),
        false => Err(damaged(key, "does not match its checksum")),
    }
}

/// The value kept under `key`, given the stored pair; chunks are read from the engine.
pub(super) fn unseal(engine: &dyn Engine, key: &[u8], sealed: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let (flag, body) = verify(key, &sealed)?;
    if flag == WHOLE {
        return Ok(body.to_vec());
    }
    let (Some(len), Some(crc)) = (u32_at(body, 0), u32_at(body, 4)) else {
        return Err(damaged(key, "has no length"));
    };
    let mut value = Vec::new();
    for key in chunk_keys(key, &sealed) {
        let piece = engine.get(&key)?.ok_or_else(|| damaged(&key, "is missing"))?;
        value.extend_from_slice(verify(&key, &piece)?.1);
    }
    match value.len() == len as usize && crc32fast::hash(&value) == crc {
        true => Ok(value),
        false => Err(damaged(key, "does not match its chunks")),
    }
}

pub(super) fn damaged(key: &[u8], what: &str) -> StoreError {
    let class = key.first().copied().unwrap_or(0);
    StoreError::value(format!("the value of class {class:02x}, key {} {what}", hex(key)))
}

fn hex(key: &[u8]) -> String {
    key.iter().take(64).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_or_another_key_is_found() {
        let (key, sealed) = seal(vec![0x30, 1], b"value").remove(0);
        assert_eq!(verify(&key, &sealed).expect("as written").1, b"value");
        assert!(verify(&[0x30, 2], &sealed).is_err(), "another key");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(verify(&key, &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_large_value_lies_in_chunks_an_engine_takes() {
        let value = vec![5; 300_000];
        let pairs = seal(vec![0x50], &value);
        assert_eq!(pairs.len(), 5);
        assert!(pairs.iter().all(|(_, sealed)| sealed.len() <= super::super::engine::MAX_VALUE));
        let (key, head) = pairs.last().expect("a head");
        assert_eq!(chunk_keys(key, head).len(), 4);
    }
}
