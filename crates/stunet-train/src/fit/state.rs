//! Everything that changes while a network trains.

use super::FitConfig;
use crate::checkpoint::{Group, Groups, LossScale, State, TrainingCheckpoint};
use crate::error::Result;
use crate::history::Progress;
use crate::loss::Loss;
use crate::optimiser::{
    Ema, IntoParameterGradients, LossScaler, ParameterGradients, Sgd, SgdConfig, StepReport,
};
use crate::precision::Precision;
use crate::recompute;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;
use std::collections::BTreeMap;
use stunet_model::{StuNet, StuNetConfig};

/// How a state computes: what it is, not where it stands.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Where.
    pub device: Device,
    /// The optimiser's constants.
    pub sgd: SgdConfig,
    /// Keep a moving average of the weights with this decay.
    pub ema: Option<f64>,
    /// Precision of the network's arithmetic; weights, norms and loss stay f32.
    pub precision: Precision,
    /// Keep the output of each stage alone and compute its activations twice.
    pub checkpoint_activations: bool,
}

impl StateOptions {
    /// Single precision on a device, and nothing else.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            sgd: SgdConfig::default(),
            ema: None,
            precision: Precision::F32,
            checkpoint_activations: false,
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
    network: StuNet,
    sgd: Sgd,
    ema: Option<Ema>,
    scaler: Option<LossScaler>,
    /// Where the run stands.
    pub progress: Progress,
    options: StateOptions,
    /// Gradients of the running update.
    pending: Option<ParameterGradients>,
}

impl TrainingState {
    /// A run that begins with a network, which has to be on
    /// [`StateOptions::training_device`].
    pub fn new(network: StuNet, options: &StateOptions) -> Self {
        let scaled = options.precision.needs_loss_scaling();
        Self {
            sgd: Sgd::new(options.sgd, &network.config()),
            ema: options.ema.map(|decay| Ema::new(decay, &network)),
            scaler: scaled.then(LossScaler::default),
            progress: Progress::default(),
            options: options.clone(),
            pending: None,
            network,
        }
    }

    /// A run that goes on from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or lacks a parameter.
    pub fn from_checkpoint(
        checkpoint: &TrainingCheckpoint,
        options: &StateOptions,
    ) -> Result<Self> {
        let device = options.training_device();
        let State { config, progress, loss_scale, .. } = checkpoint.state();
        let network = |group| StuNet::from_source(config, &mut checkpoint.source(group), &device);
        let mut state = Self::new(network(Group::Weights)?, options);
        let mut momentum: BTreeMap<_, _> =
            checkpoint.read_all(Group::Momentum)?.into_iter().collect();
        state.sgd.restore(&mut |spec| momentum.remove(&spec.name), &device)?;
        if let Some(decay) = options.ema {
            // An average that begins now where the run had none.
            let group = if checkpoint.has(Group::Ema) { Group::Ema } else { Group::Weights };
            state.ema = Some(Ema::new(decay, &network(group)?));
        }
        if let (Some(scaler), Some(LossScale { factor, num_good_steps })) =
            (&mut state.scaler, loss_scale)
        {
            *scaler = LossScaler::restore(*factor, *num_good_steps);
        }
        state.progress = progress.clone();
        Ok(state)
    }

    /// True when nothing is left to do.
    pub fn is_complete(&self, config: &FitConfig) -> bool {
        self.progress.epoch >= config.num_epochs
    }

    /// The network as it stands, on the training device.
    pub fn network(&self) -> &StuNet {
        &self.network
    }

    /// The network's configuration.
    pub fn config(&self) -> StuNetConfig {
        self.network.config()
    }

    /// The network to predict with, without gradients: the averaged one, where an average is kept.
    pub fn network_for_inference(&self) -> StuNet {
        match &self.ema {
            Some(ema) => ema.network().clone(),
            None => self.network.valid(),
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

    /// Forward, loss and backward of one of the `num_batches` of an update; returns the loss.
    pub(super) fn backward(
        &mut self,
        images: Tensor<5>,
        targets: &[Tensor<4, Int>],
        loss: &Loss,
        num_batches: usize,
    ) -> f64 {
        let precision = self.options.precision;
        let network = &self.network;
        let scale = self.scaler.map_or(1.0, |scaler| scaler.factor()) / num_batches as f64;
        let (value, gradients) = if self.options.checkpoint_activations {
            recompute::backward(network, precision, images, loss, targets, scale)
        } else {
            let images = images.cast(precision.dtype());
            let outputs = precision.network(network).forward_deep(images);
            let (value, gradients) = loss.backward_scaled(outputs, targets, scale);
            (value, gradients.into_parameter_gradients(network))
        };
        self.pending = Some(match self.pending.take() {
            Some(sum) => sum + gradients,
            None => gradients,
        });
        value.total
    }

    /// Updates the weights with the gradients of the batches before.
    pub(super) fn descend(mut self, lr: f64) -> (Self, StepReport) {
        let gradients = self.pending.take().expect("an update has a batch");
        let (network, report) = match &mut self.scaler {
            Some(scaler) => self.sgd.step_scaled(self.network, gradients, lr, scaler),
            None => self.sgd.step(self.network, gradients, lr),
        };
        if let Some(ema) = &mut self.ema
            && !report.skipped
        {
            ema.update(&network);
        }
        (Self { network, ..self }, report)
    }

    /// What a checkpoint holds.
    pub(super) fn to_parts(&self, run: Value) -> (State, Groups) {
        let momentum = self.sgd.velocities();
        let momentum = momentum.filter_map(|(spec, v)| Some((spec.name.clone(), v?))).collect();
        let mut groups =
            vec![(Group::Weights, parameters(&self.network)), (Group::Momentum, momentum)];
        if let Some(ema) = &self.ema {
            groups.push((Group::Ema, parameters(ema.network())));
        }
        let loss_scale = self.scaler.map(|scaler| LossScale {
            factor: scaler.factor(),
            num_good_steps: scaler.num_good_steps(),
        });
        let state =
            State { config: self.config(), progress: self.progress.clone(), loss_scale, run };
        (state, groups)
    }
}

fn parameters(network: &StuNet) -> Vec<(String, TensorData)> {
    let mut all = Vec::new();
    network.for_each_parameter(&mut |spec, p| all.push((spec.name.clone(), p.to_data())));
    all
}
