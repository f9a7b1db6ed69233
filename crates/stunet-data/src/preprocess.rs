//! Preprocessing: from a file's voxels to the network's input, and the trace that undoes it.
//!
//! nnU-Net 1 crops, transposes, resamples, then normalises; nnU-Net 2 transposes, crops, normalises,
//! then resamples. The plans say which.

pub mod crop;
mod normalize;
mod part;
mod preprocessor;
pub mod resample;
mod resample_image;
mod restore;

pub use preprocessor::Preprocessor;
pub use restore::{Placement, RestoreOrder, Trace};

use crate::error::{DataError, Result};
use crate::geometry::{Geometry, Turn};
use crate::image::{Image, RawImage};
use crate::labels::LabelMap;
use crate::plans::{Normalization, Plans};
use crate::reference::PreprocessingOrder;
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis};
use preprocessor::OwnNormalisations;
use resample::{
    Resampling, Voxel, resize_labels, resize_labels_as_torch, resize_mapped, resize_separately,
};

/// What the network sees.
///
/// # Shapes
/// `image` is `[C, Z, Y, X]` in the network's frame: transposed, cropped, at the plan's spacing.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessed {
    /// Normalised intensities.
    pub image: Array4<f32>,
    /// How to get back to the file's grid.
    pub trace: Trace,
}

/// Prepares an image for the network.
///
/// # Errors
/// When the number of channels differs from the plan's, every voxel is 0, the volume would grow beyond
/// reason, or the plans ask for a normalisation that only the caller has: see [`Preprocessor`].
///
/// # Source
/// nnU-Net 1.7 `preprocessing.py` (`GenericPreprocessor.preprocess_test_case`); nnU-Net 2.2 and 2.8
/// `default_preprocessor.py` (`DefaultPreprocessor.run_case_npy`).
pub fn preprocess(image: &Image, plans: &Plans) -> Result<Preprocessed> {
    Preprocessor::new(plans).image(image)
}

/// As [`preprocess`], from the voxels as they were read: nothing of the file's size is held beside
/// them, unless statistics are masked.
///
/// # Errors
/// As [`preprocess`].
pub fn preprocess_scan(scan: &RawImage, plans: &Plans) -> Result<Preprocessed> {
    Preprocessor::new(plans).scan(scan)
}

/// Prepares an image with its labels, which come back on the same grid.
///
/// Background voxels outside the nonzero region become -1. Without labels, only that region is
/// marked (0 inside, -1 outside).
///
/// # Errors
/// As [`preprocess`], and when image and labels lie on different grids or a label exceeds 32767.
pub fn preprocess_with_labels(
    image: &Image,
    labels: Option<&LabelMap>,
    plans: &Plans,
) -> Result<(Preprocessed, Array3<i16>)> {
    Preprocessor::new(plans).image_with_labels(image, labels)
}

/// As [`preprocess_with_labels`], from the voxels as they were read.
///
/// # Errors
/// As [`preprocess_with_labels`].
pub fn preprocess_scan_with_labels(
    scan: &RawImage,
    labels: Option<&LabelMap>,
    plans: &Plans,
) -> Result<(Preprocessed, Array3<i16>)> {
    Preprocessor::new(plans).scan_with_labels(scan, labels)
}

/// Bytes that reading a file and [`preprocess_scan`] hold at their peak, by an estimate from above:
/// the voxels in two or four bytes each, the largest volume between two axes, and the result.
pub fn memory_bytes(geometry: &Geometry, num_channels: usize, plans: &Plans) -> u64 {
    let voxels: f64 = geometry.shape().iter().map(|n| *n as f64).product();
    let growth: [f64; 3] = std::array::from_fn(|axis| {
        geometry.spacing_mm()[plans.transpose_forward[axis]] / plans.spacing_mm[axis]
    });
    let result = voxels * growth.iter().product::<f64>();
    // One axis, or the other two, are left to do.
    let middle = voxels * growth[0].min(growth[1] * growth[2]).max(0.0);
    let masked = plans.channels.iter().any(|channel| channel.use_mask);
    let copies = if masked { 8.0 } else { 0.0 };
    // The file's voxels, until they are turned.
    let turned = plans.reader.turns() || geometry.turn() != Turn::NONE;
    let read = if turned { 4.0 } else { 0.0 };
    (num_channels as f64 * (voxels * (4.0 + read + copies) + 4.0 * (middle + 2.0 * result))) as u64
}

enum Labels<'a> {
    Given(&'a LabelMap),
    Outside { needed: bool },
}

