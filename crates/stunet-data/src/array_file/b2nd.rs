//! Arrays of Blosc2 in one file (`.b2nd`): a frame of chunks, each of which is a box of blocks.

use super::chunk::{ChunkHeader, HEADER, Special, Unpacker};
use super::{Cell, Number, Source, bad_value, wrong};
use crate::error::Result;
use ndarray::{Array4, ArrayView1, ArrayViewMut4, s};

/// Bytes of a frame's header without what is added to it.
const FRAME: usize = 87;
/// Longest header that is read.
const MAX_FRAME: usize = 1 << 20;
/// Most chunks; nnU-Net's have some MiB each.
const MAX_CHUNKS: usize = 1 << 22;

/// An array of four axes.
#[derive(Debug)]
pub(super) struct B2nd {
    source: Source,
    number: Number,
    shape: [usize; 4],
    chunk: [usize; 4],
    block: [usize; 4],
    /// Where the frame's header ends; offsets count from here.
    data: u64,
    /// Where each chunk begins, or what it is full of.
    offsets: Vec<i64>,
}

/// A number in the header, most significant byte first.
fn number<const N: usize>(header: &[u8], at: usize) -> Result<u64> {
    let mut wide = [0; 8];
    let bytes = header.get(at..at + N).ok_or_else(|| wrong("the header of a frame", "its end"))?;
    wide[8 - N..].copy_from_slice(bytes);
    Ok(u64::from_be_bytes(wide))
}

impl B2nd {
    pub fn open(source: Source) -> Result<Self> {
        let mut header = Vec::new();
        source.read(0, FRAME, &mut header)?;
        if &header[1..10] != b"\xa8b2frame\0" {
            return Err(wrong("a frame of Blosc2 (.b2nd)", "another file"));
        }
        let length = number::<4>(&header, 11)? as usize;
        if !(FRAME..=MAX_FRAME).contains(&length) {
            return Err(wrong("a header of at most 1 MiB", format!("{length} bytes: damaged")));
        }
        let frame = number::<8>(&header, 16)?;
        if frame > source.length {
            let found = format!("{} bytes: truncated", source.length);
            return Err(wrong(format!("a frame of {frame} bytes"), found));
        }
        let (flags, kind) = (header[25], header[26]);
        if kind & 15 != 0 || flags & 0x40 != 0 {
            return Err(wrong(
                "a frame of equal chunks in one file",
                "one in a folder, or of others",
            ));
        }
        let packed = number::<8>(&header, 39)?;
        source.read(0, length, &mut header)?;
        let meta = metalayer(&header)?;
        let layout = Layout::read(meta)?;
        let num_chunks = layout.num_chunks()?;
        let data = length as u64;
        let Layout { number, shape, chunk, block } = layout;
        let mut found = Self { source, number, shape, chunk, block, data, offsets: Vec::new() };
        found.offsets = found.read_offsets(packed, num_chunks)?;
        Ok(found)
    }

    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    pub fn number(&self) -> Number {
        self.number
    }

    /// The list of where chunks begin, which is a chunk itself, behind the others.
    fn read_offsets(&self, packed: u64, count: usize) -> Result<Vec<i64>> {
        let at = self.data.checked_add(packed).ok_or_else(|| wrong("a frame", "a damaged one"))?;
        let mut bytes = Vec::new();
        self.source.read(at, HEADER, &mut bytes)?;
        let header = ChunkHeader::read(&bytes)?;
        if header.bytes != 8 * count {
            let expected = format!("a list of {count} chunks, as the shape has");
            return Err(wrong(expected, format!("one of {} bytes", header.bytes)));
        }
        self.source.read(at, header.packed, &mut bytes)?;
        let offset = |b: &[u8; 8]| i64::from_le_bytes(*b);
        match header.special {
            Some(Special::Repeated) => {
                let value = bytes.get(HEADER..).and_then(|rest| rest.first_chunk::<8>());
                let value = value.ok_or_else(|| wrong("a value of 8 bytes", "its end"))?;
                Ok(vec![offset(value); count])
            }
            Some(_) => Ok(vec![0; count]),
            None => {
                let mut unpacker = Unpacker::default();
                let mut offsets = Vec::with_capacity(count);
                for block in 0..header.num_blocks() {
                    let start = header.start_of(block, &bytes)?;
                    let packed = bytes.get(start..).ok_or_else(|| wrong("a block", "its end"))?;
                    let unpacked = unpacker.block(&header, block, packed)?;
                    offsets.extend(unpacked.as_chunks::<8>().0.iter().map(offset));
                }
                match offsets.len() == count {
                    true => Ok(offsets),
                    false => Err(wrong(format!("{count} offsets"), offsets.len().to_string())),
                }
            }
        }
    }

