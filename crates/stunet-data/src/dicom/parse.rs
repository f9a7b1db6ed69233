//! Bytes to the few elements that say what a scan is.
//!
//! The elements are found by the crate `dicom-parser`, token by token: nothing is allocated on a
//! length alone, nesting takes no stack, and what is not in [`KEPT`] is passed over unread. Names,
//! dates of birth and whatever else may identify a person are never taken out of a file.

use super::dataset::Dataset;
use super::syntax::Syntax;
use crate::error::{DataError, Result};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use std::io::{Read, Seek, SeekFrom};

/// Elements that are kept, at any depth of [`SEQUENCES`].
const KEPT: &[Tag] = &[
    tags::SPECIFIC_CHARACTER_SET,
    tags::IMAGE_TYPE,
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::MODALITY,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::ACQUISITION_NUMBER,
    tags::ACQUISITION_TIME,
    tags::INSTANCE_NUMBER,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::TEMPORAL_POSITION_IDENTIFIER,
    tags::TEMPORAL_POSITION_INDEX,
    tags::STACK_ID,
    tags::IN_STACK_POSITION_NUMBER,
    tags::DIMENSION_INDEX_VALUES,
    tags::ECHO_NUMBERS,
    tags::ECHO_TIME,
    tags::EFFECTIVE_ECHO_TIME,
    tags::TRIGGER_TIME,
    tags::CONVOLUTION_KERNEL,
    tags::DIFFUSION_B_VALUE,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::PIXEL_SPACING,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::FRAME_TYPE,
    tags::EXTENDED_OFFSET_TABLE,
    tags::FRAME_OF_REFERENCE_UID,
];

/// Sequences that are looked into: the functional groups of multi-frame images.
const SEQUENCES: &[Tag] = &[
    tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PIXEL_MEASURES_SEQUENCE,
    tags::PLANE_POSITION_SEQUENCE,
    tags::PLANE_ORIENTATION_SEQUENCE,
    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    tags::FRAME_CONTENT_SEQUENCE,
    tags::MR_ECHO_SEQUENCE,
    tags::MR_DIFFUSION_SEQUENCE,
    tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
];

/// Longest value that is kept but for the table of frames: an image's are a few hundred bytes.
const MAX_VALUE: u32 = 1 << 12;
/// Length of what stands before the mark `DICM`.
const PREAMBLE: usize = 128;
/// Longest meta group that is read.
const MAX_META: u64 = 1 << 16;

/// Where a file's pixels are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pixels {
    /// Nowhere: no image.
    None,
    /// The bytes of all frames, one after the other; words of two bytes or single ones.
    Native { at: u64, length: u32, words: bool },
    /// Pieces, each with its place, and the table of the frames' first ones.
    Pieces { table: Option<(u64, u32)>, pieces: Vec<(u64, u32)> },
}

/// What was found in a file.
pub(super) struct Parsed {
    pub syntax: Syntax,
    pub dataset: Dataset,
    pub pixels: Pixels,
}

/// How far a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Up to the pixels; where their pieces are is left open.
    Header,
    /// To the end of the pixels' pieces.
    Pieces,
}

/// Whether bytes begin as a DICOM file does.
pub(super) fn has_mark(start: &[u8]) -> bool {
    start.get(128..132) == Some(b"DICM")
}

/// Reads the encoding of a file, and returns where its data set begins.
///
/// Old files begin with the data set itself, in implicit little endian.
pub(super) fn meta(source: &mut (impl Read + Seek)) -> Result<(Syntax, u64)> {
    let mut start = Vec::new();
    source.by_ref().take(MAX_META).read_to_end(&mut start).map_err(read_error)?;
    let at = if has_mark(&start) { PREAMBLE + 4 } else { 0 };
    if at == 0 && !is_bare(&start) {
        return Err(DataError::NotDicom {
            expected: "the mark DICM behind 128 bytes",
            found: match start.len() {
                0..132 => format!("{} bytes", start.len()),
                _ => "another kind of file".to_owned(),
            },
        });
    }
    let (uid, end) = transfer_syntax(&start, at);
    match uid {
        Some(uid) => Ok((Syntax::of(uid), end as u64)),
        None if end == 0 => Ok((Syntax::of("1.2.840.10008.1.2"), 0)),
        None => Err(DataError::NotDicom {
            expected: "a transfer syntax in the file's meta group",
            found: "none".to_owned(),
        }),
    }
}

