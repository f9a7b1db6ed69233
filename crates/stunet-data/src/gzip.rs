//! Gzip on all threads.
//!
//! The stream is cut into pieces that are deflated apart, each up to a whole byte, and written one
//! after the other into a *single* member, as `pigz` does: every reader of gzip accepts it, those
//! too that stop behind the first member. The bytes do not depend on the number of threads.
//!
//! # Source
//! RFC 1951 (a stream is a sequence of blocks; an empty stored block ends at a byte) and RFC 1952.

use flate2::{Compress, Compression, FlushCompress};
use rayon::prelude::*;
use std::io::{Error, Result, Write};
use std::sync::OnceLock;

/// Bytes deflated apart. Deflate looks back 32 KiB, so that little is lost at a seam.
const PIECE: usize = 1 << 20;
/// Bytes gathered before they are shared out: a few pieces for each of many threads.
const BATCH: usize = 16 * PIECE;

/// Compresses what is written to it.
pub(crate) struct ParallelGzip<W: Write> {
    out: W,
    level: Compression,
    gathered: Vec<u8>,
    /// A whole piece of zeros, deflated, once there was one: masks of single labels are little else.
    zeros: OnceLock<Vec<u8>>,
    crc: crc32fast::Hasher,
    length: u32,
}

impl<W: Write> ParallelGzip<W> {
    /// Begins a member.
    pub fn new(mut out: W, level: Compression) -> Result<Self> {
        // Deflate, no flags, no time, no extras, an unknown system.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        Ok(Self {
            out,
            level,
            gathered: Vec::with_capacity(PIECE),
            zeros: OnceLock::new(),
            crc: crc32fast::Hasher::new(),
            length: 0,
        })
    }

    /// Ends the member; the writer it went to is flushed by its owner.
    pub fn finish(mut self) -> Result<()> {
        self.pack()?;
        // The last block: fixed codes, nothing in it.
        self.out.write_all(&[0x03, 0x00])?;
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        self.out.write_all(&self.length.to_le_bytes())
    }

    fn pack(&mut self) -> Result<()> {
        let (level, zeros) = (self.level, &self.zeros);
        let packed: Vec<Result<_>> = self
            .gathered
            .par_chunks(PIECE)
            .map(|piece| {
                let mut crc = crc32fast::Hasher::new();
                crc.update(piece);
                let packed = match (piece.len() == PIECE && is_zero(piece), zeros.get()) {
                    (true, Some(packed)) => packed.clone(),
                    (true, None) => {
                        let packed = deflate(piece, level)?;
                        zeros.get_or_init(|| packed).clone()
                    }
                    (false, _) => deflate(piece, level)?,
                };
                Ok((packed, crc))
            })
            .collect();
        for packed in packed {
            let (bytes, crc) = packed?;
            self.out.write_all(&bytes)?;
            self.crc.combine(&crc);
        }
        // The length is counted modulo 2^32.
        self.length = self.length.wrapping_add(self.gathered.len() as u32);
        self.gathered.clear();
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let taken = bytes.len().min(BATCH - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..taken]);
        if self.gathered.len() == BATCH {
            self.pack()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn is_zero(piece: &[u8]) -> bool {
    let (rows, rest) = piece.as_chunks::<64>();
    rows.iter().all(|row| *row == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

/// Deflates a piece up to a whole byte, without ending the stream.
fn deflate(piece: &[u8], level: Compression) -> Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(piece.len() / 4 + 1024);
    let mut state = Compress::new(level, false);
    loop {
        let rest = &piece[state.total_in() as usize..];
        state.compress_vec(rest, &mut packed, FlushCompress::Sync).map_err(Error::other)?;
        // Room that is left over says that nothing is held back.
        if state.total_in() as usize == piece.len() && packed.len() < packed.capacity() {
            return Ok(packed);
        }
        packed.reserve(PIECE / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    fn check(length: usize, step: usize, modulus: usize) {
        let bytes: Vec<u8> = (0..length).map(|i| (i * i % modulus) as u8).collect();
        let mut packed = Vec::new();
        let mut gzip = ParallelGzip::new(&mut packed, Compression::new(3)).unwrap();
        bytes.chunks(step).for_each(|chunk| gzip.write_all(chunk).unwrap());
        gzip.finish().unwrap();
        // GzDecoder reads one member and checks its sum and length.
        let mut found = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut found).unwrap();
        assert!(found == bytes, "{length}");
    }

    #[test]
    fn one_member_whatever_the_length() {
        for length in [0, 1, 1000, PIECE - 1, PIECE, PIECE + 1, BATCH + 12345] {
            check(length, 70_000, 251);
        }
    }

    #[test]
    fn zeros_are_what_they_were() {
        // A piece that is not zero between two that are, and one that is shorter than a piece.
        let mut bytes = vec![0; 3 * PIECE + PIECE / 2];
        bytes[PIECE + 5] = 7;
        let mut packed = Vec::new();
        let mut gzip = ParallelGzip::new(&mut packed, Compression::new(3)).unwrap();
        gzip.write_all(&bytes).unwrap();
        gzip.finish().unwrap();
        let mut found = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut found).unwrap();
        assert!(found == bytes);
        let apart: Vec<u8> = bytes
            .chunks(PIECE)
            .flat_map(|piece| deflate(piece, Compression::new(3)).unwrap())
            .collect();
        assert!(packed[10..packed.len() - 10] == apart, "other bytes than piece by piece");
    }

    #[test]
    fn noise_that_cannot_be_packed() {
        let mut state = 1u32;
        let noise: Vec<u8> = (0..3 * PIECE / 2)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut packed = Vec::new();
        let mut gzip = ParallelGzip::new(&mut packed, Compression::fast()).unwrap();
        gzip.write_all(&noise).unwrap();
        gzip.finish().unwrap();
        let mut found = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut found).unwrap();
        assert!(found == noise);
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut packed = Vec::new();
                let mut gzip = ParallelGzip::new(&mut packed, Compression::fast()).unwrap();
                gzip.write_all(&vec![7; 5 * PIECE / 2]).unwrap();
                gzip.finish().unwrap();
                packed
            })
        };
        assert_eq!(run(1), run(3));
    }
}
