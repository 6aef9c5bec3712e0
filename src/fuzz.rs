//! The entry of `fuzz/` to the decoders: only in a build with `--cfg fuzzing`, and no part of the library. A function panics
//! where a decoder does what it must not.

use crate::codec::comes_back;
use crate::{durable, envelope, store, supervisor};

/// Segments of the journal, groups, commits, and their replay over a store.
pub fn journal(bytes: &[u8]) {
    store::hostile::segment_header(bytes);
    store::hostile::segment(bytes);
    store::hostile::commits(bytes);
    store::hostile::replay(bytes);
}

/// A sealed message.
pub fn envelope(bytes: &[u8]) {
    envelope::is_canonical(bytes);
}

/// Values as the codec writes them: what is in messages, states and replies.
pub fn message(bytes: &[u8]) {
    comes_back::<Vec<(String, Option<u64>)>>(bytes);
    comes_back::<std::collections::BTreeMap<String, Vec<()>>>(bytes);
    comes_back::<(bool, char, i128, Result<(), Box<[u16]>>, std::time::Duration)>(bytes);
    comes_back::<crate::durable::Reason>(bytes);
    comes_back::<crate::actor::Undecodable>(bytes);
}

/// What lies in the engine: the first byte is the class of the key, the rest the value.
pub fn engine_value(bytes: &[u8]) {
    let Some((class, value)) = bytes.split_first() else { return };
    store::hostile::sealed(value);
    store::hostile::value(*class, value);
    durable::hostile::record(*class, value);
    supervisor::history(value);
}

/// The files of a store beside the journal, and a whole store in which one value is another.
pub fn store(bytes: &[u8]) {
    store::hostile::manifest(bytes);
    store::hostile::life(bytes);
    if let Some((class, value)) = bytes.split_first() {
        store::hostile::stored(*class, value);
    }
}