/// The UID of the transfer syntax in the elements of group 2, and where these end. They are in
/// explicit little endian whatever follows.
fn transfer_syntax(start: &[u8], mut at: usize) -> (Option<&str>, usize) {
    let mut uid = None;
    while let Some(&[2, 0, e, f, a, b, c, d]) = start.get(at..).and_then(<[u8]>::first_chunk) {
        let long = matches!(&[a, b], b"OB" | b"OW" | b"SQ" | b"UN" | b"UT");
        let (length, value) = match (long, start.get(at + 8..).and_then(<[u8]>::first_chunk)) {
            (true, Some(length)) => (u32::from_le_bytes(*length) as usize, at + 12),
            (true, None) => break,
            (false, _) => (usize::from(u16::from_le_bytes([c, d])), at + 8),
        };
        let Some(bytes) = start.get(value..).and_then(|rest| rest.get(..length)) else { break };
        if [e, f] == [0x10, 0] {
            uid = std::str::from_utf8(bytes).ok().filter(|uid| !uid.trim().is_empty());
        }
        at = value + length;
    }
    (uid, at)
}

/// Whether bytes without a mark begin with an element of group 2 or 8 of a plausible length.
fn is_bare(start: &[u8]) -> bool {
    let Some(&[group, 0, element, 0, a, b, c, d]) = start.first_chunk::<8>() else {
        return false;
    };
    let explicit = a.is_ascii_uppercase() && b.is_ascii_uppercase();
    let short = u32::from_le_bytes([a, b, c, d]) <= MAX_VALUE;
    (group == 8 && short && matches!(element, 0 | 1 | 5 | 8 | 0x16 | 0x18))
        || (group == 2 && explicit && element <= 2)
}

/// Reads a data set from where it begins.
pub(super) fn dataset(
    source: &mut (impl Read + Seek),
    syntax: &Syntax,
    at: u64,
    extent: Extent,
) -> Result<Parsed> {
    let length = source.seek(SeekFrom::End(0)).map_err(read_error)?;
    source.seek(SeekFrom::Start(at)).map_err(read_error)?;
    let mut walk = Walk::new(length, extent);
    walk.run(source, syntax)?;
    let pixels = std::mem::replace(&mut walk.pixels, Pixels::None);
    Ok(Parsed { syntax: syntax.clone(), dataset: walk.root()?, pixels })
}

pub(super) fn read_error(error: std::io::Error) -> DataError {
    DataError::io("read", error)
}

/// An open sequence or item.
enum Open {
    Item(Dataset),
    Sequence(Tag, Vec<Dataset>),
    /// Something that is passed over.
    OtherItem,
    OtherSequence,
    /// The pieces of the pixels.
    Pieces,
    /// One of them.
    Piece,
}

/// A walk over the tokens of a data set.
struct Walk {
    length: u64,
    extent: Extent,
    open: Vec<Open>,
    pixels: Pixels,
    at: u64,
}

impl Walk {
    fn new(length: u64, extent: Extent) -> Self {
        let open = vec![Open::Item(Dataset::default())];
        Self { length, extent, open, pixels: Pixels::None, at: 0 }
    }

