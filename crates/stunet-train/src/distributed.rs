//! Data parallelism over the devices of one machine.
//!
//! Every device holds a replica of the network and of its optimiser and computes the gradients of
//! its own share of the batch in a thread of its own; the gradients are averaged, and every replica
//! takes the same step. With equal shares that is a step on the whole batch for every loss that is a
//! mean over samples.
//!
//! How gradients meet is an [`Averaging`]: Burn's collective operation, which only CUDA has (NCCL),
//! or a detour over the first device, which every backend can.
//!
//! # Deviations
//! nnU-Net 2 under DDP sums the *batch Dice* over all devices. Here each device has the batch Dice
//! of its own share.

use crate::optimiser::{ParameterGradients, Sgd, StepReport};
use burn::module::Module;
use burn::tensor::distributed::ReduceOperation;
use burn::tensor::distributed::all_reduce;
use burn::tensor::{Device, TensorData};
use std::collections::HashMap;
use std::thread;
use stunet_model::{ModelError, StuNet};

/// How the gradients of several devices become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Averaging {
    /// Burn's all-reduce, straight between the devices. Other backends than CUDA panic.
    Collective,
    /// Over the first device: copied there, averaged, copied back.
    FirstDevice,
}

/// One network on several devices.
#[derive(Debug)]
pub struct DataParallel {
    replicas: Vec<Replica>,
    averaging: Averaging,
}

#[derive(Debug)]
struct Replica {
    device: Device,
    /// None only while a step is under way.
    network: Option<StuNet>,
    sgd: Sgd,
}

impl DataParallel {
    /// Replicas of a network and its optimiser on every device; the first is the one that counts.
    ///
    /// # Errors
    /// When the optimiser's state is not the network's.
    ///
    /// # Panics
    /// Without a device.
    pub fn new(
        network: &StuNet,
        sgd: &Sgd,
        devices: &[Device],
        averaging: Averaging,
    ) -> Result<Self, ModelError> {
        assert!(!devices.is_empty(), "at least one device");
        let velocities: HashMap<String, TensorData> =
            sgd.velocities().filter_map(|(spec, v)| Some((spec.name.clone(), v?))).collect();
        let replica = |device: &Device| {
            let device = device.clone().autodiff();
            let mut sgd = Sgd::new(*sgd.config(), &network.config());
            sgd.restore(&mut |spec| velocities.get(&spec.name).cloned(), &device)?;
            let network = Some(network.clone().fork(&device));
            Ok(Replica { device, network, sgd })
        };
        let replicas = devices.iter().map(replica).collect::<Result<_, ModelError>>()?;
        Ok(Self { replicas, averaging })
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// False: there is at least one device.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// The network, on the first device.
    pub fn network(&self) -> &StuNet {
        self.replicas[0].network.as_ref().expect("no step is under way")
    }

    /// The optimiser, on the first device.
    pub fn sgd(&self) -> &Sgd {
        &self.replicas[0].sgd
    }

    /// One step: `work` gives the gradients of one device's share of the batch, and whatever else is
    /// to be reported of it; it runs once per device, in threads.
    ///
    /// # Panics
    /// When `work` does.
    pub fn step<T: Send>(
        &mut self,
        lr: f64,
        work: impl Fn(usize, &Device, &StuNet) -> (T, ParameterGradients) + Sync,
    ) -> (Vec<T>, StepReport) {
        let devices: Vec<Device> = self.replicas.iter().map(|r| r.device.clone().inner()).collect();
        let collective = self.averaging == Averaging::Collective;
        let results = self.on_every_replica(|rank, replica| {
            let network = replica.network.as_ref().expect("no step is under way");
            let (report, gradients) = work(rank, &replica.device, network);
            let gradients = if collective {
                gradients.map(|g| all_reduce(g, ReduceOperation::Mean, devices.clone()).resolve())
            } else {
                gradients
            };
            (report, gradients)
        });
        let (reports, gradients): (Vec<T>, Vec<ParameterGradients>) = results.into_iter().unzip();
        let gradients = if collective { gradients } else { average(gradients, &devices) };

        let gradients = std::sync::Mutex::new(gradients.into_iter().map(Some).collect::<Vec<_>>());
        let steps = self.on_every_replica(|rank, replica| {
            let own = gradients.lock().expect("no thread panics with the lock")[rank].take();
            let network = replica.network.take().expect("no step is under way");
            let own = own.expect("every rank takes its own");
            let (network, report) = replica.sgd.step(network, own, lr);
            replica.network = Some(network);
            report
        });
        (reports, steps[0])
    }

    /// Runs `work` for every replica at once, in order of rank.
    fn on_every_replica<T: Send>(
        &mut self,
        work: impl Fn(usize, &mut Replica) -> T + Sync,
    ) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .replicas
                .iter_mut()
                .enumerate()
                .map(|(rank, replica)| scope.spawn(move || work(rank, replica)))
                .collect();
            let join = |t: thread::ScopedJoinHandle<'_, T>| match t.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        })
    }
}

