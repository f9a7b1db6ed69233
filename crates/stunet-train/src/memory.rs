//! Estimate of the memory that a run needs, made before it starts.
//!
//! The estimate follows what the step keeps: for the backward pass every convolution its input and
//! every norm its own, the logits of all scales three times in the loss, a few volumes of the finest
//! stage on their way back; gradients, momentum and the average beside the weights, each a second
//! time while a checkpoint is written; and the patches that threads prepare ahead.
//!
//! It is meant to be too large rather than too small: on the CPU, single precision, what was measured
//! (the process's high-water mark) is between 0.7 and 1.0 of it plus what the process holds before,
//! from networks of a thousand parameters to 440 million. Pages of prepared cases, which the system
//! may take back, and a GPU driver's own memory are not in it.

use crate::fit::{FitConfig, StateOptions};
use crate::host::is_host;
use crate::precision::Precision;
use crate::trained::{self, Share};
use serde::Serialize;
use std::collections::BTreeMap;
use stunet_model::{NUM_STAGES, NetworkPart, ParameterSpec, StuNetConfig, cost};

/// Bytes of a value in single precision.
const F32: f64 = 4.0;
/// Volumes of the widest stage that are on their way while the backward pass is in it.
const ON_THEIR_WAY: f64 = 4.0;
/// Scratch of the kernels' threads, on the host.
const SCRATCH: f64 = 24.0 * 1024.0 * 1024.0;
/// Batches that are held at a time beside those that wait: the one in work.
const IN_WORK: f64 = 1.0;

/// Bytes of a training run, by estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingMemory {
    /// Weights, gradients, momentum and average, and their copies while a checkpoint is written.
    pub weights_bytes: u64,
    /// What the backward pass needs of the forward pass, and the loss.
    pub activation_bytes: u64,
    /// Patches in work, waiting, and on the device.
    pub patch_bytes: u64,
    /// Of all this, what the devices other than the host hold together.
    pub device_bytes: u64,
}

impl TrainingMemory {
    /// Everything together.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.activation_bytes).saturating_add(self.patch_bytes)
    }

    /// Memory of the host.
    pub fn host_bytes(&self) -> u64 {
        self.total_bytes().saturating_sub(self.device_bytes)
    }
}

/// What a run of a network will take; nothing is allocated.
///
/// ```
/// use burn::tensor::Device;
/// use stunet_data::augment::Augmentation;
/// use stunet_data::loader::LoaderConfig;
/// use stunet_model::StuNetConfig;
/// use stunet_train::loss::{Loss, LossConfig};
/// use stunet_train::{FitConfig, StateOptions, memory};
///
/// let network = StuNetConfig::small(1, 105);
/// let loader = LoaderConfig::new(Augmentation::v1([128; 3]), 2, &network.strides);
/// let config = FitConfig::new(1000, loader, Loss::new(LossConfig::v1(true))?);
/// let plan = memory::plan(&network, &config, &StateOptions::new(&Device::flex()));
/// assert_eq!(plan.total_bytes() / 1_000_000_000, 9);
/// # Ok::<(), stunet_train::TrainError>(())
/// ```
pub fn plan(network: &StuNetConfig, config: &FitConfig, options: &StateOptions) -> TrainingMemory {
    let Sizes { weights, saved, activations, waiting, uploaded } =
        Sizes::of(network, config, options);
    let all = 1.0 + options.others.len() as f64;
    let (scratch, device_bytes) = match is_host(&options.device) {
        true => (SCRATCH, 0.0),
        // The shares of the batch are one batch together.
        false => (0.0, all * weights + activations + uploaded),
    };
    TrainingMemory {
        weights_bytes: (all * weights + saved) as u64,
        activation_bytes: (activations + scratch) as u64,
        patch_bytes: (waiting + uploaded) as u64,
        device_bytes: device_bytes as u64,
    }
}

/// Bytes of the parts, in floating point: a file may ask for more than there are integers.
struct Sizes {
    /// On every device.
    weights: f64,
    /// On the host, while a checkpoint is written.
    saved: f64,
    /// Of the whole batch.
    activations: f64,
    /// Patches on the host.
    waiting: f64,
    /// The batch where the network runs.
    uploaded: f64,
}

