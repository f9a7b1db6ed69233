//! Between tensors and boxes, whose channels lie innermost: those of tensors are planes, or lie innermost too.

use super::boxes::Box3;
use crate::cpu::conv::ends::Source;
use crate::cpu::conv::geometry::CHANNELS;
use crate::cpu::memory::Target;
use crate::cpu::norm::Normed;
use crate::cpu::simd::Simd;

/// A box of voxels in a volume, which may reach beyond it.
#[derive(Clone, Copy)]
pub(super) struct Region {
    pub sample: usize,
    /// First voxel.
    pub origin: [isize; 3],
    /// Voxels along each axis.
    pub extent: [usize; 3],
    /// Voxels of the volume along each axis.
    pub size: [usize; 3],
}

impl Region {
    /// What a box reads of a volume of `size` voxels, halo included.
    pub(super) fn read(tiles: Box3, size: [usize; 3]) -> Self {
        let origin = tiles.origin.map(|first| (tiles.tile.stride() * first) as isize - 1);
        Self { sample: tiles.sample, origin, extent: tiles.outer(), size }
    }

    /// What a box writes to a volume of `size` voxels.
    pub(super) fn written(tiles: Box3, size: [usize; 3]) -> Self {
        let origin = tiles.origin.map(|first| first as isize);
        Self { sample: tiles.sample, origin, extent: tiles.inner(), size }
    }

    /// The rows of the region in order: where each begins in the volume, if it is there.
    #[inline(always)]
    fn row(&self, index: usize) -> Option<usize> {
        self.row_repeated(index, [1; 3])
    }

    /// [`row`](Self::row) of a volume whose voxels are repeated, where that lies in memory.
    #[inline(always)]
    fn row_repeated(&self, index: usize, repeats: [usize; 3]) -> Option<usize> {
        let at = [index / self.extent[1], index % self.extent[1]];
        let inside = |axis: usize| {
            let place = usize::try_from(at[axis] as isize + self.origin[axis]).ok()?;
            (place < self.size[axis]).then(|| place / repeats[axis])
        };
        let size = [1, 2].map(|axis| self.size[axis] / repeats[axis]);
        Some((inside(0)? * size[0] + inside(1)?) * size[1])
    }

    /// Columns before the volume begins, and those that lie in it.
    #[inline(always)]
    fn columns(&self) -> (usize, usize) {
        let lead = (-self.origin[2]).max(0) as usize;
        let end = (self.size[2] as isize - self.origin[2]).max(0) as usize;
        (lead, end.min(self.extent[2]).saturating_sub(lead))
    }
}

/// Writes channels `first..first + count`, at most `WIDTH`, of a region: `WIDTH` values a voxel from
/// `to` on, voxels `stride` apart; zero where there is no voxel or no channel.
#[inline(always)]
pub(super) fn gather<S: Simd, const WIDTH: usize>(
    simd: S,
    source: Source<'_>,
    region: Region,
    first: usize,
    count: usize,
    to: &mut [f32],
    stride: usize,
) {
    let columns = region.extent[2];
    let rows = region.extent[0] * region.extent[1];
    let (lead, len) = region.columns();
    let skip = (region.origin[2] + lead as isize) as usize;
    assert!(
        WIDTH <= 16 && WIDTH.is_multiple_of(8) && to.len() >= (rows * columns - 1) * stride + WIDTH
    );
    assert!(len == 0 || skip + len <= region.size[2], "columns inside the volume");
    let normed = source.normed.map(|normed| {
        let at = source.index(region.sample, first.min(source.channels() - 1));
        assert!(WIDTH == Normed::BLOCK, "a norm is of whole blocks");
        normed.block(at, count)
    });
    let volumes = volumes::<WIDTH>(source, region, first, count);
    // A part that is repeated ends with eight channels.
    let repeats = [0, 8].map(|half| source.repeats(first + half));
    let base = to.as_mut_ptr();
    for row in 0..rows {
        let from = region.row(row).filter(|_| len > 0).map(|from| from + skip);
        // Both halves of a voxel's line while it is in the first cache.
        for (half, volumes) in volumes.iter().enumerate().take(WIDTH / 8) {
            let known = count.saturating_sub(8 * half).min(8);
            // SAFETY: the row's voxels lie in `to`, as asserted; each volume holds `len` voxels from
            // the row's first on, as `row` is inside and its columns are, as asserted, or those that
            // stand for them. Volumes and `to` are different allocations.
            unsafe {
                let to = base.add(row * columns * stride + 8 * half);
                let from = from.filter(|_| known > 0);
                let [_, _, along_x] = repeats[half];
                if repeats[half] == [1; 3] || from.is_none() {
                    gather_row(simd, volumes, known, from, [lead, len, columns], to, stride);
                } else {
                    let from = region.row_repeated(row, repeats[half]).unwrap_or_default();
                    let (from, cut) = ([from, skip, along_x], [lead, len, columns]);
                    gather_repeated(simd, volumes, known, from, cut, to, stride);
                }
            }
        }
        if let (Some(normed), Some(_)) = (&normed, from) {
            // SAFETY: the row's voxels lie in `to`, as asserted.
            unsafe {
                let voxels = base.add((row * columns + lead) * stride);
                normed.apply(simd, (voxels, stride), (voxels, stride), len);
            }
        }
    }
}