fn run<T: Voxel<Resized = f32>>(
    data: ArrayView4<'_, T>,
    geometry: &Geometry,
    labels: Labels<'_>,
    (plans, own): (&Plans, &OwnNormalisations),
) -> Result<(Preprocessed, Option<Array3<i16>>)> {
    let num_channels = data.dim().0;
    if num_channels != plans.num_channels() {
        return Err(DataError::ChannelCount {
            expected: plans.num_channels(),
            found: num_channels,
        });
    }
    own.check(plans)?;
    let bounds = crop::bounding_box(data)?;
    let trace = Trace::new(geometry, bounds, plans)?;
    let [z, y, x] = bounds.map(|[from, to]| ndarray::Slice::from(from..to));
    let cropped = data.slice_move(ndarray::s![.., z, y, x]);
    let labels = match labels {
        Labels::Outside { needed: false } => None,
        Labels::Outside { needed: true } => Some(mark_outside(cropped, None)?),
        Labels::Given(map) => {
            Some(mark_outside(cropped, Some(map.data.slice(ndarray::s![z, y, x])))?)
        }
    };
    let labels = labels.map(|l| l.permuted_axes(plans.transpose_forward));
    let [a, b, c] = plans.transpose_forward.map(|axis| axis + 1);
    let data = cropped.permuted_axes([0, a, b, c]);
    let (image, labels) = match plans.reference.conventions().preprocessing.order {
        PreprocessingOrder::ResampleFirst => {
            resample_then_normalize(data, labels, (plans, own), &trace)
        }
        PreprocessingOrder::NormalizeFirst => {
            normalize_then_resample(data, labels, (plans, own), &trace)
        }
    };
    Ok((Preprocessed { image, trace }, labels))
}

/// As nnU-Net 1.
fn resample_then_normalize<T: Voxel<Resized = f32>>(
    data: ArrayView4<'_, T>,
    labels: Option<Array3<i16>>,
    (plans, own): (&Plans, &OwnNormalisations),
    trace: &Trace,
) -> (Array4<f32>, Option<Array3<i16>>) {
    let (shape, separate) = (trace.network_shape(), trace.separate_axis());
    let labels = resized_labels(labels, plans, trace);
    let inside = inside(labels.as_ref(), plans);
    let channels = data.axis_iter(Axis(0)).zip(&plans.channels).enumerate();
    let channels = channels.map(|(index, (channel, _))| {
        // NaN is taken for 0 here alone. Only NaN differs from itself.
        let cleaned = channel.iter().any(|v| v.partial_cmp(v).is_none());
        let clean = |v: &T| if v.partial_cmp(v).is_none() { T::default() } else { *v };
        let cleaned = cleaned.then(|| channel.map(clean));
        let channel = cleaned.as_ref().map_or(channel, |c| c.view());
        let mut resized =
            resize_separately(channel, shape, plans.resampling.image_order(), separate);
        let inside = inside.as_ref().map(|a| a.view());
        normalize(&mut resized, inside, index, (plans, own));
        resized
    });
    (stack(channels.collect()), labels)
}

/// As nnU-Net 2.
fn normalize_then_resample<T: Voxel<Resized = f32>>(
    data: ArrayView4<'_, T>,
    labels: Option<Array3<i16>>,
    (plans, own): (&Plans, &OwnNormalisations),
    trace: &Trace,
) -> (Array4<f32>, Option<Array3<i16>>) {
    let (shape, separate) = (trace.network_shape(), trace.separate_axis());
    let inside = inside(labels.as_ref(), plans);
    let conventions = &plans.reference.conventions().preprocessing;
    let order = plans.resampling.image_order();
    let channels = data.axis_iter(Axis(0)).zip(&plans.channels).enumerate();
    let channels = channels.map(|(index, (channel, plan))| {
        if let Some(map) = normalize::PointMap::of(channel, plan, conventions) {
            let map = move |v: T| f64::from(map.apply(v.to_f64() as f32));
            return resize_mapped(channel, shape, order, separate, map);
        }
        let mut channel = resample::owned(channel.map(|v| v.to_f64() as f32).view());
        let inside = inside.as_ref().map(|a| a.view());
        normalize(&mut channel, inside, index, (plans, own));
        resize_separately(channel.view(), shape, order, separate)
    });
    let image = stack(channels.collect());
    (image, resized_labels(labels, plans, trace))
}

/// Labels at the network's resolution.
fn resized_labels(
    labels: Option<Array3<i16>>,
    plans: &Plans,
    trace: &Trace,
) -> Option<Array3<i16>> {
    let rule = plans.reference.conventions().preprocessing.label_rule;
    let (shape, separate) = (trace.network_shape(), trace.separate_axis());
    labels.map(|labels| match plans.resampling {
        Resampling::ScikitImage => resize_labels(labels.view(), shape, rule, separate),
        Resampling::Torch => resize_labels_as_torch(labels.view(), shape, separate),
    })
}