    /// Reads a box that lies within the array.
    pub fn read<T: Cell>(&self, first: [usize; 4], out: &mut Array4<T>) -> Result<()> {
        let size: [usize; 4] = out.dim().into();
        let range = |axis: usize| {
            let (from, to) = (first[axis], first[axis] + size[axis]);
            from / self.chunk[axis]..to.div_ceil(self.chunk[axis])
        };
        let counts: [usize; 4] = std::array::from_fn(|a| self.shape[a].div_ceil(self.chunk[a]));
        let mut unpacker = Unpacker::default();
        for c in range(0) {
            for z in range(1) {
                for y in range(2) {
                    for x in range(3) {
                        let at = [c, z, y, x];
                        let index = (0..4).fold(0, |index, a| index * counts[a] + at[a]);
                        self.read_chunk((at, index), first, out, &mut unpacker)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads what a chunk has of the box.
    fn read_chunk<T: Cell>(
        &self,
        (at, index): ([usize; 4], usize),
        first: [usize; 4],
        out: &mut Array4<T>,
        unpacker: &mut Unpacker,
    ) -> Result<()> {
        let lower: [usize; 4] = std::array::from_fn(|a| at[a] * self.chunk[a]);
        let offset = self.offsets[index];
        if offset < 0 {
            let value = match (offset as u64) >> 56 & 0x7f {
                1 | 4 => 0.0,
                2 => f64::NAN,
                other => return Err(wrong("a value that Blosc2 knows", other.to_string())),
            };
            let value = T::of(value).map_err(bad_value)?;
            overlap(out, first, (lower, self.chunk)).1.fill(value);
            return Ok(());
        }
        let begin = self.data.saturating_add(offset as u64);
        let mut bytes = Vec::new();
        self.source.read(begin, HEADER, &mut bytes)?;
        let header = ChunkHeader::read(&bytes)?;
        let blocks: [usize; 4] = std::array::from_fn(|a| self.chunk[a].div_ceil(self.block[a]));
        let block_bytes = self.block.iter().product::<usize>() * self.number.bytes();
        let expected = blocks.iter().product::<usize>() * block_bytes;
        if (header.bytes, header.block) != (expected, block_bytes) {
            let found = format!("{} bytes in blocks of {}", header.bytes, header.block);
            let expected = format!("chunks of {expected} bytes in blocks of {block_bytes}");
            return Err(wrong(expected, found));
        }
        self.source.read(begin, header.index(), &mut bytes)?;
        if let Some(special) = header.special {
            let value = self.value_of(special, begin)?;
            let value = T::of(value).map_err(bad_value)?;
            overlap(out, first, (lower, self.chunk)).1.fill(value);
            return Ok(());
        }
        let wanted = self.wanted((lower, blocks), first, out.dim().into());
        let numbers: Vec<usize> = wanted.iter().map(|(number, _)| *number).collect();
        let (from, to) = header.range_of(&numbers, &bytes)?;
        let mut packed = Vec::new();
        self.source.read(begin + from as u64, to - from, &mut packed)?;
        let mut row = vec![T::default(); self.block[3]];
        for (number, place) in wanted {
            let start = header.start_of(number, &bytes)?;
            let start = start.checked_sub(from).and_then(|start| packed.get(start..));
            let start =
                start.ok_or_else(|| wrong("a block within its chunk", "one that is not"))?;
            let block = unpacker.block(&header, number, start)?;
            self.copy(block, place, first, (out, &mut row))?;
        }
        Ok(())
    }

    /// The value that a chunk without blocks is full of.
    fn value_of(&self, special: Special, begin: u64) -> Result<f64> {
        match special {
            Special::Zeros => Ok(0.0),
            Special::Nan => Ok(f64::NAN),
            Special::Repeated => {
                let mut bytes = Vec::new();
                self.source.read(begin + HEADER as u64, self.number.bytes(), &mut bytes)?;
                let mut value = [0.0f64];
                self.number.decode(&bytes, &mut value).map_err(bad_value)?;
                Ok(value[0])
            }
        }
    }

    /// Blocks of a chunk that meet the box, by their number, and where they begin in the array.
    fn wanted(
        &self,
        (lower, blocks): ([usize; 4], [usize; 4]),
        first: [usize; 4],
        size: [usize; 4],
    ) -> Vec<(usize, [usize; 4])> {
        let mut wanted = Vec::new();
        for number in 0..blocks.iter().product() {
            let mut rest = number;
            let mut place = lower;
            for axis in (0..4).rev() {
                place[axis] += rest % blocks[axis] * self.block[axis];
                rest /= blocks[axis];
            }
            let meets = (0..4).all(|a| {
                place[a] < (first[a] + size[a]).min(lower[a] + self.chunk[a])
                    && first[a] < place[a] + self.block[a]
            });
            if meets {
                wanted.push((number, place));
            }
        }
        wanted
    }

    /// Copies what a block has of the box.
    fn copy<T: Cell>(
        &self,
        block: &[u8],
        place: [usize; 4],
        first: [usize; 4],
        (out, row): (&mut Array4<T>, &mut Vec<T>),
    ) -> Result<()> {
        // A chunk that is no multiple of its blocks is filled up: what lies beyond belongs to nobody.
        let chunk_end: [usize; 4] =
            std::array::from_fn(|a| (place[a] / self.chunk[a] + 1) * self.chunk[a]);
        let length = std::array::from_fn(|a| self.block[a].min(chunk_end[a] - place[a]));
        let (from, mut target) = overlap(out, first, (place, length));
        let (each, size) = (self.number.bytes(), self.block);
        let (channels, planes, rows, columns) = target.dim();
        let row = &mut row[..columns];
        for c in 0..channels {
            for z in 0..planes {
                for y in 0..rows {
                    let at = [c, z, y, 0];
                    let voxel = (0..4).fold(0, |voxel, a| voxel * size[a] + from[a] + at[a]);
                    let bytes = &block[voxel * each..(voxel + columns) * each];
                    self.number.decode(bytes, row).map_err(bad_value)?;
                    target.slice_mut(s![c, z, y, ..]).assign(&ArrayView1::from(&*row));
                }
            }
        }
        Ok(())
    }
}

/// What a box of the array, which begins at `place`, shares with the one that `out` is, which begins at
/// `first`: where that begins in the box, and its place in `out`.
fn overlap<'a, T>(
    out: &'a mut Array4<T>,
    first: [usize; 4],
    (place, length): ([usize; 4], [usize; 4]),
) -> ([usize; 4], ArrayViewMut4<'a, T>) {
    let size: [usize; 4] = out.dim().into();
    let shared: [[usize; 2]; 4] = std::array::from_fn(|a| {
        let from = first[a].max(place[a]);
        [from, (first[a] + size[a]).min(place[a] + length[a]).max(from)]
    });
    let [c, z, y, x] = std::array::from_fn(|a| {
        let [from, to] = shared[a].map(|at| (at - first[a]).min(size[a]));
        ndarray::Slice::from(from..to)
    });
    let from = std::array::from_fn(|a| shared[a][0] - place[a]);
    (from, out.slice_mut(s![c, z, y, x]))
}

/// The entry of a frame's header that says what the chunks are boxes of.
///
/// # Source
/// `README_CFRAME_FORMAT`: a table of names and places, then the entries, each with its length.
fn metalayer(header: &[u8]) -> Result<&[u8]> {
    const NAME: &[u8] = b"\xa4b2nd\xd2";
    let table = &header[FRAME..];
    let at = table.windows(NAME.len()).position(|window| window == NAME);
    let at = at.ok_or_else(|| wrong("an array (b2nd)", "a frame of Blosc2 without axes"))?;
    let place = number::<4>(table, at + NAME.len())? as usize;
    if header.get(place) != Some(&0xc6) {
        return Err(wrong("an entry b2nd in the header", "none: damaged"));
    }
    let length = number::<4>(header, place + 1)? as usize;
    let entry = header.get(place + 5..).and_then(|rest| rest.get(..length));
    entry.ok_or_else(|| wrong("an entry b2nd in the header", "its end: truncated"))
}

/// Axes, chunks and blocks.
struct Layout {
    number: Number,
    shape: [usize; 4],
    chunk: [usize; 4],
    block: [usize; 4],
}

impl Layout {
    /// # Source
    /// `README_B2ND_METALAYER`.
    fn read(entry: &[u8]) -> Result<Self> {
        let axes = entry.get(2).copied().unwrap_or_default();
        if axes != 4 {
            return Err(wrong("an array of four axes: channel, z, y, x", format!("{axes} axes")));
        }
        let mut at = 3;
        let shape = lengths::<8>(entry, &mut at, 0xd3)?;
        let chunk = lengths::<4>(entry, &mut at, 0xd2)?;
        let block = lengths::<4>(entry, &mut at, 0xd2)?;
        // Format 0: a name of NumPy's.
        if entry.get(at..at + 2) != Some(&[0, 0xdb]) {
            return Err(wrong("a type of numbers in NumPy's spelling", "none"));
        }
        let length = number::<4>(entry, at + 2)? as usize;
        let name = entry.get(at + 6..).and_then(|rest| rest.get(..length)).unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let number = Number::of(&name).ok_or_else(|| {
            wrong("little-endian numbers such as <f4 or <i2", format!("{name:.40}"))
        })?;
        let found = Self { number, shape, chunk, block };
        let possible = |a: usize| {
            (1..1 << 31).contains(&shape[a])
                && (1..1 << 31).contains(&chunk[a])
                && (1..=chunk[a]).contains(&block[a])
        };
        // Products of what follows stay below what lengths are counted in; a chunk's is one of 31 bits.
        let product = |lengths: [usize; 4]| lengths.iter().map(|n| *n as f64).product::<f64>();
        let padded = |a: usize| chunk[a].div_ceil(block[a].max(1)) as f64 * block[a] as f64;
        let bytes = (0..4).map(padded).product::<f64>() * number.bytes() as f64;
        let small = product(shape) < 2f64.powi(48) && bytes < 2f64.powi(31);
        match (0..4).all(possible) && small {
            true => Ok(found),
            false => {
                let found = format!("shape {shape:?}, chunks {chunk:?}, blocks {block:?}");
                Err(wrong("a shape divided into chunks and blocks", found))
            }
        }
    }

    fn num_chunks(&self) -> Result<usize> {
        let counts = (0..4).map(|a| self.shape[a].div_ceil(self.chunk[a]));
        let count = counts.map(|n| n as f64).product::<f64>();
        match count <= MAX_CHUNKS as f64 {
            true => Ok(count as usize),
            false => Err(wrong(format!("at most {MAX_CHUNKS} chunks"), count.to_string())),
        }
    }
}

/// Four lengths, each behind its mark.
fn lengths<const N: usize>(entry: &[u8], at: &mut usize, mark: u8) -> Result<[usize; 4]> {
    let bad = || wrong("four lengths in the entry b2nd", "others: damaged");
    if entry.get(*at) != Some(&0x94) {
        return Err(bad());
    }
    *at += 1;
    let mut found = [0; 4];
    for length in &mut found {
        if entry.get(*at) != Some(&mark) {
            return Err(bad());
        }
        *length = usize::try_from(number::<N>(entry, *at + 1)?).map_err(|_| bad())?;
        *at += 1 + N;
    }
    Ok(found)
}