/// The channels that [`gather`] reads, eight by eight; the last one in the place of those there are not.
#[inline(always)]
fn volumes<'a, const WIDTH: usize>(
    source: Source<'a>,
    region: Region,
    first: usize,
    count: usize,
) -> [[&'a [f32]; 8]; 2] {
    let mut volumes = [[[].as_slice(); 8]; 2];
    for (i, volume) in volumes.as_flattened_mut().iter_mut().enumerate().take(WIDTH) {
        let channel = first + i.min(count.max(1) - 1);
        *volume = source.channel(region.sample, channel);
        let repeats: usize = source.repeats(channel).iter().product();
        assert!(volume.len() * repeats >= region.size.iter().product(), "a channel's voxels");
    }
    volumes
}

/// Writes [`CHANNELS`] channels of a region of a tensor whose channels lie innermost, `first` and those after it; zero
/// where there is no voxel.
#[inline(always)]
pub(super) fn copy_in<S: Simd>(
    simd: S,
    source: Source<'_>,
    region: Region,
    first: usize,
    to: &mut [f32],
) {
    const { assert!(CHANNELS == Normed::BLOCK, "a norm is of whole blocks") };
    let (values, channels) = source.sample(region.sample);
    assert!(first + CHANNELS <= channels, "a whole block of channels");
    let at = source.index(region.sample, first);
    let normed = source.normed.map(|normed| normed.block(at, CHANNELS));
    let columns = region.extent[2];
    let (lead, len) = region.columns();
    let skip = (region.origin[2] + lead as isize) as usize;
    let rows = region.extent[0] * region.extent[1];
    for (row, to) in to.chunks_exact_mut(columns * CHANNELS).enumerate().take(rows) {
        let Some(from) = region.row(row).filter(|_| len > 0) else {
            to.fill(0.0);
            continue;
        };
        let (before, to) = to.split_at_mut(lead * CHANNELS);
        let (to, behind) = to.split_at_mut(len * CHANNELS);
        before.fill(0.0);
        behind.fill(0.0);
        let from = &values[(from + skip) * channels + first..][..(len - 1) * channels + CHANNELS];
        let (from, to) = ((from.as_ptr(), channels), (to.as_mut_ptr(), CHANNELS));
        // SAFETY: a block of channels of `len` voxels in both slices, as just cut.
        unsafe {
            match &normed {
                Some(normed) => normed.apply(simd, from, to, len),
                None => copy_blocks(simd, from, to, len),
            }
        }
    }
}

/// Copies [`CHANNELS`] values of each of `count` voxels, which are a number of values apart.
///
/// # Safety
/// As many are valid for reading and for writing.
#[inline(always)]
unsafe fn copy_blocks<S: Simd>(
    simd: S,
    (from, step): (*const f32, usize),
    (to, to_step): (*mut f32, usize),
    count: usize,
) {
    for voxel in 0..count {
        for part in (0..CHANNELS).step_by(S::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                simd.store(
                    to.add(voxel * to_step + part),
                    simd.load(from.add(voxel * step + part)),
                );
            }
        }
    }
}

