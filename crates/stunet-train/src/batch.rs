//! From patches on the host to tensors on the device.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use stunet_data::loader::{TrainingBatch, TrainingPatch};

/// A batch where the network runs.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    /// Images, `[N, C, Z, Y, X]`.
    pub images: Tensor<5>,
    /// Labels at every output's resolution, finest first, `[N, Z, Y, X]`.
    pub targets: Vec<Tensor<4, Int>>,
}

impl DeviceBatch {
    /// Copies a batch to a device.
    ///
    /// # Panics
    /// When the batch is empty, or its patches differ in shape.
    pub fn new(batch: &TrainingBatch, device: &Device) -> Self {
        Self::of(&batch.patches, device)
    }

    /// Copies patches to a device: a batch, or one device's share of it.
    ///
    /// # Panics
    /// When there are none, or they differ in shape.
    pub fn of(patches: &[TrainingPatch], device: &Device) -> Self {
        let (num_patches, first) = (patches.len(), patches.first().expect("a batch has a patch"));
        let (c, z, y, x) = first.image.dim();
        let mut values = Vec::with_capacity(num_patches * first.image.len());
        for patch in patches {
            assert_eq!(patch.image.dim(), first.image.dim(), "patches of a batch have one shape");
            values.extend(patch.image.iter().copied());
        }
        let images = TensorData::new(values, [num_patches, c, z, y, x]);
        let targets = (0..first.targets.len()).map(|scale| {
            let (z, y, x) = first.targets[scale].dim();
            let labels =
                patches.iter().flat_map(|p| p.targets[scale].iter().map(|&v| i32::from(v)));
            let labels = TensorData::new(labels.collect::<Vec<_>>(), [num_patches, z, y, x]);
            Tensor::from_data(labels, (device, DType::I32))
        });
        Self { images: Tensor::from_data(images, (device, DType::F32)), targets: targets.collect() }
    }
}