/// By the plan's scheme, or the caller's own.
fn normalize(
    channel: &mut Array3<f32>,
    inside: Option<ArrayView3<'_, bool>>,
    index: usize,
    (plans, own): (&Plans, &OwnNormalisations),
) {
    let plan = &plans.channels[index];
    match plan.scheme {
        Normalization::Own => own.run(index, channel, inside.filter(|_| plan.use_mask)),
        _ => {
            let conventions = &plans.reference.conventions().preprocessing;
            normalize::normalize(channel, inside, plan, conventions);
        }
    }
}

/// Labels of the cropped region, -1 where background lies outside the nonzero region.
fn mark_outside<T: Voxel>(
    cropped: ArrayView4<'_, T>,
    labels: Option<ArrayView3<'_, u16>>,
) -> Result<Array3<i16>> {
    let outside = |inside: bool| if inside { 0 } else { -1 };
    // Beyond the box there is only background, so holes are the same as in the whole volume.
    let mask = crop::nonzero_mask(cropped);
    let Some(labels) = labels else {
        return Ok(mask.mapv(outside));
    };
    if let Some(found) = labels.iter().find(|l| **l > i16::MAX as u16) {
        return Err(DataError::NotALabel { found: f64::from(*found) });
    }
    Ok(ndarray::Zip::from(&labels).and(&mask).par_map_collect(|l, inside| match *l {
        0 => outside(*inside),
        label => label as i16,
    }))
}

fn inside(labels: Option<&Array3<i16>>, plans: &Plans) -> Option<Array3<bool>> {
    let needed = plans.channels.iter().any(|c| c.use_mask);
    let labels = labels.filter(|_| needed)?;
    // mapv would keep the strides of a transposed array, the statistics need standard layout.
    Some(labels.as_standard_layout().mapv(|l| l >= 0))
}

fn stack(mut channels: Vec<Array3<f32>>) -> Array4<f32> {
    if channels.len() == 1 {
        return channels.remove(0).insert_axis(Axis(0));
    }
    let views: Vec<_> = channels.iter().map(|a| a.view()).collect();
    ndarray::stack(Axis(0), &views).expect("all channels have one shape")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use crate::reference::Reference;

    fn image(channels: usize) -> Image {
        let count = channels * 5 * 7 * 11;
        let values = stunet_testing::prng::uniform(5, 0, count);
        let mut data = Array4::from_shape_vec((channels, 5, 7, 11), values).unwrap();
        data.slice_mut(ndarray::s![.., 0, .., ..]).fill(0.0);
        Image::new(data, Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5]).unwrap()).unwrap()
    }

    #[test]
    fn the_number_of_channels_must_fit() {
        let error = preprocess(&image(2), &Plans::totalsegmentator()).unwrap_err();
        assert_eq!(error.to_string(), "expected 1 channel(s), found 2");
    }

    #[test]
    fn an_empty_image_is_refused() {
        let mut image = image(1);
        image.data.fill(0.0);
        assert!(preprocess(&image, &Plans::totalsegmentator()).is_err());
    }

    #[test]
    fn labels_on_another_grid_are_refused() {
        let geometry = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.6]).unwrap();
        let labels = LabelMap::new(Array3::zeros((5, 7, 11)), geometry).unwrap();
        let plans = Plans::totalsegmentator();
        let error = preprocess_with_labels(&image(1), Some(&labels), &plans).unwrap_err();
        assert!(error.to_string().starts_with("spacing differs"), "{error}");
    }

    #[test]
    fn nan_counts_as_0_in_version_1() {
        let (mut with_nan, mut with_zero) = (image(1), image(1));
        with_nan.data[[0, 2, 3, 4]] = f32::NAN;
        with_zero.data[[0, 2, 3, 4]] = 0.0;
        let plans = Plans::totalsegmentator();
        let [a, b] = [with_nan, with_zero].map(|i| preprocess(&i, &plans).unwrap().image);
        assert_eq!(a, b);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let mut plans = Plans { transpose_forward: [2, 0, 1], ..Plans::totalsegmentator() };
        for reference in [Reference::NnUNetV1, Reference::NnUNetV28] {
            plans.reference = reference;
            plans.channels[0].use_mask = true;
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| preprocess_with_labels(&image(1), None, &plans).unwrap())
            };
            assert_eq!(run(1), run(4));
        }
    }
}
