//! A chunk of Blosc2: blocks that are packed one by one.

use super::{blosclz, wrong};
use crate::error::Result;
use flate2::read::ZlibDecoder;
use ruzstd::decoding::FrameDecoder;
use std::io::Read;

/// Bytes of a chunk's header.
pub(super) const HEADER: usize = 32;
/// Largest block that is unpacked. nnU-Net's have 128 KiB, earlier ones up to 2 MiB.
const MAX_BLOCK: usize = 16 << 20;
/// Largest window of Zstandard: as many bytes as may lie between a match and its copy.
const MAX_WINDOW: u64 = 32 << 20;
/// Filters that a chunk may name.
const FILTERS: usize = 6;

/// What a chunk without blocks is full of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Zeros,
    Nan,
    /// The value that follows the header.
    Repeated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    BloscLz,
    Lz4,
    Zlib,
    Zstd,
}

/// What the header of a chunk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    /// Bytes once it is unpacked.
    pub bytes: usize,
    /// Bytes of a block; the last one may have fewer.
    pub block: usize,
    /// Bytes in the file, header included.
    pub packed: usize,
    /// What it is full of, where it has no blocks.
    pub special: Option<Special>,
    type_size: usize,
    codec: Codec,
    /// True where the bytes follow the header as they are.
    copied: bool,
    /// True where every byte of a number has a stream of its own.
    split: bool,
    filters: [u8; FILTERS],
    filter_sizes: [u8; FILTERS],
}

fn int(bytes: &[u8], at: usize) -> Result<usize> {
    let value = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes);
    let value = value.ok_or_else(|| wrong("a chunk of Blosc2", "its end: truncated"))?;
    usize::try_from(value)
        .map_err(|_| wrong("a length in a chunk of Blosc2", format!("{value}: damaged")))
}

/// What a chunk is full of, by its number in the flags.
fn special(number: u8) -> Result<Option<Special>> {
    Ok(match number {
        0 => None,
        // What was never written may be anything: Blosc2 reads zeros.
        1 | 4 => Some(Special::Zeros),
        2 => Some(Special::Nan),
        3 => Some(Special::Repeated),
        other => return Err(wrong("a chunk of values that Blosc2 knows", other.to_string())),
    })
}

