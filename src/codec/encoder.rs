//! Writes serde's data model, and refuses what could not be read back: another number of elements than
//! announced, a skipped field, a value deeper than the decoder goes.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::bounds::Bounds;
use super::{EncodeError, Sink};

pub(super) struct Encoder<'b> {
    sink: Sink<'b>,
    bounds: Bounds,
    sort: bool,
}

impl<'b> Encoder<'b> {
    pub(super) fn new(sink: Sink<'b>) -> Self {
        Encoder { sink, bounds: Bounds::default(), sort: false }
    }

    /// Puts the elements of each sequence and map in the order of their bytes; for comparing, not for
    /// storing.
    pub(super) fn sorting(sink: Sink<'b>) -> Self {
        Encoder { sink, bounds: Bounds::default(), sort: true }
    }

    #[inline]
    fn enter(&mut self) -> Result<(), EncodeError> {
        self.bounds.enter().map_err(|_| EncodeError::TooDeep)
    }

    #[inline]
    fn at(&mut self) -> usize {
        self.sink.buffer().len()
    }

    #[inline]
    fn nested<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.bounds.leave();
        Ok(())
    }

    #[inline]
    fn fixed(&mut self) -> Result<Compound<'_, 'b>, EncodeError> {
        self.enter()?;
        Ok(Compound { encoder: self, said: None, wrote: 0, starts: Vec::new() })
    }

    #[inline]
    fn variant(&mut self, index: u32) -> Result<Compound<'_, 'b>, EncodeError> {
        self.sink.put(&index)?;
        self.fixed()
    }

    #[inline]
    fn counted(&mut self, len: Option<usize>) -> Result<Compound<'_, 'b>, EncodeError> {
        let said = len.ok_or(EncodeError::UnknownLength)?;
        self.sink.put(&said)?;
        self.enter()?;
        Ok(Compound { encoder: self, said: Some(said), wrote: 0, starts: Vec::new() })
    }
}

macro_rules! single_values {
    ($($method:ident: $type:ty,)*) => {
        $(
            #[inline]
            fn $method(self, value: $type) -> Result<(), EncodeError> {
                self.sink.put(&value)
            }
        )*
    };
}

impl<'e, 'b> Serializer for &'e mut Encoder<'b> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Compound<'e, 'b>;
    type SerializeTuple = Compound<'e, 'b>;
    type SerializeTupleStruct = Compound<'e, 'b>;
    type SerializeTupleVariant = Compound<'e, 'b>;
    type SerializeMap = Compound<'e, 'b>;
    type SerializeStruct = Compound<'e, 'b>;
    type SerializeStructVariant = Compound<'e, 'b>;

    single_values! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.sink.put(&0_u8)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        self.sink.put(&1_u8)?;
        self.nested(value)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.sink.put(&index)?;
        // the decoder counts the enum before it knows the variant
        self.enter()?;
        self.bounds.leave();
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.nested(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.sink.put(&index)?;
        self.nested(value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'e, 'b>, EncodeError> {
        self.counted(len)
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound<'e, 'b>, EncodeError> {
        self.fixed()
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'e, 'b>, EncodeError> {
        self.fixed()
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'e, 'b>, EncodeError> {
        self.variant(index)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'e, 'b>, EncodeError> {
        self.counted(len)
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Compound<'e, 'b>, EncodeError> {
        self.fixed()
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'e, 'b>, EncodeError> {
        self.variant(index)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A sequence, map, tuple or struct that is being written.
pub(super) struct Compound<'e, 'b> {
    encoder: &'e mut Encoder<'b>,
    /// How many elements were announced, where the number is written.
    said: Option<usize>,
    wrote: usize,
    /// Where each element begins; stays empty unless the encoder sorts.
    starts: Vec<usize>,
}

impl Compound<'_, '_> {
    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(&mut *self.encoder)
    }

    /// An element of a sequence, or the key of a map.
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let before = self.encoder.at();
        self.item(value)?;
        if self.encoder.sort {
            self.starts.push(before);
        }
        if self.encoder.at() == before && self.encoder.bounds.empty_element().is_err() {
            return Err(EncodeError::TooManyEmpty);
        }
        self.wrote += 1;
        Ok(())
    }

    #[inline]
    fn close(self) -> Result<(), EncodeError> {
        self.encoder.bounds.leave();
        match self.said {
            Some(said) if said != self.wrote => Err(EncodeError::Miscounted { said, wrote: self.wrote }),
            _ => {
                if let Some(&first) = self.starts.first() {
                    sort_elements(self.encoder.sink.buffer(), first, &self.starts);
                }
                Ok(())
            }
        }
    }
}

fn sort_elements(buffer: &mut Vec<u8>, first: usize, starts: &[usize]) {
    let tail = buffer.split_off(first);
    let ends = starts.iter().skip(1).copied().chain([first + tail.len()]);
    let mut elements: Vec<&[u8]> =
        starts.iter().zip(ends).map(|(start, end)| &tail[start - first..end - first]).collect();
    elements.sort_unstable();
    elements.iter().for_each(|element| buffer.extend_from_slice(element));
}

impl SerializeSeq for Compound<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.element(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.close()
    }
}

impl SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.element(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.item(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.close()
    }
}

impl SerializeTuple for Compound<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.item(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.close()
    }
}

macro_rules! plain_fields {
    ($($for:ident,)*) => {
        $(
            impl $for for Compound<'_, '_> {
                type Ok = ();
                type Error = EncodeError;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                    self.item(value)
                }

                fn end(self) -> Result<(), EncodeError> {
                    self.close()
                }
            }
        )*
    };
}

plain_fields!(SerializeTupleStruct, SerializeTupleVariant,);

macro_rules! named_fields {
    ($($for:ident,)*) => {
        $(
            impl $for for Compound<'_, '_> {
                type Ok = ();
                type Error = EncodeError;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    _field: &'static str,
                    value: &T,
                ) -> Result<(), EncodeError> {
                    self.item(value)
                }

                fn skip_field(&mut self, field: &'static str) -> Result<(), EncodeError> {
                    Err(EncodeError::SkippedField { field })
                }

                fn end(self) -> Result<(), EncodeError> {
                    self.close()
                }
            }
        )*
    };
}

named_fields!(SerializeStruct, SerializeStructVariant,);
