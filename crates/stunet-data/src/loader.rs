//! Batches of training patches: sampled, extracted and augmented on threads, in order, reproducibly.
//!
//! [`batch`] is the whole truth: batch `k` is a pure function of the cases, the configuration and
//! `k`. [`Loader`] computes the same batches ahead of time.

mod queue;

pub use queue::Loader;

use crate::augment::{Augmentation, Crop, deep_supervision_scales, target_pyramid};
use crate::error::{DataError, Result};
use crate::sample::{CasePart, PatchSampler, TrainingCase, TrainingCases, check_shapes, is_forced};
use chacha20::ChaCha8Rng;
use ndarray::{Array3, Array4};
use rand::{RngExt, SeedableRng};

/// Share of a batch that must show foreground, as in the reference.
pub const OVERSAMPLE_FOREGROUND: f64 = 0.33;

/// One patch, ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingPatch {
    /// Name of the case it was cut from.
    pub case: String,
    /// Number of the patch since the beginning of training.
    pub index: u64,
    /// `[C, Z, Y, X]`.
    pub image: Array4<f32>,
    /// Labels at every scale of deep supervision, finest first.
    pub targets: Vec<Array3<i16>>,
}

/// The patches of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingBatch {
    /// In the order they were drawn; the last ones show foreground.
    pub patches: Vec<TrainingPatch>,
    /// Number of the batch since the beginning of training.
    pub index: u64,
}

/// What batches are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
    /// Patches in a batch.
    pub batch_size: usize,
    /// Size of the patches and what happens to them.
    pub augmentation: Augmentation,
    /// Scales of the targets, finest first.
    pub target_scales: Vec<[f64; 3]>,
    /// Share of a batch that must show foreground.
    pub oversample_foreground: f64,
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads of a [`Loader`]; without influence on the result.
    pub num_threads: usize,
    /// Batches a [`Loader`] works ahead, at least one; without influence on the result.
    pub queue: usize,
}

impl LoaderConfig {
    /// The reference's share of foreground, a target per strided stage, two threads, two batches
    /// ahead.
    pub fn new(augmentation: Augmentation, batch_size: usize, strides: &[[usize; 3]]) -> Self {
        Self {
            batch_size,
            augmentation,
            target_scales: deep_supervision_scales(strides),
            oversample_foreground: OVERSAMPLE_FOREGROUND,
            seed: 0,
            num_threads: 2,
            queue: 2,
        }
    }

    /// Size of the patches, `[z, y, x]`.
    pub fn patch_size(&self) -> [usize; 3] {
        self.augmentation.patch_size()
    }
}

/// Batch number `index`: depends on nothing but the arguments.
///
/// # Errors
/// When there are no cases, or one cannot be opened or is malformed; the error names the case.
pub fn batch(
    cases: &dyn TrainingCases,
    config: &LoaderConfig,
    index: u64,
) -> Result<TrainingBatch> {
    let first = index * config.batch_size as u64;
    let patches = (0..config.batch_size as u64).map(|i| patch(cases, config, first + i));
    Ok(TrainingBatch { patches: patches.collect::<Result<_>>()?, index })
}

/// Patch number `index`, from a random stream of its own.
fn patch(cases: &dyn TrainingCases, config: &LoaderConfig, index: u64) -> Result<TrainingPatch> {
    if cases.is_empty() {
        return Err(DataError::NoTrainingCases);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(index);
    let number = rng.random_range(0..cases.len());
    let in_case = |case: String| move |e: DataError| e.in_case(case);
    let case = cases.open(number).map_err(in_case(cases.name(number)))?;

    let augmentation = &config.augmentation;
    let sampler = PatchSampler::new(augmentation.crop_size(), augmentation.patch_size());
    let sample = (index % config.batch_size as u64) as usize;
    let forced = is_forced(sample, config.batch_size, config.oversample_foreground);
    let [num_channels, z, y, x] = case.shape();
    let locations = case.locations().map_err(in_case(case.name().to_owned()))?;
    let placement = sampler.sample([z, y, x], locations, forced, &mut rng);
    let params = augmentation.sample(num_channels, &mut rng);
    let part = part_of(&*case, augmentation.reach(&params), placement.lower)
        .map_err(in_case(case.name().to_owned()))?;
    let crop = Crop {
        image: part.image.view(),
        labels: part.labels.view(),
        lower: std::array::from_fn(|axis| placement.lower[axis] - part.first[axis] as isize),
    };
    let patch = augmentation.apply(&params, &crop);
    Ok(TrainingPatch {
        case: case.name().to_owned(),
        index,
        image: patch.image,
        targets: target_pyramid(patch.labels, &config.target_scales),
    })
}

/// What of a case lies in the box that is read of a crop; `lower` is where the crop begins.
fn part_of(
    case: &dyn TrainingCase,
    (first, size): ([usize; 3], [usize; 3]),
    lower: [isize; 3],
) -> Result<CasePart<'_>> {
    let [num_channels, shape @ ..] = case.shape();
    // Ends of the box that lies within the case; a voxel at least, which nobody looks at.
    let inside: [[usize; 2]; 3] = std::array::from_fn(|axis| {
        let last = shape[axis].saturating_sub(1) as isize;
        let from = (lower[axis] + first[axis] as isize).clamp(0, last);
        let to = lower[axis] + (first[axis] + size[axis]) as isize;
        [from as usize, to.clamp(from + 1, last + 1) as usize]
    });
    let part = case.part(inside.map(|[from, _]| from), inside.map(|[from, to]| to - from))?;
    check_shapes(part.image.view(), part.labels.view())?;
    let given = part.image.shape();
    let holds = |axis: usize| {
        let [from, to] = inside[axis];
        part.first[axis] <= from && to <= part.first[axis] + given[axis + 1]
    };
    match given[0] == num_channels && (0..3).all(holds) {
        true => Ok(part),
        false => Err(DataError::Mismatch {
            what: "part of a case",
            expected: format!("{num_channels} channels of {inside:?}"),
            found: format!("shape {given:?} from {:?} on", part.first),
        }),
    }
}

#[cfg(test)]
mod tests;
