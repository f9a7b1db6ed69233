//! What a prediction asks of a network, and who answers: STU-Net, or a network of one's own.

mod eight_bit;

use crate::architecture::Architecture;
use crate::error::InferError;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::Array4;
use serde::Serialize;
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use stunet_model::plain_unet::{self, PlainConvUNet};
use stunet_model::{HalfSums, PointwiseRows, StuNet, WindowValues, cost};

/// What the values are that a network computes for every voxel and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outputs {
    /// Logits: softmax (or sigmoid, for regions) makes them probabilities, where the arithmetic that
    /// is followed asks for it.
    Logits,
    /// Probabilities between 0 and 1: averaged, decided on and stored as they are; regions begin
    /// above one half.
    Probabilities,
    /// Anything else of which the largest wins: averaged, decided on and stored as they are;
    /// regions begin above 0. There is no confidence of them.
    Scores,
}

/// What one window costs a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowCost {
    /// Most bytes held at a time where the network computes, from above: features and the values
    /// it hands out. Weights do not count.
    pub peak_bytes: u64,
    /// Most bytes of values that [`Network::predict_window`] hands out at a time.
    pub output_bytes: u64,
    /// Work, in any unit that grows with the time a window takes, such as multiply-adds: windows of
    /// two sizes are compared by it.
    pub work: f64,
}

/// What turns one window into values for every voxel and class.
///
/// This is all that a prediction needs to know of a network: the memory plan, the tiles, the
/// restoration to the image's grid, confidence and export follow from it, from the
/// [`Plans`](stunet_data::plans::Plans) and from the labels. [`StuNet`] implements it;
/// [`TensorNetwork`] makes one of any function of a tensor.
pub trait Network: Any + Send + Sync {
    /// Channels that a window has.
    fn in_channels(&self) -> usize;

    /// Classes of the values.
    fn num_classes(&self) -> usize;

    /// What the values are.
    fn outputs(&self) -> Outputs;

    /// What a window of this size `[z, y, x]` in voxels costs.
    ///
    /// # Errors
    /// When the network cannot take windows of this size.
    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError>;

    /// Bytes that [`stunet_model::keep_weights`] needs for what a prediction computes over and over; 0 where it
    /// would be of no use, as on a GPU.
    fn kept_weight_bytes(&self, window: [usize; 3]) -> u64 {
        let _ = window;
        0
    }

    /// Values of one window, read back to the host, some planes at a time, lowest first.
    ///
    /// # Shapes
    /// Of a window `[Cin, z, y, x]`, `take` receives ranges of planes and their values
    /// `[C, planes, y, x]`.
    fn predict_window(&self, window: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32]));

    /// What kind of network this is, for reports, and for the comparison of folds.
    fn architecture(&self) -> Architecture {
        Architecture::Other { name: "a network of its own".to_owned() }
    }

    /// What tells this network from every other one, such as a digest of its weights and settings.
    ///
    /// Outputs carry it, so that a later run takes them for ready. Without it they are never taken
    /// for ready.
    fn identity(&self) -> Option<String> {
        None
    }

    /// A view of the network whose values stay on the device; `None` if unsupported.
    fn resident(&self) -> Option<&dyn Resident> {
        None
    }

    /// A view of the network as feature maps and a head; `None` if unsupported.
    fn featured(&self) -> Option<&dyn Featured> {
        None
    }
}

/// A network on the processor whose values are made of its last feature maps voxel by voxel.
pub trait Featured: Network {
    /// The last feature maps of one window.
    ///
    /// # Shapes
    /// `[Cin, z, y, x]` gives f32 values `[1, F, z, y, x]`.
    fn features(&self, window: Array4<f32>) -> Tensor<5>;

    /// What makes the network's values of them; none where it cannot be had apart.
    fn head(&self) -> Option<Head>;
}

/// Makes a network's values of its last feature maps, some voxels at a time.
///
/// The values are those of [`Network::predict_window`], bit by bit.
pub struct Head {
    /// Feature maps `F`.
    pub num_features: usize,
    /// Whether every value is a sum of a voxel's feature maps, each times a constant, and a constant: what it
    /// makes of averaged feature maps are then averaged values, and a prediction may average first.
    pub is_affine: bool,
    /// Makes `[C, columns]` of some columns of `[F, width]`: the feature maps, their width, the columns,
    /// and where the values go.
    pub run: HeadFn,
    /// Adds the same values to sums in half precision instead, bit by bit as if [`run`](Self::run) had written them
    /// first: the feature maps, their width, the columns, and the sums. None where there is no faster way than that.
    pub add_to_halves: Option<AddToHalvesFn>,
}

/// See [`Head::run`].
pub type HeadFn = Box<dyn Fn(&[f32], usize, Range<usize>, &mut [f32]) + Send + Sync>;

