//! Channels interleaved to voxels, and back.

use super::memory::Output;
use crate::cpu::evenly::Evenly;
use rayon::prelude::*;

/// Of every `factor` volumes of `size` in a row, one volume that is `factor` times as large: each voxel
/// becomes a block of the volumes' voxels there.
pub(crate) fn interleave(x: &[f32], size: [usize; 3], factor: [usize; 3]) -> Output {
    let (volume, count) = (size.iter().product::<usize>(), factor.iter().product::<usize>());
    let mut output = Output::new(x.len());
    let volumes = output.values_mut().par_chunks_mut(volume * count).evenly();
    volumes.zip(x.par_chunks(volume * count)).for_each(|(to, from)| {
        for_each_row(size, factor, |wide, parts| {
            let to = &mut to[wide..][..size[2] * factor[2]];
            match parts[..] {
                [p, q] => {
                    let pairs = from[p..][..size[2]].iter().zip(&from[q..][..size[2]]);
                    to.as_chunks_mut::<2>().0.iter_mut().zip(pairs).for_each(|(to, (p, q))| {
                        *to = [*p, *q];
                    });
                }
                [p] => to.copy_from_slice(&from[p..][..size[2]]),
                _ => {
                    for (x, to) in to.chunks_exact_mut(parts.len()).enumerate() {
                        to.iter_mut().zip(parts).for_each(|(to, part)| *to = from[part + x]);
                    }
                }
            }
        });
    });
    output
}

/// The way back: as many volumes of `size` as a block has voxels.
pub(crate) fn separate(x: &[f32], size: [usize; 3], factor: [usize; 3]) -> Output {
    let (volume, count) = (size.iter().product::<usize>(), factor.iter().product::<usize>());
    let mut output = Output::new(x.len());
    let volumes = output.values_mut().par_chunks_mut(volume * count).evenly();
    volumes.zip(x.par_chunks(volume * count)).for_each(|(to, from)| {
        for_each_row(size, factor, |wide, parts| {
            let from = &from[wide..][..size[2] * factor[2]];
            for (offset, part) in parts.iter().enumerate() {
                let every = from[offset..].iter().step_by(factor[2]);
                to[*part..][..size[2]].iter_mut().zip(every).for_each(|(to, from)| *to = *from);
            }
        });
    });
    output
}

/// Every row of the large volume: where it begins, and where the rows begin that it is made of.
fn for_each_row(
    size: [usize; 3],
    [fz, fy, fx]: [usize; 3],
    mut visit: impl FnMut(usize, &[usize]),
) {
    let [planes, rows, columns] = size;
    let mut parts = vec![0; fx];
    for z in 0..planes * fz {
        for y in 0..rows * fy {
            let row = ((z / fz) * rows + y / fy) * columns;
            let first = ((z % fz) * fy + y % fy) * fx;
            for (x, part) in parts.iter_mut().enumerate() {
                *part = (first + x) * planes * rows * columns + row;
            }
            visit((z * rows * fy + y) * columns * fx, &parts);
        }
    }
}
