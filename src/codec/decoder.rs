//! Reads serde's data model from bytes whose sender is not trusted.
//!
//! # Invariants
//! - A claimed length is compared with the bytes that are left before anything is reserved or looped over.
//! - Every layer goes through [`Decoder::nested`], also those that take no bytes (newtypes).

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::bounds::Bounds;
use super::{DecodeError, Source};

pub(super) struct Decoder<'de> {
    source: Source<'de>,
    bounds: Bounds,
}

impl<'de> Decoder<'de> {
    pub(super) fn new(source: Source<'de>) -> Self {
        Decoder { source, bounds: Bounds::default() }
    }

    /// Bytes read so far.
    pub(super) fn at(&mut self) -> usize {
        self.source.at()
    }

    #[inline]
    fn nested<R>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<R, DecodeError>,
    ) -> Result<R, DecodeError> {
        if self.bounds.enter().is_err() {
            return Err(DecodeError::TooDeep { at: self.at() });
        }
        let result = inside(self);
        self.bounds.leave();
        result
    }

    /// The length of a string or of bytes, then these.
    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], DecodeError> {
        let len = self.claim(0)?;
        self.source.take(len)
    }

    fn str(&mut self) -> Result<&'de str, DecodeError> {
        let bytes = self.bytes()?;
        let end = self.at();
        std::str::from_utf8(bytes).map_err(|error| DecodeError::Invalid {
            at: end - bytes.len() + error.valid_up_to(),
            what: "a character in UTF-8",
        })
    }

    /// A length; no more than the bytes that are left and `free` elements more.
    #[inline]
    fn claim(&mut self, free: usize) -> Result<usize, DecodeError> {
        let at = self.at();
        let claimed: u64 = self.source.get()?;
        let left = self.source.left();
        match usize::try_from(claimed) {
            Ok(len) if len <= left.saturating_add(free) => Ok(len),
            _ => Err(DecodeError::ClaimTooLong { at, claimed, left }),
        }
    }

    #[inline]
    fn elements(&mut self) -> Result<usize, DecodeError> {
        self.claim(self.bounds.empty_left())
    }

    /// Counts an element when nothing was read since `before`.
    #[inline]
    fn paid_since(&mut self, before: usize) -> Result<(), DecodeError> {
        let at = self.at();
        if at == before && self.bounds.empty_element().is_err() {
            return Err(DecodeError::TooManyEmpty { at });
        }
        Ok(())
    }

    #[inline]
    fn fixed<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.nested(|decoder| visitor.visit_seq(Elements { decoder, left: len, counted: false }))
    }

    fn asked<R>(&mut self, asked: &'static str) -> Result<R, DecodeError> {
        Err(DecodeError::NotSelfDescribing { at: self.at(), asked })
    }
}

macro_rules! single_values {
    ($($method:ident => $visit:ident,)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
                visitor.$visit(self.source.get()?)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = DecodeError;

    single_values! {
        deserialize_bool => visit_bool,
        deserialize_i8 => visit_i8,
        deserialize_i16 => visit_i16,
        deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64,
        deserialize_i128 => visit_i128,
        deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32,
        deserialize_u64 => visit_u64,
        deserialize_u128 => visit_u128,
        deserialize_f32 => visit_f32,
        deserialize_f64 => visit_f64,
        deserialize_char => visit_char,
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.str()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_string(self.str()?.to_owned())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_byte_buf(self.bytes()?.to_vec())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let at = self.at();
        match self.source.get::<u8>()? {
            0 => visitor.visit_none(),
            1 => self.nested(|decoder| visitor.visit_some(decoder)),
            _ => Err(DecodeError::Invalid { at, what: "an option" }),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.nested(|decoder| visitor.visit_newtype_struct(decoder))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let left = self.elements()?;
        self.nested(|decoder| visitor.visit_seq(Elements { decoder, left, counted: true }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.fixed(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fixed(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let left = self.elements()?;
        self.nested(|decoder| visitor.visit_map(Elements { decoder, left, counted: true }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fixed(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.nested(|decoder| visitor.visit_enum(decoder))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, DecodeError> {
        self.asked("whatever comes next")
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, DecodeError> {
        self.asked("a field's name")
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, DecodeError> {
        self.asked("something to ignore")
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence, tuple or struct, or the pairs of a map.
struct Elements<'d, 'de> {
    decoder: &'d mut Decoder<'de>,
    left: usize,
    /// Whether the bytes chose the number, so that elements must pay for themselves.
    counted: bool,
}

impl<'de> Elements<'_, 'de> {
    #[inline]
    fn next<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let before = self.decoder.at();
        let element = seed.deserialize(&mut *self.decoder)?;
        if self.counted {
            self.decoder.paid_since(before)?;
        }
        Ok(Some(element))
    }

    #[inline]
    fn hint(&self) -> usize {
        if self.counted { self.decoder.bounds.believed(self.left) } else { self.left }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.next(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        self.next(seed)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(&mut *self.decoder)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let index: u32 = self.source.get()?;
        let variant = seed.deserialize(index.into_deserializer())?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self)
    }

    // the enum around it has counted the layer
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Elements { decoder: self, left: len, counted: false })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Elements { decoder: self, left: fields.len(), counted: false })
    }
}