/// Eight channels of a row of `columns` voxels: `len` of them, behind `lead` that are none, from `from` on in
/// each of the first `known` volumes.
///
/// # Safety
/// Each volume holds `len` values from `from` on; `to` is valid for writing eight values for each voxel, and is
/// no part of a volume.
#[inline(always)]
unsafe fn gather_row<S: Simd>(
    simd: S,
    volumes: &[&[f32]; 8],
    known: usize,
    from: Option<usize>,
    [lead, len, columns]: [usize; 3],
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(from) = from else { return clear(to, stride, 0..columns) };
        clear(to, stride, 0..lead);
        clear(to, stride, lead + len..columns);
        let to = to.add(lead * stride);
        if known == 8 && len >= 8 {
            let mut x = 0;
            while x < len {
                // The last block overlaps the one before.
                let at = x.min(len - 8);
                simd.transpose(
                    eight!(|I| volumes[I].as_ptr().add(from + at)),
                    eight!(|I| to.add((at + I) * stride)),
                );
                x += 8;
            }
        } else {
            for (i, volume) in volumes.iter().enumerate() {
                for x in 0..len {
                    let value = if i < known { volume[from + x] } else { 0.0 };
                    *to.add(x * stride + i) = value;
                }
            }
        }
    }
}

/// [`gather_row`] where every voxel in memory stands for `repeats` of a row. The row begins at `from` in each of the
/// volumes, and is read from its voxel `skip` on.
///
/// # Safety
/// Each volume holds the row; `to` is valid for writing eight values for each voxel, and is no part of a volume.
#[inline(always)]
unsafe fn gather_repeated<S: Simd>(
    simd: S,
    volumes: &[&[f32]; 8],
    known: usize,
    [from, skip, repeats]: [usize; 3],
    [lead, len, columns]: [usize; 3],
    to: *mut f32,
    stride: usize,
) {
    let (first, end) = (skip / repeats, (skip + len).div_ceil(repeats));
    // The first of the voxels that one in memory stands for, and how many there are up to the last.
    let place = |voxel: usize| (voxel * repeats).saturating_sub(skip);
    // SAFETY: voxels `first..end` lie in the row, and their places are below `len`.
    unsafe {
        clear(to, stride, 0..lead);
        clear(to, stride, lead + len..columns);
        let to = to.add(lead * stride);
        if known == 8 && end - first >= 8 {
            for at in (first..end).step_by(8) {
                // The last block overlaps the one before.
                let at = at.min(end - 8);
                simd.transpose(
                    eight!(|I| volumes[I].as_ptr().add(from + at)),
                    eight!(|I| to.add(place(at + I) * stride)),
                );
            }
        } else {
            for voxel in first..end {
                for (i, volume) in volumes.iter().enumerate() {
                    let value = if i < known { volume[from + voxel] } else { 0.0 };
                    *to.add(place(voxel) * stride + i) = value;
                }
            }
        }
        for voxel in first..end {
            let value = to.add(place(voxel) * stride).cast::<[f32; 8]>().read_unaligned();
            for x in place(voxel) + 1..place(voxel + 1).min(len) {
                to.add(x * stride).cast::<[f32; 8]>().write_unaligned(value);
            }
        }
    }
}

/// Writes eight zeros for each of some voxels.
///
/// # Safety
/// `to` is valid for writing them.
#[inline(always)]
unsafe fn clear(to: *mut f32, stride: usize, voxels: std::ops::Range<usize>) {
    for x in voxels {
        // SAFETY: the caller's promise.
        unsafe { to.add(x * stride).cast::<[f32; 8]>().write_unaligned([0.0; 8]) };
    }
}

