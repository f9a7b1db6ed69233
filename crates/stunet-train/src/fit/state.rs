//! Everything that changes while a network trains.

use super::FitConfig;
use crate::batch::DeviceBatch;
use crate::checkpoint::{Group, Groups, LossScale, State, TrainingCheckpoint};
use crate::distributed::{Averaging, DataParallel};
use crate::error::{Result, TrainError};
use crate::history::Progress;
use crate::identity::Identity;
use crate::objective::{self, Objective};
use crate::optimiser::{
    Ema, IntoParameterGradients, LossScaler, Optimiser, OptimiserConfig, OptimiserState,
    ParameterGradients, SgdConfig, StepReport, trained_specs,
};
use crate::parts::Parts;
use crate::precision::Precision;
use crate::rates::LayerRates;
use crate::recompute;
use crate::trained::{self, LowRankOptions};
use burn::module::Module;
use burn::tensor::{Device, TensorData};
use serde_json::Value;
use std::sync::Arc;
use stunet_data::loader::TrainingBatch;
use stunet_model::{LowRankConfig, StuNet, StuNetConfig};

/// How a state computes: what it is, not where it stands.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Where; the first of them, where there are several.
    pub device: Device,
    /// Further devices of the machine, each of which takes an equal share of every batch.
    pub others: Vec<Device>,
    /// How the gradients of several devices become one.
    pub averaging: Averaging,
    /// The optimiser: nnU-Net's SGD by default.
    pub optimiser: Arc<dyn OptimiserConfig>,
    /// Keep a moving average of the weights with this decay.
    pub ema: Option<f64>,
    /// Precision of the network's arithmetic; weights, norms and loss stay f32.
    pub precision: Precision,
    /// Keep the output of each stage alone and compute its activations twice.
    pub checkpoint_activations: bool,
    /// Parts that stay as they are when a run begins. A run that goes on has those that it began with.
    pub frozen: Parts,
    /// Learning rates by layer.
    pub rates: LayerRates,
    /// Low-rank adaptation of the network that a run begins with. A run that goes on has its own.
    pub low_rank: Option<LowRankOptions>,
}

impl StateOptions {
    /// Single precision on a device, and nothing else.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            others: Vec::new(),
            averaging: Averaging::default(),
            optimiser: Arc::new(SgdConfig::default()),
            ema: None,
            precision: Precision::F32,
            checkpoint_activations: false,
            frozen: Parts::none(),
            rates: LayerRates::default(),
            low_rank: None,
        }
    }

    /// The same with another optimiser.
    #[must_use]
    pub fn with_optimiser(self, optimiser: impl OptimiserConfig + 'static) -> Self {
        Self { optimiser: Arc::new(optimiser), ..self }
    }

    /// The optimiser and its learning rates in one line.
    fn describe_optimiser(&self) -> String {
        let optimiser = self.optimiser.describe();
        match self.rates.describe() {
            None => optimiser,
            Some(rates) => format!("{optimiser}; {rates}"),
        }
    }

    /// The device on which gradients are kept: where a network to be trained has to be made.
    pub fn training_device(&self) -> Device {
        match self.device.is_autodiff() {
            true => self.device.clone(),
            false => self.device.clone().autodiff(),
        }
    }
}

/// A network in training: its weights, the optimiser's memory, and where the run stands.
pub struct TrainingState {
    replicas: DataParallel,
    ema: Option<Ema>,
    /// Of the factors beside the weights, where there are such.
    low_rank: Option<LowRankConfig>,
    scaler: Option<LossScaler>,
    /// Where the run stands.
    pub progress: Progress,
    options: StateOptions,
    /// The parts that the run began with; none before its first update, and in old checkpoints.
    identity: Option<Identity>,
}

