//! Pages that are given back where they could not be moved: large blocks of the heap.

use super::CHUNK;

/// Whole chunks of memory at consecutive addresses.
pub(super) struct Pages(Vec<f32>);

impl Pages {
    /// `chunks` fresh chunks; as many as are in `moved`, or more, of those that wait are given up for
    /// them, the first of them first.
    pub(super) fn gather(chunks: usize, moved: usize, waiting: &mut Vec<Self>) -> Self {
        let mut given = 0;
        while given < moved && !waiting.is_empty() {
            given += waiting.remove(0).chunks();
        }
        Self(vec![0.0; chunks * (CHUNK / size_of::<f32>())])
    }

    /// Blocks of the heap are given back as they were made.
    pub(super) fn split_off(&mut self, _: usize) -> Option<Self> {
        None
    }

    /// As above.
    pub(super) fn join(self, other: Self) -> Result<Self, [Self; 2]> {
        Err([self, other])
    }

    pub(super) fn chunks(&self) -> usize {
        size_of_val(&self.0[..]) / CHUNK
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
