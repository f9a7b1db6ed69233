//! Preprocessing with a normalisation of one's own.

use super::{Labels, Preprocessed, run};
use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use crate::image::{Image, RawImage, Voxels};
use crate::labels::LabelMap;
use crate::plans::{Normalization, Plans};
use crate::preprocess::resample::Voxel;
use ndarray::{Array3, ArrayView3, ArrayView4, ArrayViewMut3};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

type Normalise = dyn Fn(ArrayViewMut3<'_, f32>, Option<ArrayView3<'_, bool>>) + Send + Sync;

/// Prepares images by plans, with normalisations of one's own for the channels whose scheme is
/// [`Normalization::Own`].
///
/// Plans of one's own say so by setting the scheme; those of nnU-Net 2 that name a scheme which stunet
/// does not have are read by [`Plans::from_v2_json_with`]. The plans keep in what is written that a
/// normalisation was not stunet's, so that nobody prepares images for the model without it.
///
/// ```
/// use ndarray::Array4;
/// use stunet_data::geometry::Geometry;
/// use stunet_data::image::Image;
/// use stunet_data::plans::{Normalization, Plans};
/// use stunet_data::preprocess::Preprocessor;
///
/// let mut plans = Plans::totalsegmentator();
/// plans.channels[0].scheme = Normalization::Own;
/// let image = Array4::from_elem((1, 8, 8, 8), 80.0);
/// let image = Image::new(image, Geometry::axis_aligned([8; 3], [1.5; 3])?)?;
/// let preprocessor = Preprocessor::new(&plans)
///     .with_normalisation(0, |mut channel, _inside| channel.mapv_inplace(|v| (v - 40.0) / 400.0))?;
/// let prepared = preprocessor.image(&image)?;
/// assert!(prepared.image.iter().all(|v| (v - 0.1).abs() < 1e-6));
/// # Ok::<(), stunet_data::error::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Preprocessor<'a> {
    plans: &'a Plans,
    own: OwnNormalisations,
}

/// By number of the channel.
#[derive(Clone, Default)]
pub(super) struct OwnNormalisations(BTreeMap<usize, Arc<Normalise>>);

impl fmt::Debug for OwnNormalisations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl OwnNormalisations {
    /// Every channel that needs one has to have one.
    pub(super) fn check(&self, plans: &Plans) -> Result<()> {
        let channels = plans.channels.iter().enumerate();
        let mut own = channels.filter(|(_, channel)| channel.scheme == Normalization::Own);
        match own.find(|(index, _)| !self.0.contains_key(index)) {
            None => Ok(()),
            Some((channel, plan)) => {
                Err(DataError::NoNormalisation { channel, name: plan.name.clone() })
            }
        }
    }

    /// What was checked is there.
    pub(super) fn run(
        &self,
        index: usize,
        channel: &mut Array3<f32>,
        inside: Option<ArrayView3<'_, bool>>,
    ) {
        if let Some(normalise) = self.0.get(&index) {
            normalise(channel.view_mut(), inside);
        }
    }
}

impl<'a> Preprocessor<'a> {
    /// With the schemes of the plans alone.
    pub fn new(plans: &'a Plans) -> Self {
        Self { plans, own: OwnNormalisations::default() }
    }

    /// With a normalisation of one's own for a channel. It is called once per image with the channel
    /// `[Z, Y, X]`, cropped and in the network's axes, and changes it in place. Where the plans say
    /// `use_mask` it also gets the voxels of the nonzero region. As nnU-Net does, plans of version 1
    /// are resampled before and those of version 2 afterwards.
    ///
    /// # Errors
    /// When the scheme of the channel is not [`Normalization::Own`].
    pub fn with_normalisation(
        mut self,
        channel: usize,
        normalise: impl Fn(ArrayViewMut3<'_, f32>, Option<ArrayView3<'_, bool>>) + Send + Sync + 'static,
    ) -> Result<Self> {
        let found = match self.plans.channels.get(channel).map(|plan| plan.scheme) {
            Some(Normalization::Own) => {
                self.own.0.insert(channel, Arc::new(normalise));
                return Ok(self);
            }
            Some(scheme) => format!("{scheme:?}"),
            None => format!("plans of {} channel(s)", self.plans.num_channels()),
        };
        Err(DataError::NormalisationNotAsked { channel, found })
    }

    /// As [`preprocess`](super::preprocess).
    ///
    /// # Errors
    /// As [`preprocess`](super::preprocess).
    pub fn image(&self, image: &Image) -> Result<Preprocessed> {
        self.alone(image.data.view(), &image.geometry)
    }

    /// As [`preprocess_scan`](super::preprocess_scan).
    ///
    /// # Errors
    /// As [`preprocess`](super::preprocess).
    pub fn scan(&self, scan: &RawImage) -> Result<Preprocessed> {
        match &scan.voxels {
            Voxels::I16(data) => self.alone(data.view(), &scan.geometry),
            Voxels::F32(data) => self.alone(data.view(), &scan.geometry),
        }
    }

    /// As [`preprocess_with_labels`](super::preprocess_with_labels).
    ///
    /// # Errors
    /// As [`preprocess_with_labels`](super::preprocess_with_labels).
    pub fn image_with_labels(
        &self,
        image: &Image,
        labels: Option<&LabelMap>,
    ) -> Result<(Preprocessed, Array3<i16>)> {
        self.with_labels(image.data.view(), &image.geometry, labels)
    }