impl TrainingState {
    /// A run that begins with a network, which has to be on
    /// [`StateOptions::training_device`]. Parameters that Burn's `freeze` has frozen stay so, in the
    /// run's checkpoints too.
    ///
    /// # Panics
    /// When the system starts no thread per device, or the options cannot be used: where they come from
    /// outside, [`try_new`](Self::try_new) tells.
    pub fn new(network: StuNet, options: &StateOptions) -> Self {
        match Self::try_new(network, options) {
            Ok(state) => state,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`new`](Self::new), for options from outside.
    ///
    /// # Errors
    /// When everything is frozen, a factor of the learning rate or a rank is out of range, or the
    /// optimiser has one rate for all and several are asked for.
    pub fn try_new(network: StuNet, options: &StateOptions) -> Result<Self> {
        let network = trained::begin(network, &options.frozen, options.low_rank.as_ref())?;
        let optimiser = options.optimiser.init_for(&network);
        let low_rank = options.low_rank.as_ref().map(|low_rank| low_rank.factors);
        Self::with(network, low_rank, optimiser, options)
    }

    fn with(
        network: StuNet,
        low_rank: Option<LowRankConfig>,
        mut optimiser: Box<dyn Optimiser>,
        options: &StateOptions,
    ) -> Result<Self> {
        options.rates.check()?;
        if !options.rates.is_uniform() {
            let factors =
                trained_specs(&network).iter().map(|spec| options.rates.of(spec)).collect();
            optimiser.set_rate_factors(factors)?;
        }
        let scaled = options.precision.needs_loss_scaling();
        let StateOptions { others, averaging, .. } = options;
        Ok(Self {
            ema: options.ema.map(|decay| Ema::new(decay, &network.clone().materialize())),
            low_rank,
            scaler: scaled.then(LossScaler::default),
            progress: Progress::default(),
            options: options.clone(),
            replicas: DataParallel::new(network, optimiser, &options.device, others, *averaging)?,
            identity: None,
        })
    }

    /// A run that goes on from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, lacks a parameter, or was written with another optimiser.
    /// To go on with another, begin with [`TrainingState::new`] and the checkpoint's weights.
    pub fn from_checkpoint(
        checkpoint: &TrainingCheckpoint,
        options: &StateOptions,
    ) -> Result<Self> {
        let device = options.training_device();
        let State { config, progress, loss_scale, optimiser: scalars, low_rank, identity, .. } =
            checkpoint.state();
        let optimiser = options.describe_optimiser();
        if let Some(identity) = identity {
            identity.check(&Identity { optimiser, ..identity.clone() })?;
        }
        let network = |group| StuNet::from_source(config, &mut checkpoint.source(group), &device);
        let trained = trained::go_on(network(Group::Weights)?, checkpoint)?;
        let mut optimiser = options.optimiser.init_for(&trained);
        let tensors = checkpoint.read_all(optimiser.group())?;
        optimiser.restore(OptimiserState { tensors, scalars: scalars.clone() }, &device)?;
        let mut state = Self::with(trained, *low_rank, optimiser, options)?;
        if let Some(decay) = options.ema {
            // An average that begins now where the run had none.
            let average = match checkpoint.has(Group::Ema) {
                true => network(Group::Ema)?,
                false => state.network().clone().materialize(),
            };
            state.ema = Some(Ema::new(decay, &average));
        }
        if let (Some(scaler), Some(LossScale { factor, num_good_steps })) =
            (&mut state.scaler, loss_scale)
        {
            *scaler = LossScaler::restore(*factor, *num_good_steps);
        }
        state.progress = progress.clone();
        state.identity = identity.clone();
        Ok(state)
    }

    /// A run that another program began: its weights, the memory of its optimiser, and where it stands.
    pub(crate) fn taken_over(
        network: StuNet,
        memory: OptimiserState,
        progress: Progress,
        options: &StateOptions,
    ) -> Result<Self> {
        if options.low_rank.is_some() {
            let expected = "none, as the run was begun with all weights";
            return Err(TrainError::setting("low-rank factors", expected, "some"));
        }
        let network = trained::begin(network, &options.frozen, None)?;
        let mut optimiser = options.optimiser.init_for(&network);
        if optimiser.group() != Group::Momentum {
            let found = options.optimiser.describe();
            return Err(TrainError::setting("optimiser", "SGD, as the run was begun with", found));
        }
        optimiser.restore(memory, &options.training_device())?;
        let mut state = Self::with(network, None, optimiser, options)?;
        state.progress = progress;
        Ok(state)
    }

    /// Loss, optimiser, schedule and augmentation of the run, once it has begun.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Lets the run go on with another loss, schedule or augmentation than it began with.
    pub fn forget_identity(&mut self) {
        self.identity = None;
    }

    /// Takes the run's parts as its own, or holds them against those that it began with.
    pub(super) fn adopt(&mut self, config: &FitConfig) -> Result<()> {
        let identity = Identity {
            objective: config.objective.describe(),
            optimiser: self.options.describe_optimiser(),
            schedule: config.schedule.describe(),
            augmentation: config.training.augmentation.describe(),
        };
        if let Some(begun) = &self.identity {
            begun.check(&identity)?;
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// True when nothing is left to do.
    pub fn is_complete(&self, config: &FitConfig) -> bool {
        self.progress.epoch >= config.num_epochs
    }

    /// The network as it stands, on the training device, with its low-rank factors where it has some.
    pub fn network(&self) -> &StuNet {
        self.replicas.network()
    }

    /// Number of values that are trained, those of low-rank factors among them: all but what is frozen.
    pub fn num_trained(&self) -> usize {
        trained::count(self.network())
    }

    /// The network's configuration.
    pub fn config(&self) -> StuNetConfig {
        self.network().config()
    }

    /// The network to predict with, without gradients: the averaged one, where an average is kept.
    pub fn network_for_inference(&self) -> StuNet {
        match &self.ema {
            Some(ema) => ema.network().clone(),
            None => self.network().valid().materialize(),
        }
    }

    /// Where the network trains.
    pub(super) fn device(&self) -> Device {
        self.options.training_device()
    }

    /// True where a gradient that is not finite means a smaller loss scale, not the end.
    pub(super) fn scales_loss(&self) -> bool {
        self.scaler.is_some()
    }

    /// Checks that the devices can share a batch of a run; [`fit`](super::fit()) does so first.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check(&self, config: &FitConfig) -> Result<()> {
        let (devices, patches) = (self.replicas.len(), config.training.batch_size);
        match patches.is_multiple_of(devices) {
            true => Ok(()),
            false => {
                let expected = format!("a multiple of the {devices} devices");
                Err(TrainError::setting("batch size", expected, patches))
            }
        }
    }

    /// Forward, loss and backward of one of the `num_batches` of an update; returns the loss.
    pub(super) fn backward(
        &mut self,
        batch: &TrainingBatch,
        loss: &dyn Objective,
        num_batches: usize,
    ) -> Result<f64> {
        let scale = self.scaler.map_or(1.0, |scaler| scaler.factor()) / num_batches as f64;
        let share = batch.patches.len() / self.replicas.len();
        let options = &self.options;
        let losses = self.replicas.accumulate(|rank, device, network| {
            let patches = &batch.patches[rank * share..(rank + 1) * share];
            gradients(options, network, DeviceBatch::of(patches, device), loss, scale)
        })?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// Updates the weights with the gradients of the batches before.
    pub(super) fn descend(&mut self, lr: f64) -> StepReport {
        let scaler = self.scaler;
        let unscale = scaler.map_or(1.0, |scaler| 1.0 / scaler.factor());
        let report = self.replicas.descend(|optimiser, network, gradients| {
            optimiser.step(network, gradients, lr, unscale)
        });
        if let Some(scaler) = &mut self.scaler {
            scaler.update(!report.skipped);
        }
        if let Some(ema) = &mut self.ema
            && !report.skipped
        {
            match self.low_rank {
                None => ema.update(self.replicas.network()),
                Some(_) => ema.update(&self.replicas.network().clone().materialize()),
            }
        }
        report
    }

    /// What a checkpoint holds.
    pub(super) fn to_parts(&self, run: Value) -> (State, Groups) {
        let optimiser = self.replicas.optimiser();
        let OptimiserState { tensors, scalars } = optimiser.state();
        let mut groups =
            vec![(Group::Weights, parameters(self.network())), (optimiser.group(), tensors)];
        if let Some(ema) = &self.ema {
            groups.push((Group::Ema, parameters(ema.network())));
        }
        if self.low_rank.is_some() {
            groups.push((Group::LowRank, trained::factors(self.network())));
        }
        let loss_scale = self.scaler.map(|scaler| LossScale {
            factor: scaler.factor(),
            num_good_steps: scaler.num_good_steps(),
        });
        let state = State {
            config: self.config(),
            progress: self.progress.clone(),
            loss_scale,
            optimiser: scalars,
            frozen: trained::frozen(self.network()),
            low_rank: self.low_rank,
            identity: self.identity.clone(),
            run,
        };
        (state, groups)
    }
}

/// Loss and gradients of some patches.
fn gradients(
    options: &StateOptions,
    network: &StuNet,
    DeviceBatch { images, targets }: DeviceBatch,
    loss: &dyn Objective,
    scale: f64,
) -> Result<(f64, ParameterGradients)> {
    let precision = options.precision;
    let (value, gradients) = if options.checkpoint_activations {
        recompute::backward(network, precision, images, loss, &targets, scale)?
    } else {
        let outputs = precision.network(network).forward_deep(images.cast(precision.dtype()));
        let (value, gradients) = objective::backward(loss, outputs, &targets, scale)?;
        (value, gradients.into_parameter_gradients(network))
    };
    match gradients.all_missing() {
        true => Err(TrainError::NoGradient { objective: loss.describe() }),
        false => Ok((value, gradients)),
    }
}

fn parameters(network: &StuNet) -> Vec<(String, TensorData)> {
    let mut all = Vec::new();
    network.for_each_parameter(&mut |spec, p| all.push((spec.name.clone(), p.to_data())));
    all
}