/// The mean of several devices' gradients, on each of them: added in order of rank on the first, so
/// that all replicas take the same step to the bit.
fn average(gradients: Vec<ParameterGradients>, devices: &[Device]) -> Vec<ParameterGradients> {
    let share = 1.0 / gradients.len() as f64;
    let here = gradients.into_iter().map(|g| g.map(|g| g.to_device(&devices[0])));
    let sum = here.reduce(|a, b| a + b).expect("at least one device");
    let mean = sum.map(|g| g * share);
    devices.iter().map(|device| mean.clone().map(|g| g.to_device(device))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Loss, LossConfig};
    use crate::optimiser::{IntoParameterGradients, SgdConfig};
    use burn::tensor::{Int, Tensor};
    use stunet_model::{Initialisation, StuNetConfig};

    const SIZE: [usize; 3] = [8, 8, 16];

    fn config() -> StuNetConfig {
        let strides = [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]];
        StuNetConfig { width: [2, 4, 4, 4, 4, 4], strides, ..StuNetConfig::small(1, 3) }
    }

    /// Samples `from..to` of the batch of a step.
    fn batch(
        step: usize,
        from: usize,
        to: usize,
        device: &Device,
    ) -> (Tensor<5>, Vec<Tensor<4, Int>>) {
        let value = |i: usize| ((i + 31 * step) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0;
        let [z, y, x] = SIZE;
        let count = z * y * x;
        let values: Vec<f32> = (from * count..to * count).map(value).collect();
        let input = TensorData::new(values, [to - from, 1, z, y, x]);
        let target = |&[z, y, x]: &[usize; 3]| {
            let count = z * y * x;
            let labels: Vec<i32> =
                (from * count..to * count).map(|i| ((i + step) / 7 % 3) as i32).collect();
            Tensor::from_data(TensorData::new(labels, [to - from, z, y, x]), device)
        };
        let targets = config().stage_sizes(SIZE)[..5].iter().map(target).collect();
        (Tensor::from_data(input, device), targets)
    }

    fn gradients(
        network: &StuNet,
        (input, targets): (Tensor<5>, Vec<Tensor<4, Int>>),
    ) -> (f64, ParameterGradients) {
        let loss = Loss::new(LossConfig::v1(false)).unwrap();
        let (value, grads) = loss.backward(network.forward_deep(input), &targets);
        (value.total, grads.into_parameter_gradients(network))
    }

    fn parameters(network: &StuNet) -> Vec<f32> {
        let mut all = Vec::new();
        network.for_each_parameter(&mut |_, p| {
            all.extend(p.to_data().try_to_vec::<f32>().unwrap());
        });
        all
    }

    #[test]
    fn two_devices_take_the_step_of_a_batch_of_two() {
        let device = Device::flex().autodiff();
        let start = StuNet::init(&config(), Initialisation::NnUNetV1, 3, &device).unwrap();
        let sgd = Sgd::new(SgdConfig::default(), &config());
        let devices = [Device::flex(), Device::flex()];
        let mut parallel =
            DataParallel::new(&start, &sgd, &devices, Averaging::FirstDevice).unwrap();
        let (mut network, mut sgd) = (start, sgd);
        for step in 0..3 {
            let (losses, report) = parallel.step(0.01, |rank, device, network| {
                gradients(network, batch(step, rank, rank + 1, device))
            });
            let (loss, grads) = gradients(&network, batch(step, 0, 2, &device));
            let (next, single) = sgd.step(network, grads, 0.01);
            network = next;
            let mean = losses.iter().sum::<f64>() / 2.0;
            assert!((mean / loss - 1.0).abs() < 1e-5, "step {step}: {losses:?}, {loss}");
            let norms = (report.grad_norm, single.grad_norm);
            assert!((norms.0 / norms.1 - 1.0).abs() < 1e-4, "step {step}: {norms:?}");
        }
        let [a, b] = [parallel.network(), &network].map(parameters);
        let worst = a.iter().zip(&b).fold(0f32, |w, (a, b)| w.max((a - b).abs()));
        assert!(worst < 1e-5, "{worst:e}");
        let second = parameters(parallel.replicas[1].network.as_ref().unwrap());
        assert_eq!(a, second, "replicas part");
        assert_eq!(parallel.sgd().velocities().count(), config().parameter_specs().len());
    }

    #[test]
    fn one_device_is_the_ordinary_step() {
        let device = Device::flex().autodiff();
        let start = StuNet::init(&config(), Initialisation::NnUNetV1, 3, &device).unwrap();
        let mut sgd = Sgd::new(SgdConfig::default(), &config());
        let mut parallel =
            DataParallel::new(&start, &sgd, &[Device::flex()], Averaging::FirstDevice).unwrap();
        parallel.step(0.01, |_, device, network| gradients(network, batch(0, 0, 2, device)));
        let (_, grads) = gradients(&start, batch(0, 0, 2, &device));
        let (network, _) = sgd.step(start, grads, 0.01);
        assert_eq!(parameters(parallel.network()), parameters(&network));
    }
}
