//! Elements of a file that is written: a tree, and its bytes.

use crate::error::{DataError, Result};
use crate::labels::Code;
use dicom_core::{DataDictionary, DataElementHeader, Length, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_encoding::encode::Error;
use dicom_encoding::transfer_syntax::{DynEncoder, TransferSyntax};
use std::collections::BTreeMap;
use std::io::Write;

/// Elements of a data set, or of an item within, in the order of their tags.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::dicom) struct Elements {
    values: BTreeMap<Tag, (VR, Value)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// As the file has them, in little endian, padded or not.
    Bytes(Vec<u8>),
    Items(Vec<Elements>),
}

impl Elements {
    /// An element as it was read.
    pub fn put(&mut self, tag: Tag, vr: VR, bytes: Vec<u8>) {
        self.values.insert(tag, (vr, Value::Bytes(bytes)));
    }

    /// A sequence.
    pub fn put_items(&mut self, tag: Tag, items: Vec<Self>) {
        self.values.insert(tag, (VR::SQ, Value::Items(items)));
    }

    /// With everything of another data set.
    pub fn and(mut self, other: Self) -> Self {
        self.values.extend(other.values);
        self
    }

    /// With a text: names, codes, UIDs, dates; several are separated by backslashes.
    pub fn text(mut self, tag: Tag, text: &str) -> Self {
        self.put(tag, vr_of(tag), text.as_bytes().to_vec());
        self
    }

    /// With no value where there is none yet: what the standard wants to be there, empty or not.
    pub fn or_empty(mut self, tags: &[Tag]) -> Self {
        for tag in tags {
            self.values.entry(*tag).or_insert_with(|| (vr_of(*tag), Value::Bytes(Vec::new())));
        }
        self
    }

    /// With numbers of two bytes.
    pub fn words(mut self, tag: Tag, values: &[u16]) -> Self {
        self.put(tag, vr_of(tag), values.iter().flat_map(|v| v.to_le_bytes()).collect());
        self
    }

    /// With numbers of four bytes.
    pub fn longs(mut self, tag: Tag, values: &[u32]) -> Self {
        self.put(tag, VR::UL, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        self
    }

    /// With numbers as text.
    pub fn decimals(self, tag: Tag, values: &[f64]) -> Self {
        let texts: Vec<String> = values.iter().map(|value| decimal(*value)).collect();
        self.text(tag, &texts.join("\\"))
    }

    /// With the name of an element.
    pub fn name_of(mut self, tag: Tag, named: Tag) -> Self {
        let halves = [named.group(), named.element()];
        self.put(tag, VR::AT, halves.iter().flat_map(|v| v.to_le_bytes()).collect());
        self
    }

    /// With a sequence.
    pub fn items(mut self, tag: Tag, items: Vec<Self>) -> Self {
        self.put_items(tag, items);
        self
    }

    /// With a sequence of one coded concept.
    pub fn code(self, tag: Tag, code: &Code) -> Self {
        self.items(tag, vec![Self::of_code(code)])
    }

    /// A coded concept.
    pub fn of_code(code: &Code) -> Self {
        Self::default()
            .text(tags::CODE_VALUE, &code.value)
            .text(tags::CODING_SCHEME_DESIGNATOR, code.scheme)
            .text(tags::CODE_MEANING, &code.meaning)
    }

    /// Takes elements out.
    pub fn take(&mut self, tags: &[Tag]) -> Self {
        let values = tags.iter().filter_map(|tag| Some((*tag, self.values.remove(tag)?)));
        Self { values: values.collect() }
    }

    /// The bytes of an element that is no sequence.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        match self.values.get(&tag) {
            Some((_, Value::Bytes(bytes))) => Some(bytes),
            _ => None,
        }
    }

    /// A text of plain letters, without padding; none where it is empty.
    pub fn plain(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes(tag)?).into_owned();
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Whether all texts, at any depth, are plain letters without escapes to other sets.
    pub fn is_ascii(&self) -> bool {
        self.values.values().all(|(_, value)| match value {
            Value::Bytes(bytes) => bytes.iter().all(|b| b.is_ascii() && *b != 0x1b),
            Value::Items(items) => items.iter().all(Self::is_ascii),
        })
    }
}

/// The representation that the standard gives an element.
fn vr_of(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr.relaxed())
}

/// A number as text of at most 16 letters, as exact as these allow.
pub(in crate::dicom) fn decimal(value: f64) -> String {
    const MOST: usize = 16;
    // The shortest text that reads as the same number; without a sign before nothing.
    let value = if value == 0.0 { 0.0 } else { value };
    let texts = [format!("{value}"), format!("{value:e}")];
    let shortest = texts.into_iter().min_by_key(String::len).unwrap_or_default();
    if shortest.len() <= MOST {
        return shortest;
    }
    let digits = (0..MOST).rev();
    let mut tries =
        digits.flat_map(|n| [format!("{value:.n$}"), format!("{value:.n$e}")]).filter(|text| {
            text.len() <= MOST && text.parse::<f64>().is_ok_and(|read| near(read, value))
        });
    tries.next().unwrap_or_else(|| format!("{value:.8e}"))
}