/// See [`Head::add_to_halves`].
pub type AddToHalvesFn = Box<dyn Fn(&[f32], usize, Range<usize>, HalfSums<'_>) + Send + Sync>;

impl Head {
    pub(crate) fn of(rows: PointwiseRows) -> Self {
        let [num_features, _] = rows.channels();
        let rows = Arc::new(rows);
        let adding = rows.clone();
        let run: HeadFn =
            Box::new(move |from, width, columns, to| rows.run(from, width, columns, to));
        let add: AddToHalvesFn = Box::new(move |from, width, columns, sums| {
            adding.add_to_halves(from, width, columns, sums);
        });
        Self { num_features, is_affine: true, run, add_to_halves: Some(add) }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("num_features", &self.num_features).finish_non_exhaustive()
    }
}

/// A network whose values can stay on its device.
pub trait Resident: Network {
    /// Where it computes.
    fn device(&self) -> Device;

    /// Values of windows that are there already: of one, or of as many as
    /// [`windows_at_once`](Self::windows_at_once) says.
    ///
    /// # Shapes
    /// `[N, Cin, z, y, x]` gives values `[N, C, z, y, x]`, or what a convolution of single voxels makes
    /// them of.
    fn predict_window_on_device(&self, window: Tensor<5>) -> WindowValues;

    /// Most windows that it takes at once. The values of each have to be those of the window alone.
    fn windows_at_once(&self) -> usize {
        1
    }

    /// Feature maps at full resolution, which are its largest tensor on the device; none where that is not known, and
    /// then it is given one window at a time.
    fn finest_features(&self) -> Option<usize> {
        None
    }
}

/// Windows that a device computes at once, where it has room for them: as many as it may be given and not have done.
pub(crate) const MOST_AT_ONCE: usize = 2;

/// A window as a tensor of one sample on a device.
///
/// # Shapes
/// `[Cin, z, y, x]` gives `[1, Cin, z, y, x]`.
pub fn upload(window: Array4<f32>, device: &Device) -> Tensor<5> {
    let (channels, z, y, x) = window.dim();
    let (values, _) = window.into_raw_vec_and_offset();
    Tensor::from_data(TensorData::new(values, [1, channels, z, y, x]), (device, DType::F32))
}

/// Hands out a tensor of planes on the host.
pub(crate) fn hand_out(
    planes: Range<usize>,
    values: Tensor<5>,
    take: &mut dyn FnMut(Range<usize>, &[f32]),
) {
    let values = stunet_model::read(values).convert::<f32>();
    take(planes, values.as_slice::<f32>().expect("converted to f32"));
}

/// A network made of a function from windows to values, such as a Burn module's `forward`.
///
/// ```
/// use burn::tensor::{Device, Tensor, activation};
/// use stunet_infer::network::{Network, Outputs, TensorNetwork};
/// let network = TensorNetwork {
///     device: Device::flex(),
///     in_channels: 1,
///     num_classes: 2,
///     outputs: Outputs::Probabilities,
///     bytes_per_voxel: 12,
///     multiple_of: [1; 3],
///     identity: Some("bright voxels, version 1".to_owned()),
///     forward: |x: Tensor<5>| {
///         let bright = activation::sigmoid(x);
///         Tensor::cat(vec![1.0 - bright.clone(), bright], 1)
///     },
/// };
/// assert_eq!(network.cost([4, 4, 4])?.peak_bytes, 768);
/// # Ok::<(), stunet_infer::InferError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorNetwork<F> {
    /// Where the function computes.
    pub device: Device,
    /// Channels that a window has.
    pub in_channels: usize,
    /// Classes of the values.
    pub num_classes: usize,
    /// What the values are.
    pub outputs: Outputs,
    /// Most bytes held at a time per voxel of a window, the values included: 4 for every feature
    /// map of full size in f32.
    pub bytes_per_voxel: u64,
    /// Sizes `[z, y, x]` that windows must be multiples of.
    pub multiple_of: [usize; 3],
    /// What tells this network from every other one: see [`Network::identity`].
    pub identity: Option<String>,
    /// From windows `[1, Cin, z, y, x]` to values `[1, C, z, y, x]`.
    pub forward: F,
}

impl<F: Fn(Tensor<5>) -> Tensor<5> + Send + Sync + 'static> TensorNetwork<F> {
    fn run(&self, window: Tensor<5>) -> Tensor<5> {
        let [_, _, z, y, x] = window.dims();
        let values = (self.forward)(window);
        let expected = [1, self.num_classes, z, y, x];
        assert_eq!(values.dims(), expected, "the network's values have another shape");
        values
    }
}

impl<F: Fn(Tensor<5>) -> Tensor<5> + Send + Sync + 'static> Network for TensorNetwork<F> {
    fn in_channels(&self) -> usize {
        self.in_channels
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn outputs(&self) -> Outputs {
        self.outputs
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        let fits = |axis: usize| {
            window[axis] > 0 && window[axis].is_multiple_of(self.multiple_of[axis].max(1))
        };
        if !(0..3).all(fits) {
            let expected = format!("multiples of {:?} voxels", self.multiple_of);
            return Err(InferError::Window { expected, found: window });
        }
        let voxels = window.iter().product::<usize>() as u64;
        Ok(WindowCost {
            peak_bytes: voxels * self.bytes_per_voxel,
            output_bytes: voxels * self.num_classes as u64 * 4,
            work: voxels as f64,
        })
    }

    /// # Panics
    /// When the function gives values of another shape than it was said to.
    fn predict_window(&self, window: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        let planes = 0..window.dim().1;
        hand_out(planes, self.run(upload(window, &self.device)), take);
    }

    fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn resident(&self) -> Option<&dyn Resident> {
        Some(self)
    }
}

