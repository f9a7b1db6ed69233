//! A digest of many bytes, on all threads.
//!
//! SHA-256 over the SHA-256 of pieces: as sure as SHA-256, and as fast as the memory where the
//! processor has several cores. It depends on the parts that were put in, not on the threads.

use super::names;
use crate::{ModelError, ParameterSource, ParameterSpec, StuNet};
use burn::tensor::{DType, TensorData};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

/// Bytes hashed apart.
const PIECE: usize = 1 << 20;

/// Sums up parts, such as names and values of parameters.
///
/// ```
/// use stunet_model::weights::Digest;
/// let of = |parts: &[&str]| {
///     let mut digest = Digest::default();
///     parts.iter().for_each(|part| digest.part(part.as_bytes()));
///     digest.finish()
/// };
/// assert_eq!(of(&["a", "b"]).len(), 32);
/// assert_ne!(of(&["a", "b"]), of(&["ab"]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds a part; where one ends and the next begins counts, too.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        if bytes.len() <= PIECE {
            self.0.update(Sha256::digest(bytes));
            return;
        }
        let pieces: Vec<_> = bytes.par_chunks(PIECE).map(Sha256::digest).collect();
        pieces.iter().for_each(|piece| self.0.update(piece));
    }

    /// The first 128 bits, in hexadecimal: no two inputs of anybody have the same.
    pub fn finish(self) -> String {
        self.0.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl StuNet {
    /// A digest of all parameters' names and values, whatever file they came from.
    pub fn digest(&self) -> String {
        let mut digest = Digest::default();
        self.for_each_parameter(&mut |spec, parameter| {
            digest.parameter(&spec.name, parameter.to_data().convert_dtype(DType::F32).as_bytes());
        });
        digest.finish()
    }
}

impl Digest {
    /// Adds a parameter: single precision, in this machine's order of bytes. Its name is that of
    /// version 1, so that digests in the outputs of earlier versions stay valid.
    pub(crate) fn parameter(&mut self, name: &str, values: &[u8]) {
        self.part(names::former(name).as_bytes());
        match cfg!(target_endian = "little") {
            true => self.part(values),
            false => {
                let turned = values.chunks(4).flat_map(|value| value.iter().rev().copied());
                self.part(&turned.collect::<Vec<_>>());
            }
        }
    }
}

/// Passes a source on and sums it up on the way: nothing is read twice.
pub(super) struct Digesting<'a> {
    source: &'a mut dyn ParameterSource,
    digest: Digest,
}

impl<'a> Digesting<'a> {
    pub fn new(source: &'a mut dyn ParameterSource) -> Self {
        Self { source, digest: Digest::default() }
    }

    /// The digest of a network that was built from all of it.
    pub fn finish(self) -> String {
        self.digest.finish()
    }
}

impl ParameterSource for Digesting<'_> {
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        let data = self.source.parameter(spec)?;
        if data.dtype() == DType::F32 {
            self.digest.parameter(&spec.name, data.as_bytes());
        } else {
            let single = data.clone().convert_dtype(DType::F32);
            self.digest.parameter(&spec.name, single.as_bytes());
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> String {
        let mut digest = Digest::default();
        parts.iter().for_each(|part| digest.part(part));
        digest.finish()
    }

    #[test]
    fn every_byte_and_every_border_counts() {
        let long: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i * i % 251) as u8).collect();
        let whole = of(&[&long]);
        for place in [0, PIECE - 1, PIECE, 3 * PIECE + 4] {
            let mut other = long.clone();
            other[place] ^= 1;
            assert_ne!(of(&[&other]), whole, "{place}");
        }
        assert_ne!(of(&[&long[..PIECE], &long[PIECE..]]), whole);
        assert_ne!(of(&[&long, b""]), whole);
    }

    #[test]
    fn threads_do_not_matter() {
        let long = vec![7; 4 * PIECE];
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| of(&[&long]))
        };
        assert_eq!(on(1), on(3));
    }
}