impl ChunkHeader {
    /// Reads the header, which begins with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(wrong("the header of a chunk of Blosc2", "its end: truncated"));
        };
        let flags = header[2];
        if flags & 0b101 != 0b101 {
            return Err(wrong("a chunk of Blosc2", "one of Blosc 1, or a damaged one"));
        }
        let (more, flags2) = (header[30], header[31]);
        if more != 0 || flags2 & 0b1000_1101 != 0 {
            let found = format!("flags {more:#04x} and {flags2:#04x} (dictionaries, lazy blocks)");
            return Err(wrong("a chunk of Blosc2 as nnU-Net writes it", found));
        }
        let special = special(flags2 >> 4 & 7)?;
        let copied = flags & 0b10 != 0;
        let codec = match flags >> 5 {
            // What the list of chunks is packed with.
            0 => Codec::BloscLz,
            1 => Codec::Lz4,
            3 => Codec::Zlib,
            4 => Codec::Zstd,
            other => {
                let expected = "BloscLZ, LZ4, zlib or Zstandard, as nnU-Net packs";
                return Err(wrong(expected, format!("codec {other}")));
            }
        };
        let (bytes, block, packed) = (int(header, 4)?, int(header, 8)?, int(header, 12)?);
        let filters: [u8; FILTERS] = std::array::from_fn(|i| header[16 + i]);
        if let Some(other) = filters.iter().find(|filter| !matches!(filter, 0 | 1 | 4)) {
            let found = format!("filter {other}");
            return Err(wrong("no filter, or shuffled bytes, as nnU-Net packs", found));
        }
        let filter_sizes = std::array::from_fn(|i| header[24 + i]);
        let type_size = usize::from(header[3]);
        let found = Self {
            bytes,
            block,
            packed,
            special,
            type_size,
            codec,
            copied,
            split: flags & 0x10 == 0,
            filters,
            filter_sizes,
        };
        match type_size > 0 && packed >= HEADER && (bytes == 0 || (1..=bytes).contains(&block)) {
            true => Ok(found),
            false => {
                let found = format!("{bytes} bytes in blocks of {block}, {packed} packed");
                Err(wrong("lengths of a chunk of Blosc2", found))
            }
        }
    }

    /// How many blocks there are.
    pub fn num_blocks(&self) -> usize {
        self.bytes.div_ceil(self.block.max(1))
    }

    /// Bytes of the header and of the list of where blocks begin.
    pub fn index(&self) -> usize {
        match self.copied || self.special.is_some() {
            true => HEADER,
            false => HEADER + 4 * self.num_blocks(),
        }
    }

    /// Bytes of the chunk in which some blocks lie; `index` is its beginning up to
    /// [`index`](Self::index).
    pub fn range_of(&self, blocks: &[usize], index: &[u8]) -> Result<(usize, usize)> {
        if self.copied {
            let from = blocks.iter().min().map_or(0, |block| block * self.block);
            let to = blocks.iter().max().map_or(0, |block| (block + 1) * self.block);
            return Ok((HEADER + from, HEADER + to.min(self.bytes)));
        }
        let mut starts = (0..self.num_blocks())
            .map(|block| int(index, HEADER + 4 * block))
            .collect::<Result<Vec<_>>>()?;
        let wanted: Vec<usize> = blocks.iter().map(|block| starts[*block]).collect();
        starts.sort_unstable();
        // A block ends where the next one in the file begins.
        let end = |start: usize| {
            let next = starts.partition_point(|other| *other <= start);
            starts.get(next).copied().unwrap_or(self.packed)
        };
        let from = wanted.iter().copied().min().unwrap_or(self.packed);
        let to = wanted.iter().map(|start| end(*start)).max().unwrap_or(from);
        match self.index() <= from && from <= to && to <= self.packed {
            true => Ok((from, to)),
            false => Err(wrong("blocks within their chunk", format!("bytes {from} to {to}"))),
        }
    }

    /// Where a block begins in its chunk.
    pub fn start_of(&self, block: usize, index: &[u8]) -> Result<usize> {
        match self.copied {
            true => Ok(HEADER + block * self.block),
            false => int(index, HEADER + 4 * block),
        }
    }

    fn length_of(&self, block: usize) -> usize {
        self.block.min(self.bytes - block * self.block)
    }
}

/// Unpacks blocks; keeps its memory between them.
#[derive(Default)]
pub(super) struct Unpacker {
    zstd: FrameDecoder,
    block: Vec<u8>,
    other: Vec<u8>,
}

impl Unpacker {
    /// The bytes of a block, whose streams begin at the start of `packed`.
    pub fn block(&mut self, chunk: &ChunkHeader, block: usize, packed: &[u8]) -> Result<&[u8]> {
        let length = chunk.length_of(block);
        if length > MAX_BLOCK {
            let expected = format!("blocks of at most {MAX_BLOCK} bytes");
            return Err(wrong(expected, format!("one of {length}")));
        }
        if chunk.copied {
            let bytes = packed.get(..length).ok_or_else(truncated)?;
            self.block.clear();
            self.block.extend_from_slice(bytes);
            return Ok(&self.block);
        }
        // A last block that is shorter is never split.
        let streams = if chunk.split && length == chunk.block { chunk.type_size } else { 1 };
        if !length.is_multiple_of(streams) {
            let found = format!("a block of {length} bytes in {streams} streams");
            return Err(wrong("streams of one length", found));
        }
        self.block.clear();
        self.block.resize(length, 0);
        let mut rest = packed;
        for out in self.block.chunks_exact_mut(length / streams) {
            rest = stream(&mut self.zstd, chunk.codec, rest, out)?;
        }
        for (filter, size) in chunk.filters.into_iter().zip(chunk.filter_sizes).rev() {
            if filter == 1 {
                let size = if size == 0 { chunk.type_size } else { usize::from(size) };
                unshuffle(&self.block, size, &mut self.other);
                std::mem::swap(&mut self.block, &mut self.other);
            }
        }
        Ok(&self.block)
    }
}