impl Sizes {
    fn of(network: &StuNetConfig, config: &FitConfig, options: &StateOptions) -> Self {
        let learnt = Learnt::of(network, options);
        let parameters = cost::num_parameters(network) as f64 * F32 + learnt.factors;
        let average = if options.ema.is_some() { parameters } else { 0.0 };
        let kept = parameters + options.optimiser.copies_of_weights() * learnt.bytes() + average;
        let gradients = if config.accumulate > 1 { 2.0 } else { 1.0 };
        let cast = match options.precision {
            Precision::F32 => 0.0,
            Precision::F16 | Precision::Bf16 => 0.5,
        };
        let patch = config.training.patch_size();
        let batch = config.training.batch_size as f64;
        let patch_voxels = voxels(patch);
        let pyramid = Volumes::of(network, patch);
        // Images in f32; labels of every scale as 16 bits on the host and as 32 where the loss is.
        let image = network.in_channels as f64 * patch_voxels * F32;
        let host_patch = image + pyramid.labels() * 2.0;
        let ahead = |loader: &stunet_data::loader::LoaderConfig| {
            let batches = loader.queue.max(1) as f64 + IN_WORK;
            let in_hands = loader.num_threads.max(1) as f64;
            batches * batch * host_patch
                // A thread holds a patch before, during and after an augmentation.
                + in_hands.min(batches * batch) * (3.0 * image + 2.0 * F32 * patch_voxels)
        };
        Self {
            weights: kept + gradients * learnt.bytes() + cast * parameters + learnt.sums,
            saved: kept,
            activations: batch * pyramid.activations(network, config, options, &learnt),
            waiting: ahead(&config.training) + ahead(&config.validation),
            uploaded: batch * (image + pyramid.labels() * F32),
        }
    }
}

/// What of a network is trained, in bytes of single precision.
struct Learnt {
    /// Parameters that are trained as a whole.
    whole: f64,
    /// Low-rank factors.
    factors: f64,
    /// Weights with the product of their factors added, as the backward pass holds them, and one
    /// such gradient on its way.
    sums: f64,
    /// The finest stage of the encoder that is trained; what is finer keeps no activations.
    encoder: Option<usize>,
    /// The coarsest of the decoder, by its resolution.
    decoder: Option<usize>,
}

impl Learnt {
    fn of(network: &StuNetConfig, options: &StateOptions) -> Self {
        let low_rank = options.low_rank.as_ref();
        let mut learnt = Self { whole: 0.0, factors: 0.0, sums: 0.0, encoder: None, decoder: None };
        let (mut stages, mut largest) = (BTreeMap::<_, f64>::new(), 0.0f64);
        let bytes =
            |spec: &ParameterSpec| spec.shape.iter().map(|&n| n as f64).product::<f64>() * F32;
        for spec in network.parameter_specs() {
            match trained::share(&spec, &options.frozen, low_rank) {
                Share::Nothing => continue,
                Share::All => learnt.whole += bytes(&spec),
                Share::Factors => {
                    let config = &low_rank.expect("factors are asked for").factors;
                    learnt.factors += config.factor_specs(&spec).iter().map(bytes).sum::<f64>();
                    *stages.entry((spec.part == NetworkPart::Encoder, spec.stage)).or_default() +=
                        bytes(&spec);
                    largest = largest.max(bytes(&spec));
                }
            }
            let stage = Some(spec.stage);
            match spec.part {
                NetworkPart::Encoder => {
                    learnt.encoder = [learnt.encoder, stage].into_iter().flatten().min()
                }
                NetworkPart::Upsampling | NetworkPart::Decoder => {
                    learnt.decoder = learnt.decoder.max(stage);
                }
                NetworkPart::Head => {}
            }
        }
        let width = if options.precision == Precision::F32 { 1.0 } else { 0.5 };
        let held = match options.checkpoint_activations {
            false => stages.values().sum::<f64>(),
            true => stages.values().copied().fold(0.0, f64::max),
        };
        learnt.sums = width * held + 2.0 * largest;
        learnt
    }

    /// All that has gradients and a memory of the optimiser.
    fn bytes(&self) -> f64 {
        self.whole + self.factors
    }

    /// Whether the backward pass goes through a stage of the encoder.
    fn reaches_encoder(&self, stage: usize) -> bool {
        self.encoder.is_some_and(|finest| stage >= finest)
    }

