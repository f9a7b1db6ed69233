//! The volume of the numbers of parts.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes from which a volume has pages of its own.
#[cfg(target_os = "linux")]
const LARGE: usize = 16 << 20;

/// The number of the part of every voxel, in the order z, y, x; 0 outside of all: a slice of numbers.
///
/// Large ones ask the system for large pages. Otherwise the pages of a volume, which is written once, take
/// the system longer than finding the parts.
pub struct PartVolume(Memory);

enum Memory {
    Heap(Vec<u32>),
    #[cfg(target_os = "linux")]
    Pages(memmap2::MmapMut),
}

impl PartVolume {
    /// Of so many voxels, all 0.
    pub(super) fn zeros(len: usize) -> Self {
        #[cfg(target_os = "linux")]
        if size_of::<u32>() * len >= LARGE
            && let Ok(pages) = memmap2::MmapMut::map_anon(size_of::<u32>() * len)
        {
            // Small pages do it, too.
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Self(Memory::Pages(pages));
        }
        Self(Memory::Heap(vec![0; len]))
    }
}

impl Deref for PartVolume {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            Memory::Heap(numbers) => numbers,
            #[cfg(target_os = "linux")]
            Memory::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl DerefMut for PartVolume {
    fn deref_mut(&mut self) -> &mut [u32] {
        match &mut self.0 {
            Memory::Heap(numbers) => numbers,
            #[cfg(target_os = "linux")]
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

impl Clone for PartVolume {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl fmt::Debug for PartVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PartVolume").field(&self.len()).finish()
    }
}

impl PartialEq for PartVolume {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PartVolume {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_small_are_alike() {
        for len in [0, 5, 5 << 20] {
            let mut volume = PartVolume::zeros(len);
            assert!(volume.len() == len && volume.iter().all(|number| *number == 0));
            if let Some(last) = volume.last_mut() {
                *last = 7;
                assert!(volume != PartVolume::zeros(len));
            }
            assert_eq!(volume.clone(), volume);
        }
    }
}