    /// As [`preprocess_scan_with_labels`](super::preprocess_scan_with_labels).
    ///
    /// # Errors
    /// As [`preprocess_with_labels`](super::preprocess_with_labels).
    pub fn scan_with_labels(
        &self,
        scan: &RawImage,
        labels: Option<&LabelMap>,
    ) -> Result<(Preprocessed, Array3<i16>)> {
        match &scan.voxels {
            Voxels::I16(data) => self.with_labels(data.view(), &scan.geometry, labels),
            Voxels::F32(data) => self.with_labels(data.view(), &scan.geometry, labels),
        }
    }

    fn alone<T: Voxel<Resized = f32>>(
        &self,
        data: ArrayView4<'_, T>,
        geometry: &Geometry,
    ) -> Result<Preprocessed> {
        let needed = self.plans.channels.iter().any(|c| c.use_mask);
        let labels = Labels::Outside { needed };
        let (prepared, _) = run(data, geometry, labels, (self.plans, &self.own))?;
        Ok(prepared)
    }

    fn with_labels<T: Voxel<Resized = f32>>(
        &self,
        data: ArrayView4<'_, T>,
        geometry: &Geometry,
        labels: Option<&LabelMap>,
    ) -> Result<(Preprocessed, Array3<i16>)> {
        let labels = match labels {
            Some(labels) => {
                geometry.check_same_grid(&labels.geometry)?;
                Labels::Given(labels)
            }
            None => Labels::Outside { needed: true },
        };
        let (prepared, labels) = run(data, geometry, labels, (self.plans, &self.own))?;
        Ok((prepared, labels.expect("labels were asked for")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::Reference;
    use crate::preprocess::{preprocess, preprocess_with_labels};

    fn image() -> Image {
        let mut values = stunet_testing::prng::uniform(5, 0, 2 * 6 * 7 * 11);
        values[..60].fill(0.0);
        let data = ndarray::Array4::from_shape_vec((2, 6, 7, 11), values).unwrap();
        Image::new(data, Geometry::axis_aligned([6, 7, 11], [3.0, 1.0, 0.5]).unwrap()).unwrap()
    }

    fn plans(reference: Reference) -> Plans {
        let published = Plans::totalsegmentator();
        let mut channel = published.channels[0].clone();
        channel.scheme = Normalization::RgbToZeroOne;
        Plans {
            reference,
            transpose_forward: [1, 0, 2],
            channels: vec![channel.clone(), channel],
            ..published
        }
    }

    /// A built-in scheme written down by the caller gives the built-in scheme's bits.
    #[test]
    fn an_own_normalisation_stands_where_the_built_in_one_does() {
        for reference in [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28] {
            let built_in = plans(reference);
            let (expected, labels) = preprocess_with_labels(&image(), None, &built_in).unwrap();
            let mut own = built_in.clone();
            own.channels[1].scheme = Normalization::Own;
            let preprocessor = Preprocessor::new(&own)
                .with_normalisation(1, |mut channel, inside| {
                    assert!(inside.is_none(), "without use_mask there is none");
                    channel.mapv_inplace(|v| v / 255.0);
                })
                .unwrap();
            let (found, found_labels) = preprocessor.image_with_labels(&image(), None).unwrap();
            assert_eq!(found_labels, labels);
            let worst = (&found.image - &expected.image).fold(0f32, |m, d| m.max(d.abs()));
            assert!(worst < 1e-8 && found.trace == expected.trace, "{reference:?}: {worst:e}");
            assert_eq!(preprocessor.image(&image()).unwrap(), found);
        }
    }

    #[test]
    fn the_nonzero_region_is_passed_where_the_plans_ask_for_it() {
        let mut plans = plans(Reference::NnUNetV28);
        plans.channels[0].scheme = Normalization::Own;
        plans.channels[0].use_mask = true;
        let preprocessor =
            Preprocessor::new(&plans).with_normalisation(0, |mut channel, inside| {
                let inside = inside.expect("the plans ask for it");
                assert_eq!(inside.dim(), channel.dim());
                channel.zip_mut_with(&inside, |v, inside| *v = f32::from(u8::from(*inside)));
            });
        let (found, labels) = preprocessor.unwrap().image_with_labels(&image(), None).unwrap();
        assert!(
            found.image.index_axis(ndarray::Axis(0), 0).iter().all(|v| (-0.5..1.5).contains(v))
        );
        assert!(labels.iter().all(|l| [-1, 0].contains(l)));
    }

    #[test]
    fn what_is_not_there_or_not_asked_for_is_refused() {
        let mut plans = plans(Reference::NnUNetV1);
        plans.channels[1].scheme = Normalization::Own;
        let line = preprocess(&image(), &plans).unwrap_err().to_string();
        assert_eq!(
            line,
            "the plans ask for a normalisation of your own for channel 1 (nonCT), found none: give it with \
             Preprocessor::with_normalisation"
        );
        let refused = |channel| {
            let preprocessor = Preprocessor::new(&plans).with_normalisation(channel, |_, _| ());
            preprocessor.err().unwrap().to_string()
        };
        assert!(refused(0).ends_with("Normalization::Own, found RgbToZeroOne"), "{}", refused(0));
        assert!(refused(2).ends_with("found plans of 2 channel(s)"), "{}", refused(2));
    }

    /// What is written says so, and nothing else of the written form has changed.
    #[test]
    fn the_written_form() {
        let schemes = serde_json::json!([
            Normalization::Ct,
            Normalization::CtPerVolume,
            Normalization::ZScore,
            Normalization::None,
            Normalization::RescaleZeroToOne,
            Normalization::RgbToZeroOne,
            Normalization::Own,
        ]);
        let names = r#"["ct","ct-per-volume","z-score","none","rescale-zero-to-one","rgb-to-zero-one","own"]"#;
        assert_eq!(schemes.to_string(), names);
    }
}
