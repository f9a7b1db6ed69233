//! Frames that other crates decode, after their headers were held against the file's.
//!
//! JPEG by `jpeg-decoder`, JPEG-LS by `pure_jpegls`, JPEG 2000 by `hayro-jpeg2000`: all of them
//! in Rust without `unsafe`. None sees a frame whose own header asks for more samples than the file's.

use super::super::header::Format;
use crate::error::{DataError, Result};
use std::fmt::Display;

fn bad(codec: &'static str, reason: impl Display) -> DataError {
    let reason: String = reason.to_string().chars().take(120).collect();
    DataError::BadPixels { codec, reason }
}

/// Fails where a frame's own header describes another picture.
fn check(codec: &'static str, format: &Format, found: Option<Picture>) -> Result<()> {
    let Format { rows, columns, bits_allocated, .. } = *format;
    let Some(found) = found else {
        return Err(bad(codec, "the header of the frame is damaged"));
    };
    let same = (found.rows, found.columns, found.components) == (rows, columns, 1);
    if !same || found.bits > bits_allocated {
        return Err(bad(
            codec,
            format_args!(
                "expected {rows} × {columns} samples of at most {bits_allocated} bits, found {} × {} \
                 of {} bits, {} of each",
                found.rows, found.columns, found.bits, found.components
            ),
        ));
    }
    Ok(())
}

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Picture {
    rows: usize,
    columns: usize,
    components: usize,
    bits: u16,
    signed: bool,
}

/// The header of a JPEG's frame: of what the marker `FFC0` to `FFCF` (JPEG) or `FFF7` (JPEG-LS)
/// begins.
fn jpeg_header(packed: &[u8]) -> Option<(u8, Picture)> {
    let mut rest = packed.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let marker = *rest.strip_prefix(&[0xff])?.first()?;
        // Bytes that fill up before a marker.
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes(*rest.get(2..)?.first_chunk()?));
        let segment = rest.get(4..2 + length)?;
        let is_frame =
            matches!(marker, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xf7);
        if is_frame {
            let &[bits, r1, r2, c1, c2, components] = segment.first_chunk()?;
            let picture = Picture {
                rows: u16::from_be_bytes([r1, r2]).into(),
                columns: u16::from_be_bytes([c1, c2]).into(),
                components: components.into(),
                bits: bits.into(),
                signed: false,
            };
            return Some((marker, picture));
        }
        rest = &rest[2 + length..];
    }
}

pub(super) fn jpeg(packed: &[u8], format: &Format) -> Result<Vec<u32>> {
    const CODEC: &str = "JPEG";
    let header = jpeg_header(packed);
    check(CODEC, format, header.map(|(_, picture)| picture))?;
    if let Some((marker, picture)) = header
        && marker != 0xc3
        && picture.bits != 8
    {
        return Err(DataError::UnsupportedDicom {
            what: format!(
                "expected JPEG of 8 bits or without loss, found JPEG of {} bits with loss; decompress \
                 the files first, for example with gdcmconv --raw or dcmdjpeg",
                picture.bits
            ),
        });
    }
    let mut decoder = jpeg_decoder::Decoder::new(packed);
    decoder.set_max_decoding_buffer_size(format.rows * format.columns * 2);
    let samples = decoder.decode().map_err(|e| bad(CODEC, e))?;
    let count = format.rows * format.columns;
    let cells: Vec<u32> = match samples.len() / count {
        1 => samples.into_iter().map(u32::from).collect(),
        2 => {
            let word = |raw: &[u8]| u32::from(u16::from_ne_bytes([raw[0], raw[1]]));
            samples.chunks_exact(2).map(word).collect()
        }
        _ => Vec::new(),
    };
    complete(CODEC, cells, count)
}

pub(super) fn jpeg_ls(packed: &[u8], format: &Format) -> Result<Vec<u32>> {
    const CODEC: &str = "JPEG-LS";
    check(CODEC, format, jpeg_header(packed).map(|(_, picture)| picture))?;
    let (columns, rows) = (format.columns as u32, format.rows as u32);
    let (samples, ..) = jpegls::decode(packed, columns, rows).map_err(|e| bad(CODEC, e))?;
    let cells = samples.into_iter().map(u32::from).collect();
    complete(CODEC, cells, format.rows * format.columns)
}

/// The size and the first component of a code stream, by its marker `FF51`, which comes first; a file
/// around the stream is passed over.
fn jpeg_2000_header(packed: &[u8]) -> Option<Picture> {
    const START: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];
    let at = packed.windows(4).position(|window| window == START)?;
    let segment = packed.get(at + 4..)?;
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk()?)) };
    let size = |end: usize, begin: usize| -> Option<usize> {
        usize::try_from(word(end)?.checked_sub(word(begin)?)?).ok()
    };
    // Length, capabilities, width, height, their offsets, four numbers of tiles, components.
    let (columns, rows) = (size(4, 12)?, size(8, 16)?);
    let components = u16::from_be_bytes(*segment.get(36..)?.first_chunk()?);
    let depth = *segment.get(38)?;
    let steps = segment.get(39..41)?;
    // Samples that stand for several places each are no medical image's.
    (steps == [1, 1]).then_some(Picture {
        rows,
        columns,
        components: components.into(),
        bits: u16::from(depth & 0x7f) + 1,
        signed: depth & 0x80 != 0,
    })
}

pub(super) fn jpeg_2000(packed: &[u8], format: &Format) -> Result<Vec<u32>> {
    use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
    const CODEC: &str = "JPEG 2000";
    let header = jpeg_2000_header(packed);
    check(CODEC, format, header)?;
    let settings =
        DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let image = Image::new(packed, &settings).map_err(|e| bad(CODEC, e))?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|e| bad(CODEC, e))?;
    let component = decoded.components().first();
    let samples = component.map_or(&[][..], |component| component.samples());
    let (signed, bits) = header.map_or((false, 16), |header| (header.signed, header.bits));
    // The crate takes all samples for unsigned ones, and adds half of their range.
    let half = if signed { (1u64 << (bits - 1)) as f32 } else { 0.0 };
    let most = (1u64 << bits) as f32 - 1.0;
    let cell = |sample: &f32| {
        let value = sample.round_ties_even().clamp(0.0, most) - half;
        value as i32 as u32
    };
    complete(CODEC, samples.iter().map(cell).collect(), format.rows * format.columns)
}

fn complete(codec: &'static str, cells: Vec<u32>, count: usize) -> Result<Vec<u32>> {
    match cells.len() == count {
        true => Ok(cells),
        false => Err(bad(codec, format_args!("expected {count} samples, found {}", cells.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_frames() {
        let mut file = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff];
        file.extend([0xff, 0xc3, 0, 11, 16, 0, 5, 0, 7, 1, 1, 0x11, 0]);
        let picture = Picture { rows: 5, columns: 7, components: 1, bits: 16, signed: false };
        assert_eq!(jpeg_header(&file), Some((0xc3, picture)));
        for length in 0..file.len() - 3 {
            assert_eq!(jpeg_header(&file[..length]), None, "{length}");
        }
        let mut file = vec![0xff, 0x4f, 0xff, 0x51, 0, 41, 0, 0];
        [9u32, 6, 2, 1, 9, 6, 0, 0].iter().for_each(|n| file.extend(n.to_be_bytes()));
        file.extend([0, 1, 0x8f, 1, 1]);
        let picture = Picture { rows: 5, columns: 7, components: 1, bits: 16, signed: true };
        assert_eq!(jpeg_2000_header(&file), Some(picture));
        assert_eq!(jpeg_2000_header(&file[..30]), None);
    }
}