fn truncated() -> crate::DataError {
    wrong("the bytes of a block", "its end: truncated")
}

fn damaged(reason: impl std::fmt::Display) -> crate::DataError {
    wrong("a block that can be unpacked", format!("{reason:.120}: damaged"))
}

/// Unpacks a stream; returns what follows it.
fn stream<'a>(
    zstd: &mut FrameDecoder,
    codec: Codec,
    packed: &'a [u8],
    out: &mut [u8],
) -> Result<&'a [u8]> {
    let (length, rest) = packed.split_first_chunk::<4>().ok_or_else(truncated)?;
    let length = i32::from_le_bytes(*length);
    let Ok(length) = usize::try_from(length) else {
        // A run of one byte; which one is in the length.
        return match rest.split_first() {
            Some((token, rest)) if token & 1 == 1 && length >= -255 => {
                out.fill(length.unsigned_abs() as u8);
                Ok(rest)
            }
            _ => Err(damaged(format_args!("a stream of {length} bytes"))),
        };
    };
    let (bytes, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
    if length == 0 {
        out.fill(0);
        return Ok(rest);
    }
    if length == out.len() {
        out.copy_from_slice(bytes);
        return Ok(rest);
    }
    let found = match codec {
        Codec::BloscLz => blosclz::unpack(bytes, out).ok_or_else(|| damaged("BloscLZ"))?,
        Codec::Lz4 => lz4_flex::block::decompress_into(bytes, out).map_err(damaged)?,
        Codec::Zstd => {
            check_window(bytes)?;
            zstd.decode_all(bytes, out).map_err(damaged)?
        }
        Codec::Zlib => {
            ZlibDecoder::new(bytes).read_exact(out).map_err(damaged)?;
            out.len()
        }
    };
    match found == out.len() {
        true => Ok(rest),
        false => Err(damaged(format_args!("{found} bytes instead of {}", out.len()))),
    }
}

/// The decoder makes room for the window that a frame asks for before it has seen its data.
fn check_window(frame: &[u8]) -> Result<()> {
    let found = match frame {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] => window(*descriptor, rest),
        _ => None,
    };
    match found {
        Some(window) if window <= MAX_WINDOW => Ok(()),
        Some(window) => Err(damaged(format_args!("a window of {window} bytes"))),
        None => Err(damaged("no frame of Zstandard")),
    }
}

/// # Source
/// RFC 8878, 3.1.1.1: the frame header.
fn window(descriptor: u8, rest: &[u8]) -> Option<u64> {
    let single = descriptor & 0x20 != 0;
    if !single {
        let byte = *rest.first()?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..length].copy_from_slice(rest.get(dictionary..dictionary + length)?);
    let size = u64::from_le_bytes(size);
    Some(if length == 2 { size + 256 } else { size })
}

/// Puts the bytes of numbers together again: first come the first bytes of all, then the second ones.
fn unshuffle(from: &[u8], size: usize, into: &mut Vec<u8>) {
    into.clear();
    into.resize(from.len(), 0);
    let count = from.len() / size;
    let whole = count * size;
    if count > 0 {
        for (byte, plane) in from[..whole].chunks_exact(count).enumerate() {
            for (number, value) in into[..whole].chunks_exact_mut(size).zip(plane) {
                number[byte] = *value;
            }
        }
    }
    into[whole..].copy_from_slice(&from[whole..]);
}
