//! From channel planes to channel-last strips.

use super::ends::Source;
use super::geometry::{CHANNELS, Cut, Strip, Sweep};
use crate::cpu::simd::Simd;
use std::ops::Range;

/// Writes what `strip` reads of some blocks of channels into `buffer`, zeros where the input ends.
#[inline(always)]
pub(super) fn gather<S: Simd>(
    simd: S,
    sweep: &Sweep,
    cut: &Cut,
    strip: Strip,
    source: Source<'_>,
    blocks: Range<usize>,
    buffer: &mut [f32],
) {
    let in_planes = (strip.planes - 1) * sweep.step[0] + sweep.extent[0];
    let in_rows = (strip.rows - 1) * sweep.step[1] + sweep.extent[1];
    let [size_z, size_y, size_x] = sweep.in_size;
    let inside = |at: usize, first: isize, size: usize| {
        usize::try_from(at as isize + first).ok().filter(|at| *at < size)
    };
    for (index, block) in blocks.enumerate() {
        let channels = sweep.channels(block);
        let volumes: [&[f32]; CHANNELS] = std::array::from_fn(|c| {
            source.channel(strip.sample, block * CHANNELS + c.min(channels - 1))
        });
        let buffer = &mut buffer[index * cut.block_len..][..cut.block_len];
        for plane in 0..in_planes {
            let z = inside(strip.z * sweep.step[0] + plane, sweep.first[0], size_z);
            for row in 0..in_rows {
                let y = inside(strip.y * sweep.step[1] + row, sweep.first[1], size_y);
                let at = plane * cut.plane_len
                    + row % sweep.step[1] * sweep.step[2] * cut.phase_len
                    + row / sweep.step[1] * cut.pitch * CHANNELS;
                let (Some(z), Some(y)) = (z, y) else {
                    for phase in 0..sweep.step[2] {
                        buffer[at + phase * cut.phase_len..][..cut.row_len()].fill(0.0);
                    }
                    continue;
                };
                let from = (z * size_y + y) * size_x;
                let rows = volumes.map(|volume| &volume[from..from + size_x]);
                gather_row(simd, sweep, cut, &rows, channels, &mut buffer[at..]);
            }
        }
    }
}

/// One input row of one block. `to` begins at the row's first column.
#[inline(always)]
fn gather_row<S: Simd>(
    simd: S,
    sweep: &Sweep,
    cut: &Cut,
    rows: &[&[f32]; CHANNELS],
    channels: usize,
    to: &mut [f32],
) {
    let step = sweep.step[2];
    let columns = cut.pitch * step;
    // Input voxel `x` stands in column `(x - first)`, dealt out by its remainder.
    let (lead, skip) = ((-sweep.first[2]).max(0) as usize, sweep.first[2].max(0) as usize);
    let place = |column: usize| match step {
        1 => column * CHANNELS,
        // No division: there is one of these for each voxel.
        2 => column % 2 * cut.phase_len + column / 2 * CHANNELS,
        _ => column % step * cut.phase_len + column / step * CHANNELS,
    };
    let len = (rows[0].len() - skip).min(columns.saturating_sub(lead));
    for column in (0..lead).chain(lead + len..columns) {
        to[place(column)..][..CHANNELS].fill(0.0);
    }
    if cut.shared {
        to[cut.pitch * CHANNELS..cut.row_len()].fill(0.0);
    }
    let mut x = 0;
    if channels == CHANNELS {
        let base = to.as_mut_ptr();
        assert!(place(columns - 1) + CHANNELS <= to.len(), "a row ends inside its buffer");
        while x + 8 <= len {
            // SAFETY: eight values from `x` lie in each row, as `skip + len` is at most its length;
            // no place is behind that of the last column, from where 16 values lie in `to`; a
            // row of the input and the buffer are different allocations.
            unsafe {
                let places = eight!(|I| place(lead + x + I));
                for half in [0, 8] {
                    simd.transpose(
                        eight!(|C| rows[half + C].as_ptr().add(skip + x)),
                        eight!(|I| base.add(places[I] + half)),
                    );
                }
            }
            x += 8;
        }
    }
    for x in x..len {
        let voxel = &mut to[place(lead + x)..][..CHANNELS];
        for (value, row) in voxel.iter_mut().zip(&rows[..channels]) {
            *value = row[skip + x];
        }
        // Never read by a kernel, which stops at the last channel; but nothing stale stays.
        voxel[channels..].fill(0.0);
    }
}
