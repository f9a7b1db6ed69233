//! Data parallelism over the devices of one machine.
//!
//! Every device holds a replica of the network and of its optimiser and computes the gradients of
//! its own share of the batch in a thread of its own; the gradients are averaged, and every replica
//! takes the same step. With equal shares that is a step on the whole batch for every loss that is a
//! mean over samples. One device works in the thread of the caller and averages nothing.
//!
//! How gradients meet is an [`Averaging`]: Burn's collective operation, which only CUDA has (NCCL),
//! or a detour over the first device, which every backend can.
//!
//! # Deviations
//! nnU-Net 2 under DDP sums the *batch Dice* over all devices, and deals a batch out unevenly where
//! it must. Here each device has the batch Dice (and, with an ignore label, the mean cross-entropy)
//! of its own share, and shares are equal.

use crate::error::Result;
use crate::optimiser::{Optimiser, OptimiserState, ParameterGradients};
use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::distributed::ReduceOperation;
use burn::tensor::distributed::all_reduce;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Mutex, PoisonError};
use stunet_model::StuNet;

/// How the gradients of several devices become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Averaging {
    /// Burn's all-reduce, straight between the devices. Other backends than CUDA panic.
    Collective,
    /// Over the first device: copied there, averaged, copied back.
    #[default]
    FirstDevice,
}

/// One network on one or several devices.
#[derive(Debug)]
pub struct DataParallel {
    replicas: Vec<Replica>,
    averaging: Averaging,
    /// A thread per replica, the same for the whole run: a GPU's streams belong to threads. None
    /// for one device.
    threads: Option<ThreadPool>,
}

#[derive(Debug)]
struct Replica {
    device: Device,
    /// None only while a step is under way.
    network: Option<StuNet>,
    optimiser: Box<dyn Optimiser>,
    /// Gradients of the running update.
    pending: Option<ParameterGradients>,
}

impl DataParallel {
    /// A network and its optimiser, where they are, and replicas of both on `others`; the first is
    /// the one that counts.
    ///
    /// # Errors
    /// When the optimiser's state is not the network's.
    ///
    /// # Panics
    /// When the system starts no more threads.
    pub fn new(
        network: StuNet,
        optimiser: Box<dyn Optimiser>,
        device: &Device,
        others: &[Device],
        averaging: Averaging,
    ) -> Result<Self> {
        let memory = match others.is_empty() {
            true => OptimiserState::default(),
            false => optimiser.state(),
        };
        let replica = |device: &Device| {
            let device = with_gradients(device);
            let mut replica = optimiser.at_rest();
            replica.restore(memory.clone(), &device)?;
            let network = Some(network.clone().fork(&device));
            Ok(Replica { device, network, optimiser: replica, pending: None })
        };
        let mut replicas = others.iter().map(replica).collect::<Result<Vec<_>>>()?;
        let device = with_gradients(device);
        replicas.insert(0, Replica { device, network: Some(network), optimiser, pending: None });
        let threads = (replicas.len() > 1).then(|| {
            let threads = ThreadPoolBuilder::new().num_threads(replicas.len());
            threads.build().expect("the system starts a thread per device")
        });
        Ok(Self { replicas, averaging, threads })
    }

    /// Number of devices.
    #[allow(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// The network, on the first device.
    pub fn network(&self) -> &StuNet {
        self.replicas[0].network.as_ref().expect("no step is under way")
    }

    /// The optimiser, on the first device.
    pub fn optimiser(&self) -> &dyn Optimiser {
        &*self.replicas[0].optimiser
    }

    /// Gradients of a batch, added to those of the batches before: `work` gives those of one
    /// device's share, and whatever else is to be reported of it. It is told the device's rank.
    ///
    /// # Errors
    /// When `work` fails on a device: the first of the failures.
    ///
    /// # Panics
    /// When `work` does.
    pub fn accumulate<T: Send>(
        &mut self,
        work: impl Fn(usize, &Device, &StuNet) -> Result<(T, ParameterGradients)> + Sync,
    ) -> Result<Vec<T>> {
        let reports = self.on_every_replica(|rank, replica| {
            let network = replica.network.as_ref().expect("no step is under way");
            let (report, gradients) = work(rank, &replica.device, network)?;
            replica.pending = Some(match replica.pending.take() {
                Some(sum) => sum + gradients,
                None => gradients,
            });
            Ok(report)
        });
        reports.into_iter().collect()
    }

