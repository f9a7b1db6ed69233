//! The note that an output carries: what made it, for the program that made it.
//!
//! It lies in a private element, as neither the descriptions (64 letters) nor `ContributionDescription`
//! (1024) have room for it: a record names every file of the input.

use super::elements::Elements;
use crate::dicom::parse;
use crate::dicom::syntax::Elements as Encoding;
use crate::error::{DataError, Result};
use crate::files;
use dicom_core::{Tag, VR};
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

/// Who has the block of private elements.
const CREATOR: Tag = Tag(0x0077, 0x0010);
const NAME: &str = "STUNET";
const NOTE: Tag = Tag(0x0077, 0x1001);
/// Longest note that is read: ten thousand files of an input have a megabyte.
const MAX_NOTE: u32 = 1 << 24;

/// The elements of a note.
pub(super) fn elements_of(note: &str) -> Elements {
    let mut elements = Elements::default();
    elements.put(CREATOR, VR::LO, NAME.as_bytes().to_vec());
    elements.put(NOTE, VR::UT, note.as_bytes().to_vec());
    elements
}

/// The note of a DICOM file, if it has one.
///
/// # Errors
/// When the file cannot be read, or is none of DICOM.
pub fn read_note(path: &Path) -> Result<Option<String>> {
    let file = BufReader::with_capacity(1 << 16, files::open(path)?);
    read(file).map_err(|e| e.at(path))
}

/// As [`read_note`], of a file in memory.
///
/// # Errors
/// As [`read_note`].
pub fn note_in_memory(file: &[u8]) -> Result<Option<String>> {
    read(Cursor::new(file))
}

fn read(mut source: impl Read + Seek) -> Result<Option<String>> {
    let (syntax, at) = parse::meta(&mut source)?;
    if syntax.elements == Encoding::Deflated {
        return Ok(None);
    }
    let length = source.seek(SeekFrom::End(0)).map_err(parse::read_error)?;
    source.seek(SeekFrom::Start(at)).map_err(parse::read_error)?;
    let mut at = at;
    let broken = |at| DataError::BrokenDicom { at, found: None };
    let encoding = syntax.of_elements();
    let mut reader = LazyDataSetReader::new_with_ts(source, &encoding).map_err(|_| broken(at))?;
    let (mut depth, mut ours) = (0usize, false);
    while let Some(token) = reader.advance() {
        match token.map_err(|_| broken(at))? {
            LazyDataToken::SequenceStart { .. } => depth += 1,
            LazyDataToken::SequenceEnd => depth = depth.saturating_sub(1),
            LazyDataToken::PixelSequenceStart => break,
            LazyDataToken::LazyValue { header, decoder } => {
                at = decoder.position();
                let (tag, value) = (header.tag, header.len.0);
                if depth == 0 && tag > NOTE {
                    break;
                }
                let wanted = depth == 0 && (tag == CREATOR || tag == NOTE && ours);
                if !wanted || value > MAX_NOTE || u64::from(value) > length.saturating_sub(at) {
                    decoder.skip_bytes(value).map_err(|_| broken(at))?;
                    continue;
                }
                let mut bytes = Vec::new();
                decoder.read_to_vec(value, &mut bytes).map_err(|_| broken(at))?;
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim_end_matches([' ', '\0']);
                match tag {
                    CREATOR => ours = text == NAME,
                    _ => return Ok(Some(text.to_owned())),
                }
            }
            LazyDataToken::LazyItemValue { len, decoder } => {
                decoder.skip_bytes(len).map_err(|_| broken(at))?;
            }
            _ => {}
        }
    }
    Ok(None)
}