/// Copies `count` channels, at most 8, of a region from `from`, voxels `stride` apart, to their
/// volumes. Voxels behind the volume's end are left out.
///
/// # Safety
/// Each of the first `count` targets is valid for writing the region of a volume, and no other
/// thread touches it there.
#[inline(always)]
pub(super) unsafe fn scatter<S: Simd>(
    simd: S,
    from: &[f32],
    stride: usize,
    region: Region,
    volumes: [(Target, usize); 8],
    count: usize,
) {
    let columns = region.extent[2];
    let rows = region.extent[0] * region.extent[1];
    let (_, len) = region.columns();
    assert!(from.len() >= (rows * columns - 1) * stride + count, "voxels of a region");
    // SAFETY: the region's first column, in its volume as the caller promises.
    let volumes =
        volumes.map(|(target, volume)| unsafe { target.at(volume + region.origin[2] as usize) });
    for row in 0..rows {
        let Some(at) = region.row(row) else { continue };
        // SAFETY: voxels below `len` lie in `from`, as asserted, and in the row of a volume, as the
        // caller promises.
        unsafe {
            let from = from.as_ptr().add(row * columns * stride);
            if count == 8 && len >= 8 {
                let mut x = 0;
                while x < len {
                    // The last block overlaps the one before.
                    let column = x.min(len - 8);
                    simd.transpose(
                        eight!(|I| from.add((column + I) * stride)),
                        eight!(|I| volumes[I].add(at + column)),
                    );
                    x += 8;
                }
            } else {
                for x in 0..len {
                    for (channel, volume) in volumes.into_iter().enumerate().take(count) {
                        *volume.add(at + x) = *from.add(x * stride + channel);
                    }
                }
            }
        }
    }
}

/// Copies a block of `width` channels of a region to a tensor whose voxels hold `channels` of them, side by side;
/// `first` is where the block of the sample's first voxel lies. Voxels behind the volume's end are left out.
///
/// # Safety
/// The target is valid for writing the block of the region's voxels, and no other thread touches it there.
#[inline(always)]
pub(super) unsafe fn copy_out<S: Simd>(
    simd: S,
    from: &[f32],
    width: usize,
    region: Region,
    (target, first): (Target, usize),
    channels: usize,
) {
    let columns = region.extent[2];
    let rows = region.extent[0] * region.extent[1];
    let (_, len) = region.columns();
    assert!(from.len() >= rows * columns * width && len <= columns, "voxels of a region");
    assert!(width.is_multiple_of(S::LANES), "whole vectors");
    for row in 0..rows {
        let Some(at) = region.row(row) else { continue };
        for x in 0..len {
            for part in (0..width).step_by(S::LANES) {
                // SAFETY: a voxel of `from`, as asserted, and one of the region, as the caller promises.
                unsafe {
                    let value = simd.load(from.as_ptr().add((row * columns + x) * width + part));
                    let voxel = at + region.origin[2] as usize + x;
                    simd.stream(target.at(first + voxel * channels + part), value);
                }
            }
        }
    }
    simd.fence();
}

/// Adds to `to`, for each of `width` channels of a region, its values and their squares. Voxels behind the volume's
/// end are left out.
#[inline(always)]
pub(super) fn measure<S: Simd>(
    simd: S,
    from: &[f32],
    width: usize,
    region: Region,
    [sums, squares]: [&mut [f64]; 2],
) {
    let columns = region.extent[2];
    let rows = region.extent[0] * region.extent[1];
    let (_, len) = region.columns();
    assert!(from.len() >= rows * columns * width && len <= columns, "voxels of a region");
    assert!(width.is_multiple_of(S::LANES), "whole vectors");
    for part in (0..width).step_by(S::LANES) {
        let (mut sum, mut square) = (simd.zero_wide(), simd.zero_wide());
        for row in (0..rows).filter(|row| region.row(*row).is_some()) {
            for x in 0..len {
                // SAFETY: a voxel of `from`, as asserted.
                let value =
                    unsafe { simd.load(from.as_ptr().add((row * columns + x) * width + part)) };
                (sum, square) = (simd.add_wide(sum, value), simd.add_square(square, value));
            }
        }
        simd.flush_wide(sum, &mut sums[part..]);
        simd.flush_wide(square, &mut squares[part..]);
    }
}