    /// The same of the decoder, by its resolution.
    fn reaches_decoder(&self, stage: usize) -> bool {
        self.encoder.is_some() || self.decoder.is_some_and(|coarsest| stage <= coarsest)
    }
}

/// Voxels of every stage of a patch.
struct Volumes([f64; NUM_STAGES]);

impl Volumes {
    fn of(network: &StuNetConfig, patch: [usize; 3]) -> Self {
        Self(network.stage_sizes(patch).map(voxels))
    }

    /// Voxels of all scales of deep supervision.
    fn labels(&self) -> f64 {
        self.0[..NUM_STAGES - 1].iter().sum()
    }

    /// Bytes of one patch in the network and in the loss at the peak of a step.
    fn activations(
        &self,
        network: &StuNetConfig,
        config: &FitConfig,
        options: &StateOptions,
        learnt: &Learnt,
    ) -> f64 {
        let volume = |stage: usize| network.width[stage] as f64 * self.0[stage];
        // A block keeps the outputs of its convolutions and of its norms; a stage of the decoder the
        // upsampled features besides.
        let blocks = |stage: usize| 4.0 * network.depth[stage] as f64 * volume(stage);
        // What the backward pass does not go through keeps its output alone, for the decoder.
        let encoder = |stage: usize| match learnt.reaches_encoder(stage) {
            true => blocks(stage),
            false => volume(stage),
        };
        let decoder = |stage: usize| match learnt.reaches_decoder(stage) {
            true => blocks(stage) + volume(stage),
            false => volume(stage),
        };
        let stages = || 0..NUM_STAGES;
        let fine = || 0..NUM_STAGES - 1;
        let logits = network.num_classes as f64 * self.labels();
        let copies = config.objective.copies_of_logits();
        let way = ON_THEIR_WAY * stages().map(volume).fold(0.0, f64::max);
        let values = match options.checkpoint_activations {
            false => {
                stages().map(encoder).sum::<f64>()
                    + fine().map(decoder).sum::<f64>()
                    + logits
                    + f64::max(copies * logits, way)
            }
            // The output of every stage, its slope, and one stage or the loss at a time.
            true => {
                let outputs = stages().chain(fine()).map(volume).sum::<f64>();
                let slopes = fine().map(volume).sum::<f64>();
                let stage = stages().map(encoder).chain(fine().map(decoder)).fold(0.0, f64::max);
                outputs + slopes + f64::max((1.0 + copies) * logits, stage + way)
            }
        };
        let width = match (options.precision, is_host(&options.device)) {
            (Precision::F32, _) => F32,
            // Norms are kept in f32; on the host their halves are kept as well.
            (_, false) => 0.75 * F32,
            (_, true) => 1.25 * F32,
        };
        values * width
    }
}

