//! From a file's voxels to the network's: the recipe, and the receipt to undo it.
//!
//! nnU-Net 1 crops, transposes, resamples, then normalises; nnU-Net 2 transposes, crops, normalises,
//! then resamples. The plans say which.

pub mod crop;
mod normalize;
pub mod resample;
mod restore;

pub use restore::{RestoreOrder, Trace};

use crate::error::{DataError, Result};
use crate::image::Image;
use crate::labels::LabelMap;
use crate::plans::{Plans, Reference};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis};
use resample::{LabelRule, Order, resize_labels, resize_separately};

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
/// When the number of channels differs from the plan's, every voxel is 0, or the volume would grow
/// beyond reason.
///
/// # Source
/// nnU-Net 1.7 `preprocessing.py` (`GenericPreprocessor.preprocess_test_case`); nnU-Net 2.2 and 2.8
/// `default_preprocessor.py` (`DefaultPreprocessor.run_case_npy`).
pub fn preprocess(image: &Image, plans: &Plans) -> Result<Preprocessed> {
    let masked = plans.channels.iter().any(|c| c.use_mask);
    let (prepared, _) = run(image, Labels::Outside { needed: masked }, plans)?;
    Ok(prepared)
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
    let labels = match labels {
        Some(labels) => {
            image.geometry.check_same_grid(&labels.geometry)?;
            Labels::Given(labels)
        }
        None => Labels::Outside { needed: true },
    };
    let (prepared, labels) = run(image, labels, plans)?;
    Ok((prepared, labels.expect("labels were asked for")))
}

enum Labels<'a> {
    Given(&'a LabelMap),
    Outside { needed: bool },
}

fn run(
    image: &Image,
    labels: Labels<'_>,
    plans: &Plans,
) -> Result<(Preprocessed, Option<Array3<i16>>)> {
    if image.num_channels() != plans.num_channels() {
        return Err(DataError::ChannelCount {
            expected: plans.num_channels(),
            found: image.num_channels(),
        });
    }
    let bounds = crop::bounding_box(image.data.view())?;
    let trace = Trace::new(&image.geometry, bounds, plans)?;
    let [z, y, x] = bounds.map(|[from, to]| ndarray::Slice::from(from..to));
    let cropped = image.data.slice(ndarray::s![.., z, y, x]);
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
    let (image, labels) = match plans.reference {
        Reference::NnUNetV1 => resample_then_normalize(data, labels, plans, &trace),
        _ => normalize_then_resample(data, labels, plans, &trace),
    };
    Ok((Preprocessed { image, trace }, labels))
}

/// nnU-Net 1.
fn resample_then_normalize(
    data: ArrayView4<'_, f32>,
    labels: Option<Array3<i16>>,
    plans: &Plans,
    trace: &Trace,
) -> (Array4<f32>, Option<Array3<i16>>) {
    let (shape, separate) = (trace.network_shape(), trace.separate_axis());
    let labels = labels.map(|l| resize_labels(l.view(), shape, LabelRule::LastAboveHalf, separate));
    let inside = inside(labels.as_ref(), plans);
    let channels = data.axis_iter(Axis(0)).zip(&plans.channels).map(|(channel, plan)| {
        // This version alone takes NaN for 0.
        let cleaned = channel.iter().any(|v| v.is_nan());
        let cleaned = cleaned.then(|| channel.mapv(|v| if v.is_nan() { 0.0 } else { v }));
        let channel = cleaned.as_ref().map_or(channel, |c| c.view());
        let mut resized = resize_separately(channel, shape, Order::Cubic, separate);
        let inside = inside.as_ref().map(|a| a.view());
        normalize::normalize(&mut resized, inside, plan, plans.reference);
        resized
    });
    (stack(channels.collect()), labels)
}

/// nnU-Net 2.
fn normalize_then_resample(
    data: ArrayView4<'_, f32>,
    labels: Option<Array3<i16>>,
    plans: &Plans,
    trace: &Trace,
) -> (Array4<f32>, Option<Array3<i16>>) {
    let (shape, separate) = (trace.network_shape(), trace.separate_axis());
    let inside = inside(labels.as_ref(), plans);
    let channels = data.axis_iter(Axis(0)).zip(&plans.channels).map(|(channel, plan)| {
        let mut channel = resample::owned(channel);
        let inside = inside.as_ref().map(|a| a.view());
        normalize::normalize(&mut channel, inside, plan, plans.reference);
        if channel.shape() == shape {
            return channel;
        }
        resize_separately(channel.view(), shape, Order::Cubic, separate)
    });
    let image = stack(channels.collect());
    let labels = labels.map(|l| resize_labels(l.view(), shape, LabelRule::LargestShare, separate));
    (image, labels)
}

/// Labels of the cropped region, -1 where background lies outside the nonzero region.
fn mark_outside(
    cropped: ArrayView4<'_, f32>,
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