impl<F: Fn(Tensor<5>) -> Tensor<5> + Send + Sync + 'static> Resident for TensorNetwork<F> {
    fn device(&self) -> Device {
        self.device.clone()
    }

    fn predict_window_on_device(&self, window: Tensor<5>) -> WindowValues {
        WindowValues::Ready(self.run(window))
    }
}

/// What a window costs a network whose head runs by planes.
fn window_cost(classes: usize, window: [usize; 3], peak_bytes: u64, macs: u64) -> WindowCost {
    let [depth, height, width] = window;
    let piece = cost::planes_per_piece(classes, [height, width]).min(depth);
    let output_bytes = (classes * piece * height * width) as u64 * 4;
    WindowCost { peak_bytes, output_bytes, work: macs as f64 }
}

impl Network for StuNet {
    fn in_channels(&self) -> usize {
        self.config().in_channels
    }

    fn num_classes(&self) -> usize {
        self.config().num_classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        let config = self.config();
        config.validate_patch(window)?;
        let peak_bytes = cost::predict_peak_bytes(&config, window);
        let macs = cost::cost(&config, window).conv_macs_predict;
        Ok(window_cost(config.num_classes, window, peak_bytes, macs))
    }

    fn kept_weight_bytes(&self, window: [usize; 3]) -> u64 {
        match self.featured().is_some_and(|featured| featured.head().is_some()) {
            true => cost::kept_weight_bytes(&self.config(), window),
            false => 0,
        }
    }

    fn predict_window(&self, window: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        let x = upload(window, &Resident::device(self));
        self.forward_by_planes(x, &mut |planes, logits| hand_out(planes, logits, take));
    }

    fn architecture(&self) -> Architecture {
        Architecture::StuNet(self.config())
    }

    fn identity(&self) -> Option<String> {
        Some(self.digest())
    }

    fn resident(&self) -> Option<&dyn Resident> {
        Some(self)
    }

    fn featured(&self) -> Option<&dyn Featured> {
        Some(self)
    }
}

impl Featured for StuNet {
    fn features(&self, window: Array4<f32>) -> Tensor<5> {
        self.finest_features(upload(window, &Resident::device(self)))
    }

    fn head(&self) -> Option<Head> {
        self.finest_head_rows().map(Head::of)
    }
}

impl Resident for StuNet {
    fn device(&self) -> Device {
        self.encoder.stages[0][0].conv1.weight.val().device()
    }

    fn predict_window_on_device(&self, window: Tensor<5>) -> WindowValues {
        self.forward_to_head(window)
    }

    fn windows_at_once(&self) -> usize {
        MOST_AT_ONCE
    }

    fn finest_features(&self) -> Option<usize> {
        self.config().width.first().copied()
    }
}

impl Network for PlainConvUNet {
    fn in_channels(&self) -> usize {
        self.config().in_channels
    }

    fn num_classes(&self) -> usize {
        self.config().num_classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        let config = self.config();
        config.validate_patch(window)?;
        let peak_bytes = plain_unet::predict_peak_bytes(config, window);
        let macs = plain_unet::cost(config, window).conv_macs_predict;
        Ok(window_cost(config.num_classes, window, peak_bytes, macs))
    }

    fn kept_weight_bytes(&self, window: [usize; 3]) -> u64 {
        match self.featured().is_some_and(|featured| featured.head().is_some()) {
            true => plain_unet::kept_weight_bytes(self.config(), window),
            false => 0,
        }
    }

    fn predict_window(&self, window: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        let x = upload(window, &self.device());
        self.forward_by_planes(x, &mut |planes, logits| hand_out(planes, logits, take));
    }

    fn architecture(&self) -> Architecture {
        Architecture::PlainConvUNet(self.config().clone())
    }

    fn identity(&self) -> Option<String> {
        Some(self.digest())
    }

    fn resident(&self) -> Option<&dyn Resident> {
        Some(self)
    }

    fn featured(&self) -> Option<&dyn Featured> {
        Some(self)
    }
}

impl Featured for PlainConvUNet {
    fn features(&self, window: Array4<f32>) -> Tensor<5> {
        self.finest_features(upload(window, &self.device()))
    }

    fn head(&self) -> Option<Head> {
        self.finest_head_rows().map(Head::of)
    }
}

impl Resident for PlainConvUNet {
    fn device(&self) -> Device {
        self.device()
    }

    fn predict_window_on_device(&self, window: Tensor<5>) -> WindowValues {
        self.forward_to_head(window)
    }

    fn windows_at_once(&self) -> usize {
        MOST_AT_ONCE
    }

    fn finest_features(&self) -> Option<usize> {
        self.config().features.first().copied()
    }
}

#[cfg(test)]
mod tests;