fn voxels(size: [usize; 3]) -> f64 {
    size.into_iter().map(|n| n as f64).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Loss, LossConfig};
    use burn::tensor::Device;
    use stunet_data::augment::Augmentation;
    use stunet_data::loader::LoaderConfig;
    use stunet_model::StuNetSize;

    /// Pools of the networks that were measured.
    const STRIDES: [[usize; 3]; 5] = [[2; 3], [2; 3], [2; 3], [1, 1, 2], [1; 3]];
    /// MiB that a process held before.
    const BEFORE: f64 = 20.0;

    struct Run {
        network: StuNetConfig,
        patch: [usize; 3],
        batch: usize,
        accumulate: usize,
        options: StateOptions,
    }

    fn run(network: StuNetConfig, patch: usize, batch: usize) -> Run {
        let network = StuNetConfig { strides: STRIDES, ..network };
        let options = StateOptions::new(&Device::flex());
        Run { network, patch: [patch; 3], batch, accumulate: 1, options }
    }

    fn size(size: StuNetSize, classes: usize) -> StuNetConfig {
        StuNetConfig::new(size, 1, classes)
    }

    fn thin(width: usize, depth: usize, classes: usize) -> StuNetConfig {
        StuNetConfig { width: [width; 6], depth: [depth; 6], ..StuNetConfig::small(1, classes) }
    }

    impl Run {
        fn plan(&self) -> TrainingMemory {
            let augmentation = Augmentation::v2(self.patch);
            let loader = LoaderConfig::new(augmentation, self.batch, &self.network.strides);
            let config = FitConfig {
                accumulate: self.accumulate,
                ..FitConfig::new(1, loader, Loss::new(LossConfig::v2(true)).unwrap())
            };
            plan(&self.network, &config, &self.options)
        }

        /// Holds the estimate against the peak of `stunet train`, in MiB: two updates and a
        /// validation, two threads, on 2026-11-28.
        fn measured(self, peak: f64) {
            let estimate = self.plan().total_bytes() as f64 / f64::from(1 << 20) + BEFORE;
            let share = peak / estimate;
            assert!((0.7..=1.0).contains(&share), "{peak} of {estimate:.0}: {share:.2}");
        }
    }

    #[test]
    fn what_was_measured() {
        use StuNetSize::{Base, Large, Small};
        run(size(Small, 2), 64, 2).measured(735.0);
        run(size(Small, 105), 64, 2).measured(1285.0);
        run(size(Small, 2), 64, 4).measured(1246.0);
        run(size(Small, 2), 96, 1).measured(1067.0);
        run(size(Base, 2), 32, 2).measured(1258.0);
        run(size(Base, 2), 64, 2).measured(1942.0);
        run(size(Large, 2), 32, 2).measured(8662.0);
        run(thin(8, 1, 2), 96, 2).measured(844.0);
        run(thin(2, 1, 2), 128, 4).measured(1441.0);
        run(thin(2, 1, 105), 96, 2).measured(2638.0);
        run(thin(16, 3, 2), 64, 2).measured(1050.0);
        for (network, peak) in [(size(Small, 2), 913.0), (size(Base, 2), 1930.0)] {
            let patch = if peak < 1000.0 { 64 } else { 32 };
            let mut averaged = run(network, patch, 2);
            averaged.options.ema = Some(0.9);
            averaged.accumulate = 2;
            averaged.measured(peak);
        }
    }

    #[test]
    fn what_was_measured_in_half_precision_and_recomputed() {
        for (precision, peak) in [(Precision::Bf16, 887.0), (Precision::F16, 776.0)] {
            let mut half = run(size(StuNetSize::Small, 2), 64, 2);
            half.options.precision = precision;
            half.measured(peak);
        }
        for (classes, peak) in [(2, 582.0), (105, 1012.0)] {
            let mut recomputed = run(size(StuNetSize::Small, classes), 64, 2);
            recomputed.options.checkpoint_activations = true;
            recomputed.measured(peak);
        }
    }

    /// What is frozen keeps neither activations nor gradients, and of low-rank adaptation only the
    /// factors have momentum.
    #[test]
    fn what_is_not_trained_takes_less() {
        let plan = |change: &dyn Fn(&mut StateOptions)| {
            let mut run = run(size(StuNetSize::Large, 2), 64, 2);
            change(&mut run.options);
            run.plan()
        };
        let full = plan(&|_| ());
        let stages = plan(&|options| options.frozen = "stage0..1".parse().unwrap());
        let encoder = plan(&|options| options.frozen = crate::parts::Parts::encoder());
        let heads = plan(&|options| options.frozen = "encoder,decoder".parse().unwrap());
        let order = [full, stages, encoder, heads];
        assert!(order.is_sorted_by(|a, b| a.activation_bytes > b.activation_bytes), "{order:?}");
        assert!(order.is_sorted_by(|a, b| a.weights_bytes > b.weights_bytes), "{order:?}");
        let low_rank = plan(&|options| options.low_rank = Some(crate::LowRankOptions::new(8)));
        assert_eq!(low_rank.activation_bytes, full.activation_bytes);
        // Weight and sum, and the copy for a checkpoint, instead of five weights.
        let share = low_rank.weights_bytes as f64 / full.weights_bytes as f64;
        assert!((0.6..0.75).contains(&share), "{share}");
        let recomputed = plan(&|options| {
            options.low_rank = Some(crate::LowRankOptions::new(8));
            options.checkpoint_activations = true;
        });
        assert!(recomputed.weights_bytes < low_rank.weights_bytes);
    }

    #[test]
    fn no_number_is_too_large() {
        let plan = run(size(StuNetSize::Huge, 105), 1 << 40, usize::MAX >> 1).plan();
        assert_eq!(plan.total_bytes(), u64::MAX);
        assert_eq!(plan.host_bytes(), u64::MAX);
    }
}
