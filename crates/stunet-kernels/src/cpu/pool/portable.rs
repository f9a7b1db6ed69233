//! Pages that are given back where they could not be moved.

use super::CHUNK;
use memmap2::MmapMut;

/// Whole chunks of memory at consecutive addresses.
pub(super) struct Pages(MmapMut);

impl Pages {
    /// `chunks` fresh chunks; as many as are in `moved`, or more, of those that wait are given up for
    /// them, the first of them first.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub(super) fn gather(chunks: usize, moved: usize, waiting: &mut Vec<Self>) -> Self {
        let mut given = 0;
        while given < moved && !waiting.is_empty() {
            given += waiting.remove(0).chunks();
        }
        let bytes = chunks * CHUNK;
        let map = MmapMut::map_anon(bytes)
            .unwrap_or_else(|error| panic!("no memory for a tensor of {bytes} bytes: {error}"));
        Self(map)
    }

    pub(super) fn chunks(&self) -> usize {
        self.0.len() / CHUNK
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