    /// Walks until the pixels were met.
    fn run(&mut self, source: &mut (impl Read + Seek), syntax: &Syntax) -> Result<()> {
        let broken = |at: u64| DataError::BrokenDicom { at, found: None };
        let encoding = syntax.of_elements();
        let start = source.stream_position().map_err(read_error)?;
        let reader = LazyDataSetReader::new_with_ts(source, &encoding);
        let mut reader = reader.map_err(|_| broken(start))?;
        self.at = start;
        // The reader ends where an element's tag would begin, or earlier; how deep it is does not
        // matter to it.
        while let Some(token) = reader.advance() {
            let token = token.map_err(|_| broken(self.at))?;
            if self.step(token)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes a token; true where the walk is at its end.
    fn step<S: StatefulDecode>(&mut self, token: LazyDataToken<&mut S>) -> Result<bool> {
        let root = self.open.len() == 1;
        match token {
            LazyDataToken::ElementHeader(header) => {
                let pixel_data = is_pixel_data(header.tag);
                if root && pixel_data && header.tag != tags::PIXEL_DATA {
                    let what = "expected pixels in whole numbers, found floats".to_owned();
                    return Err(DataError::UnsupportedDicom { what });
                }
            }
            LazyDataToken::LazyValue { header, decoder } => {
                let at = decoder.position();
                let length = header.len.0;
                if root && header.tag == tags::PIXEL_DATA {
                    // Too few are told when they are read: until then it is a slice of its series.
                    let words = header.vr != VR::OB;
                    self.pixels = Pixels::Native { at, length, words };
                    return Ok(true);
                }
                if u64::from(length) > self.length.saturating_sub(at) {
                    return Err(self.short(at, length));
                }
                self.value(header.tag, length, decoder)?;
            }
            LazyDataToken::SequenceStart { tag, .. } => self.open.push(match self.open.last() {
                Some(Open::Item(_)) if SEQUENCES.contains(&tag) => Open::Sequence(tag, Vec::new()),
                _ => Open::OtherSequence,
            }),
            LazyDataToken::PixelSequenceStart if root => {
                self.pixels = Pixels::Pieces { table: None, pieces: Vec::new() };
                if self.extent == Extent::Header {
                    return Ok(true);
                }
                self.open.push(Open::Pieces);
            }
            LazyDataToken::PixelSequenceStart => self.open.push(Open::OtherSequence),
            LazyDataToken::ItemStart { .. } => self.open.push(match self.open.last() {
                Some(Open::Sequence(..)) => Open::Item(Dataset::default()),
                Some(Open::Pieces) => Open::Piece,
                _ => Open::OtherItem,
            }),
            LazyDataToken::LazyItemValue { len, decoder } => {
                let at = decoder.position();
                if u64::from(len) > self.length.saturating_sub(at) {
                    return Err(self.short(at, len));
                }
                if let (Some(Open::Piece), Pixels::Pieces { pieces, .. }) =
                    (self.open.last(), &mut self.pixels)
                {
                    pieces.push((at, len));
                }
                decoder.skip_bytes(len).map_err(|_| DataError::BrokenDicom { at, found: None })?;
                self.at = decoder.position();
            }
            LazyDataToken::ItemEnd => self.end_item()?,
            LazyDataToken::SequenceEnd => return self.end_sequence(),
            _ => {}
        }
        Ok(false)
    }

    fn short(&self, at: u64, length: u32) -> DataError {
        let rest = self.length.saturating_sub(at);
        let found = format!("{length} bytes of a value are announced, {rest} are there");
        DataError::BrokenDicom { at, found: Some(found) }
    }

    fn value<S: StatefulDecode>(&mut self, tag: Tag, length: u32, decoder: &mut S) -> Result<()> {
        let at = decoder.position();
        let broken = |_| DataError::BrokenDicom { at, found: None };
        let most = if tag == tags::EXTENDED_OFFSET_TABLE { u32::MAX } else { MAX_VALUE };
        let kept = KEPT.contains(&tag) && length <= most;
        match self.open.last_mut() {
            Some(Open::Item(dataset)) if kept => {
                let mut value = Vec::with_capacity(length as usize);
                decoder.read_to_vec(length, &mut value).map_err(broken)?;
                dataset.put(tag, value);
            }
            _ => decoder.skip_bytes(length).map_err(broken)?,
        }
        self.at = decoder.position();
        Ok(())
    }

    /// An item ends. The reader must not go on where none was open.
    fn end_item(&mut self) -> Result<()> {
        let at = self.at;
        let unmatched = || DataError::BrokenDicom {
            at,
            found: Some("an item ends that has not begun".to_owned()),
        };
        if self.open.len() < 3 {
            return Err(unmatched());
        }
        match (self.open.pop(), self.open.last_mut()) {
            (Some(Open::Item(item)), Some(Open::Sequence(_, items))) => items.push(item),
            (Some(Open::OtherItem), Some(Open::OtherSequence)) => {}
            (Some(Open::Piece), Some(Open::Pieces)) => {
                // The first piece is the table, which may be empty.
                if let Pixels::Pieces { table: table @ None, pieces } = &mut self.pixels {
                    *table = Some(pieces.pop().unwrap_or_default());
                }
            }
            _ => return Err(unmatched()),
        }
        Ok(())
    }

    fn end_sequence(&mut self) -> Result<bool> {
        match (self.open.pop(), self.open.last_mut()) {
            (Some(Open::Sequence(tag, items)), Some(Open::Item(dataset))) => {
                dataset.put_items(tag, items);
                Ok(false)
            }
            (Some(Open::OtherSequence), Some(_)) => Ok(false),
            (Some(Open::Pieces), Some(_)) => Ok(true),
            _ => Err(DataError::BrokenDicom {
                at: self.at,
                found: Some("a sequence ends that has not begun".to_owned()),
            }),
        }
    }

    /// The elements outside every sequence. A file that ends within one is cut off; what it has is
    /// returned, and the pixels are missed.
    fn root(&mut self) -> Result<Dataset> {
        match self.open.drain(..).next() {
            Some(Open::Item(dataset)) => Ok(dataset),
            _ => Err(DataError::BrokenDicom { at: self.at, found: None }),
        }
    }
}

fn is_pixel_data(tag: Tag) -> bool {
    matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA)
}
