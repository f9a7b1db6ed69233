//! Repetition of voxels, and its gradient.

use super::memory::Output;
use crate::cpu::evenly::Evenly;
use rayon::prelude::*;

/// Values that are copied at a time.
const BLOCK: usize = 1 << 16;

/// Every voxel of `x`, volumes of `size`, `factor` times along each axis.
pub(crate) fn upsample(x: &[f32], size: [usize; 3], factor: [usize; 3]) -> Output {
    let [_, rows, columns] = size;
    let [fz, fy, fx] = factor;
    let (volume, row) = (size.iter().product::<usize>(), columns * fx);
    let mut output = Output::new(x.len() * fz * fy * fx);
    if factor == [1; 3] {
        let to = output.values_mut().par_chunks_mut(BLOCK).evenly();
        to.zip(x.par_chunks(BLOCK)).for_each(|(to, from)| to.copy_from_slice(from));
        return output;
    }
    let volumes = output.values_mut().par_chunks_mut(volume * fz * fy * fx).evenly();
    volumes.zip(x.par_chunks(volume)).for_each(|(to, x)| {
        for (to, x) in to.chunks_mut(fz * rows * fy * row).zip(x.chunks(rows * columns)) {
            let (first, others) = to.split_at_mut(rows * fy * row);
            for (to, x) in first.chunks_mut(fy * row).zip(x.chunks(columns)) {
                let (first, others) = to.split_at_mut(row);
                for (to, x) in first.chunks_mut(fx).zip(x) {
                    to.fill(*x);
                }
                others.chunks_mut(row).for_each(|other| other.copy_from_slice(first));
            }
            others.chunks_mut(rows * fy * row).for_each(|other| other.copy_from_slice(first));
        }
    });
    output
}

/// All values times a factor.
pub(crate) fn scaled(x: &[f32], factor: f32) -> Output {
    let mut output = Output::new(x.len());
    let blocks = output.values_mut().par_chunks_mut(BLOCK).evenly().zip(x.par_chunks(BLOCK));
    blocks.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, x)| *to = x * factor));
    output
}

/// The gradient: sums over what each voxel became.
pub(crate) fn gradient(gradient: &[f32], size: [usize; 3], factor: [usize; 3]) -> Output {
    let [_, rows, columns] = size;
    let [fz, fy, fx] = factor;
    let (volume, row) = (size.iter().product::<usize>(), columns * fx);
    let mut output = Output::new(gradient.len() / (fz * fy * fx));
    let volumes = output.values_mut().par_chunks_mut(volume).evenly();
    volumes.zip(gradient.par_chunks(volume * fz * fy * fx)).for_each(|(to, gradient)| {
        for (index, to) in to.chunks_mut(columns).enumerate() {
            let (z, y) = (index / rows, index % rows);
            to.fill(0.0);
            for repeat in 0..fz * fy {
                let (dz, dy) = (repeat / fy, repeat % fy);
                let from = ((z * fz + dz) * rows * fy + y * fy + dy) * row;
                for (to, g) in to.iter_mut().zip(gradient[from..from + row].chunks(fx)) {
                    *to += g.iter().sum::<f32>();
                }
            }
        }
    });
    output
}