    /// One step of every replica with the mean of the gradients that were accumulated; `step` moves
    /// one network. What it reports is the same for all.
    ///
    /// # Panics
    /// When `step` does, or nothing was accumulated.
    pub fn descend<T: Send>(
        &mut self,
        step: impl Fn(&mut dyn Optimiser, StuNet, ParameterGradients) -> (StuNet, T) + Sync,
    ) -> T {
        self.average();
        let reports = self.on_every_replica(|_, replica| {
            let network = replica.network.take().expect("no step is under way");
            let gradients = replica.pending.take().expect("an update has a batch");
            let (network, report) = step(&mut *replica.optimiser, network, gradients);
            replica.network = Some(network);
            report
        });
        reports.into_iter().next().expect("there is a first device")
    }

    /// Gives every replica the mean of all gradients.
    fn average(&mut self) {
        if self.replicas.len() == 1 {
            return;
        }
        let devices: Vec<Device> = self.replicas.iter().map(|r| r.device.clone().inner()).collect();
        match self.averaging {
            Averaging::Collective => {
                self.on_every_replica(|_, replica| {
                    let all_reduce =
                        |g| all_reduce(g, ReduceOperation::Mean, devices.clone()).resolve();
                    replica.pending = replica.pending.take().map(|g| g.map(all_reduce));
                });
            }
            Averaging::FirstDevice => {
                let gradients = self.replicas.iter_mut().filter_map(|r| r.pending.take()).collect();
                let means = over_first_device(gradients, &devices);
                for (replica, mean) in self.replicas.iter_mut().zip(means) {
                    replica.pending = Some(mean);
                }
            }
        }
    }

    /// Runs `work` for every replica at once, each in its own thread; in order of rank.
    fn on_every_replica<T: Send>(
        &mut self,
        work: impl Fn(usize, &mut Replica) -> T + Sync,
    ) -> Vec<T> {
        let Some(threads) = &self.threads else {
            return vec![work(0, &mut self.replicas[0])];
        };
        // Every thread locks the one of its rank, so that nobody waits.
        let replicas: Vec<_> = self.replicas.iter_mut().map(Mutex::new).collect();
        threads.broadcast(|thread| {
            let rank = thread.index();
            work(rank, &mut replicas[rank].lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

fn with_gradients(device: &Device) -> Device {
    if device.is_autodiff() { device.clone() } else { device.clone().autodiff() }
}

/// The mean of several devices' gradients, on each of them: added in order of rank on the first, so
/// that all replicas take the same step to the bit.
fn over_first_device(
    gradients: Vec<ParameterGradients>,
    devices: &[Device],
) -> Vec<ParameterGradients> {
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
    use crate::optimiser::{IntoParameterGradients, Sgd, SgdConfig};
    use burn::tensor::{Int, Tensor, TensorData};
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
        let start = config().init_seeded(Initialisation::NnUNetV1, 3, &device).unwrap();
        let sgd = || Sgd::new(SgdConfig::default(), &config());
        let others = [Device::flex()];
        let mut parallel = DataParallel::new(
            start.clone(),
            Box::new(sgd()),
            &device,
            &others,
            Averaging::FirstDevice,
        )
        .unwrap();
        let (mut network, mut sgd) = (start, sgd());
        for step in 0..3 {
            let losses = parallel.accumulate(|rank, device, network| {
                Ok(gradients(network, batch(step, rank, rank + 1, device)))
            });
            let losses = losses.unwrap();
            let report = parallel.descend(|sgd, network, g| sgd.step(network, g, 0.01, 1.0));
            let (loss, grads) = gradients(&network, batch(step, 0, 2, &device));
            let (next, single) = sgd.step(network, grads, 0.01);
            network = next;
            let mean = losses.iter().sum::<f64>() / 2.0;
            assert!((mean / loss - 1.0).abs() < 1e-5, "step {step}: {losses:?}, {loss}");
            let norms = (report.grad_norm, single.grad_norm);
            assert!((norms.0 / norms.1 - 1.0).abs() < 1e-4, "step {step}: {norms:?}");
        }
        let [a, b] = [parallel.network(), &network].map(parameters);
        assert_eq!(a.len(), b.len());
        let worst = a.iter().zip(&b).fold(0f32, |w, (a, b)| w.max((a - b).abs()));
        assert!(worst < 1e-5, "{worst:e}");
        let second = parameters(parallel.replicas[1].network.as_ref().unwrap());
        assert_eq!(a, second, "replicas part");
        // The coarsest head, weight and bias, has weight 0 in the loss.
        let moved = config().parameter_specs().len() - 2;
        assert_eq!(parallel.optimiser().state().tensors.len(), moved);
    }

    /// Burn's collective exists for CUDA alone: on a processor it panics, which is why the averaging
    /// over the first device is the default.
    #[test]
    fn a_processor_has_no_collective() {
        let ones = Tensor::<1>::ones([2], &Device::flex());
        let reduce = || all_reduce(ones, ReduceOperation::Mean, vec![Device::flex(); 2]).resolve();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reduce));
        std::panic::set_hook(hook);
        assert!(outcome.is_err());
    }
}
