//! What a value may ask of the machine that its bytes do not pay for: stack, by nesting, and time, by
//! elements that take no bytes. The encoder and the decoder count with the same code, so that neither refuses
//! what the other took.

/// How deep sequences, maps, structs, enums, newtypes and options may lie in each other.
pub(crate) const MAX_DEPTH: usize = 128;

/// How many elements of sequences and maps in one value may take no bytes, as those of a `Vec<()>` do.
pub(crate) const MAX_EMPTY: usize = 65_536;

/// How many elements one collection may reserve room for before they are read; less inside others.
const RESERVE: usize = 4096;

/// What one value has used up.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    depth: usize,
    empty: usize,
}

/// A limit was reached.
pub(super) struct Exceeded;

impl Bounds {
    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), Exceeded> {
        if self.depth == MAX_DEPTH {
            return Err(Exceeded);
        }
        self.depth += 1;
        Ok(())
    }

    #[inline]
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Counts an element that took no bytes.
    #[inline]
    pub(super) fn empty_element(&mut self) -> Result<(), Exceeded> {
        if self.empty == MAX_EMPTY {
            return Err(Exceeded);
        }
        self.empty += 1;
        Ok(())
    }

    /// How many more elements may take no bytes.
    #[inline]
    pub(super) fn empty_left(&self) -> usize {
        MAX_EMPTY - self.empty
    }

    /// How much of a claimed element count to believe: deeper collections get less, so that nested lies add
    /// up to little. A collection that really is longer grows as it is read.
    #[inline]
    pub(super) fn believed(&self, claimed: usize) -> usize {
        claimed.min(RESERVE / self.depth.max(1))
    }
}