/// Whether a number is another one but for the digits that do not fit.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-8 * b.abs().max(1e-6)
}

/// A text in at most so many letters, without those that steer or separate.
pub(in crate::dicom) fn fitted(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() || c == '\\' { ' ' } else { c };
    let text: String = text.trim().chars().map(plain).take(most).collect();
    text.trim_end().to_owned()
}

/// Where elements go.
pub(in crate::dicom) struct Output<'w> {
    to: &'w mut (dyn Write + 'w),
    encoder: DynEncoder<'w, dyn Write + 'w>,
}

impl<'w> Output<'w> {
    /// Elements in a transfer syntax.
    pub fn new(to: &'w mut (dyn Write + 'w), syntax: &TransferSyntax) -> Self {
        let encoder = syntax.encoder().expect("elements of the basic syntaxes can be written");
        Self { to, encoder }
    }

    fn header(&mut self, tag: Tag, vr: VR, length: Length) -> Result<()> {
        let header = DataElementHeader::new(tag, vr, length);
        self.encoder.encode_element_header(self.to, header).map(|_| ()).map_err(failed)
    }

    /// Writes a data set.
    pub fn elements(&mut self, elements: &Elements) -> Result<()> {
        for (tag, (vr, value)) in &elements.values {
            match value {
                Value::Bytes(bytes) => self.element(*tag, *vr, bytes)?,
                Value::Items(items) => {
                    self.begin_sequence(*tag)?;
                    items.iter().try_for_each(|item| self.item(item))?;
                    self.end_sequence()?;
                }
            }
        }
        Ok(())
    }

    fn element(&mut self, tag: Tag, vr: VR, bytes: &[u8]) -> Result<()> {
        let even = bytes.len().next_multiple_of(2);
        self.header(tag, vr, Length(even as u32))?;
        self.bytes(bytes)?;
        let padding: u8 = if matches!(vr, VR::UI | VR::OB | VR::UN) { 0 } else { b' ' };
        match bytes.len() % 2 {
            0 => Ok(()),
            _ => self.bytes(&[padding]),
        }
    }

    /// Begins a sequence.
    pub fn begin_sequence(&mut self, tag: Tag) -> Result<()> {
        self.header(tag, VR::SQ, Length::UNDEFINED)
    }

    /// Writes an item of a sequence.
    pub fn item(&mut self, item: &Elements) -> Result<()> {
        self.encoder.encode_item_header(self.to, Length::UNDEFINED.0).map_err(failed)?;
        self.elements(item)?;
        self.encoder.encode_item_delimiter(self.to).map_err(failed)
    }

    /// Ends a sequence.
    pub fn end_sequence(&mut self) -> Result<()> {
        self.encoder.encode_sequence_delimiter(self.to).map_err(failed)
    }

    /// Begins the pixels, of an even number of bytes; [`Output::bytes`] writes them.
    pub fn begin_pixels(&mut self, vr: VR, length: u32) -> Result<()> {
        self.header(tags::PIXEL_DATA, vr, Length(length))
    }

    /// Writes bytes of a value.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|error| DataError::io("write", error))
    }
}

fn failed(error: Error) -> DataError {
    DataError::io("write", std::io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_into_sixteen_letters() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (-125.0, "-125"),
            (1e-17, "1e-17"),
            (0.1 + 0.2, "0.3"),
            (-123.456_789_012_345_67, "-123.45678901235"),
        ];
        for (value, expected) in cases {
            let found = decimal(value);
            assert!(found.len() <= 16, "{found}");
            assert!(near(found.parse().unwrap(), value), "{value} {found}");
            if expected.len() < 16 {
                assert_eq!(found.parse::<f64>().unwrap(), expected.parse::<f64>().unwrap());
            }
        }
        for i in 0..2000 {
            let value = (f64::from(i) * 0.731).sin() * 10f64.powi(i % 12 - 6);
            let found = decimal(value);
            assert!(found.len() <= 16 && near(found.parse().unwrap(), value), "{value} {found}");
        }
    }

    #[test]
    fn texts_fit() {
        assert_eq!(fitted(" a\\b\nc ", 64), "a b c");
        assert_eq!(fitted("größe des x", 6), "größe");
    }

    #[test]
    fn elements_are_sorted_and_padded() {
        let inner = Elements::default().text(tags::CODE_VALUE, "abc");
        let elements = Elements::default()
            .items(tags::SEGMENT_SEQUENCE, vec![inner])
            .text(tags::SOP_INSTANCE_UID, "1.2")
            .words(tags::ROWS, &[5]);
        let mut bytes: Vec<u8> = Vec::new();
        let syntax = dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
        Output::new(&mut bytes, &syntax).elements(&elements).unwrap();
        assert_eq!(&bytes[..12], b"\x08\x00\x18\x00UI\x04\x001.2\0");
        assert_eq!(&bytes[12..22], b"\x28\x00\x10\x00US\x02\x00\x05\0");
        assert_eq!(&bytes[22..34], b"\x62\x00\x02\x00SQ\0\0\xff\xff\xff\xff");
        assert_eq!(&bytes[42..54], b"\x08\x00\x00\x01SH\x04\x00abc ");
    }
}
