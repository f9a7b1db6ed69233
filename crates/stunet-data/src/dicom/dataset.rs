//! Elements that were kept, and their values.

use super::syntax::Elements;
use crate::error::Result;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use std::collections::BTreeMap;

/// Elements of a data set, or of an item within.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Dataset {
    values: BTreeMap<Tag, Vec<u8>>,
    items: BTreeMap<Tag, Vec<Dataset>>,
}

impl Dataset {
    /// Keeps an element.
    pub fn put(&mut self, tag: Tag, value: Vec<u8>) {
        self.values.insert(tag, value);
    }

    /// Keeps a sequence.
    pub fn put_items(&mut self, tag: Tag, items: Vec<Dataset>) {
        self.items.insert(tag, items);
    }

    /// The items of a sequence.
    pub fn items(&self, tag: Tag) -> &[Dataset] {
        self.items.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// The bytes of an element.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.values.get(&tag).map(Vec::as_slice)
    }

    /// A text of plain letters, without padding.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes(tag)?).into_owned();
        Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
    }

    /// A text in the file's own character set.
    pub fn words(&self, tag: Tag) -> Option<String> {
        let set = self.text(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
        // Of several sets the first is the one without escapes.
        let code = set.split('\\').find(|code| !code.trim().is_empty()).unwrap_or("ISO_IR 6");
        let set = SpecificCharacterSet::from_code(code.trim()).unwrap_or_default();
        let bytes = self.bytes(tag)?;
        let text =
            set.decode(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned());
        Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
    }

    /// Numbers written as text, separated by backslashes.
    pub fn numbers<const N: usize>(&self, tag: Tag) -> Result<Option<[f64; N]>> {
        let Some(text) = self.text(tag).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let number = |part: &str| part.trim().parse::<f64>().ok().filter(|v| v.is_finite());
        let numbers: Option<Vec<f64>> = text.split('\\').map(number).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Some).ok_or_else(|| super::bad_value(tag, format!("{N} number(s)"), &text))
    }

    /// A whole number written as text.
    pub fn integer(&self, tag: Tag) -> Option<i64> {
        self.text(tag)?.parse().ok()
    }

    /// A binary number of two bytes.
    pub fn u16(&self, tag: Tag, elements: Elements) -> Option<u16> {
        let raw = *self.bytes(tag)?.first_chunk::<2>()?;
        Some(match elements {
            Elements::ExplicitBig => u16::from_be_bytes(raw),
            _ => u16::from_le_bytes(raw),
        })
    }
}
