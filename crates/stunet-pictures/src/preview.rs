//! A labelled volume as one picture: to see at a glance whether a segmentation is good.
//!
//! Volumes of any orientation are shown in the patient's axes, by the nearest turn at right angles, and
//! as radiologists look at them: from the feet and from the front, so that the patient's right is on
//! the left of the picture. Millimetres are as long along all axes of all panels.
//!
//! ```
//! use std::collections::BTreeMap;
//! use ndarray::{Array3, Array4};
//! use stunet_data::{geometry::Geometry, image::Image, labels::LabelMap};
//! use stunet_pictures::preview::{PreviewOptions, Scene, SceneOptions};
//!
//! let geometry = Geometry::axis_aligned([16, 24, 24], [4.0, 3.0, 3.0])?;
//! let image = Image::new(Array4::from_elem((1, 16, 24, 24), 40.0), geometry.clone())?;
//! let labels = Array3::from_shape_fn((16, 24, 24), |(z, y, _)| u16::from(z > 4 && y > 9));
//! let labels = LabelMap::new(labels, geometry)?;
//! let names = BTreeMap::from([(1, "liver".to_owned())]);
//! let scene = Scene::new(&image, &labels, &names, &SceneOptions::default())?;
//! assert_eq!(scene.found()[0].name, "liver");
//! let picture = scene.preview(&PreviewOptions::default());
//! assert_eq!(picture.width(), 1200);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod axes;
mod grey;
mod layout;
mod legend;
mod overlap;
mod plane;
mod projection;
mod sheet;
mod survey;

pub use axes::PatientAxis;
pub use grey::{GreyWindow, ScanView};
pub use sheet::PreviewOptions;

use crate::canvas::{Canvas, Colour};
use crate::error::PictureError;
use crate::palette::colour_of;
use axes::PatientGrid;
use grey::{Grey, GreyView};
use ndarray::Array2;
use overlap::dice_by_label;
use plane::Layers;
use std::collections::BTreeMap;
use stunet_data::geometry::Geometry;
use stunet_data::labels::{CompactLabelMap, LabelMap};
use survey::LabelView;

/// Labels that are drawn: a [`CompactLabelMap`] or a [`LabelMap`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct LabelsView<'a> {
    voxels: LabelView<'a>,
    geometry: &'a Geometry,
}

impl<'a> From<&'a CompactLabelMap> for LabelsView<'a> {
    fn from(labels: &'a CompactLabelMap) -> Self {
        Self { voxels: LabelView::of(&labels.voxels), geometry: &labels.geometry }
    }
}

impl<'a> From<&'a LabelMap> for LabelsView<'a> {
    fn from(labels: &'a LabelMap) -> Self {
        Self { voxels: LabelView::Words(labels.data.view()), geometry: &labels.geometry }
    }
}

/// What of a volume is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct SceneOptions<'a> {
    /// Which intensities are black and which white.
    pub window: GreyWindow,
    /// Which channel is shown.
    pub channel: usize,
    /// Labels that are known to be right: they are drawn as well, and Dice is computed.
    pub truth: Option<LabelsView<'a>>,
}

/// A label of the volume or of its truth.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundLabel {
    /// Its value.
    pub value: u16,
    /// Its name, or `label` and its value.
    pub name: String,
    /// Whether a name was given for it.
    pub named: bool,
    /// Its colour in the picture.
    pub colour: Colour,
    /// Voxels that have it.
    pub voxels: u64,
    /// Their volume in millilitres.
    pub volume_ml: f64,
    /// Agreement with the truth, where one was given.
    pub dice: Option<f64>,
}

/// A labelled volume that was looked through: which labels there are, and where they show best.
///
/// The voxels are borrowed, and read in the type they are stored in.
#[derive(Debug)]
pub struct Scene<'a> {
    grid: PatientGrid,
    num_channels: usize,
    channel: usize,
    voxels: GreyView<'a>,
    grey: Grey,
    window: String,
    labels: LabelView<'a>,
    truth: Option<LabelView<'a>>,
    /// Index of the plane across each of the patient's axes.
    planes: [usize; 3],
    /// First voxel and number of voxels that are shown along each.
    shown: [[usize; 2]; 3],
    /// Mean from the front to the back.
    front: Array2<f32>,
    /// Colours by value.
    colours: Vec<Colour>,
    found: Vec<FoundLabel>,
}

impl<'a> Scene<'a> {
    /// Looks through a volume and its labels; labels without a name are called `label 7`.
    ///
    /// # Errors
    /// When labels or truth lie on another grid than the image, or it does not have the channel.
    pub fn new(
        image: impl Into<ScanView<'a>>,
        labels: impl Into<LabelsView<'a>>,
        names: &BTreeMap<u16, String>,
        options: &SceneOptions<'a>,
    ) -> Result<Self, PictureError> {
        let (image, labels) = (image.into(), labels.into());
        let num_channels = image.num_channels();
        if options.channel >= num_channels {
            let (count, found) = (num_channels, options.channel);
            return Err(PictureError::NoSuchChannel { count, found });
        }
        let grid = PatientGrid::of(image.geometry);
        let seen = |labels: LabelsView<'a>, what| {
            let own = PatientGrid::of(labels.geometry);
            let differs = |source| PictureError::OtherGrid { what, source };
            grid.check_same(&own).map_err(differs)?;
            let turned = labels.voxels.map(|v| own.turned(v), |v| own.turned(v));
            Ok::<_, PictureError>(turned)
        };
        let view = seen(labels, "labels")?;
        let truth = options.truth.map(|truth| seen(truth, "truth")).transpose()?;
        let voxels = image.channel(options.channel);
        let voxels = voxels.map(|v| grid.turned(v), |v| grid.turned(v));
        let (grey, window) = voxels.window(options.window);
        let profile = voxels.profile(grey);
        let sizes = view.sizes();
        let survey = view.survey(&sizes);
        let millilitres = grid.mm.iter().product::<f64>() / 1000.0;
        let dice = truth.map(|truth| dice_by_label(view, truth));
        let found = found(&sizes, dice, names, millilitres);
        let shown = PatientAxis::ALL.map(|axis| {
            let content = content(&profile.content[axis as usize], grid.mm[axis as usize]);
            united(content, survey.extent(axis), grid.shape[axis as usize])
        });
        let middle = |axis: PatientAxis| shown[axis as usize][0] + shown[axis as usize][1] / 2;
        let planes = PatientAxis::ALL.map(|axis| survey.busiest(axis).unwrap_or(middle(axis)));
        let colours = by_value(&found);
        let (labels, front) = (view, profile.front);
        Ok(Self {
            grid,
            num_channels,
            channel: options.channel,
            voxels,
            grey,
            window,
            labels,
            truth,
            planes,
            shown,
            front,
            colours,
            found,
        })
    }

    /// The labels of the volume and of its truth, the most voluminous first.
    pub fn found(&self) -> &[FoundLabel] {
        &self.found
    }

    /// Mean Dice of the labels that have a name, where a truth was given and there are any: what only a
    /// truth of other labels has does not count.
    pub fn mean_dice(&self) -> Option<f64> {
        let named = self.found.iter().filter(|label| label.named);
        let scores: Vec<f64> =
            named.filter_map(|label| label.dice).filter(|dice| dice.is_finite()).collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// The picture: planes with labels (and with those of the truth), planes without, projections from
    /// the front, and a legend; 1200 pixels wide.
    pub fn preview(&self, options: &PreviewOptions) -> Canvas {
        sheet::draw(self, options)
    }

    /// A small picture for a list: axial plane, coronal plane and labels from the front, without text.
    pub fn thumbnail(&self) -> Canvas {
        sheet::thumbnail(self)
    }

    fn layers(&self, labels: Option<LabelView<'a>>) -> Layers<'a, '_> {
        let labels = labels.map(|view| (view, &self.colours[..]));
        Layers { voxels: self.voxels, grey: self.grey, labels }
    }
}

/// Colours of labels by their values.
fn by_value(found: &[FoundLabel]) -> Vec<Colour> {
    let highest = found.iter().map(|label| usize::from(label.value)).max().unwrap_or(0);
    let mut colours = vec![[0; 3]; highest + 1];
    found.iter().for_each(|label| colours[usize::from(label.value)] = label.colour);
    colours
}

fn found(
    sizes: &BTreeMap<u16, u64>,
    dice: Option<BTreeMap<u16, f64>>,
    names: &BTreeMap<u16, String>,
    millilitres: f64,
) -> Vec<FoundLabel> {
    let mut values: Vec<u16> = sizes.keys().copied().collect();
    values.extend(dice.iter().flat_map(BTreeMap::keys));
    values.sort_unstable();
    values.dedup();
    let label = |value: u16| {
        let (name, named) = match names.get(&value) {
            Some(name) => (name.clone(), true),
            // Without any names, all labels count.
            None => (format!("label {value}"), names.is_empty()),
        };
        let voxels = sizes.get(&value).copied().unwrap_or(0);
        let colour = colour_of(&name, value);
        let dice = dice.as_ref().and_then(|dice| dice.get(&value).copied());
        FoundLabel {
            value,
            name,
            named,
            colour,
            voxels,
            volume_ml: voxels as f64 * millilitres,
            dice,
        }
    };
    let mut found: Vec<_> = values.into_iter().map(label).collect();
    found.sort_by_key(|label| (std::cmp::Reverse(label.voxels), label.value));
    found
}

/// Planes from the first to the last that has more than a trace of content, with some millimetres
/// around them.
fn content(voxels: &[u64], mm: f64) -> Option<[usize; 2]> {
    const AROUND_MM: f64 = 8.0;
    let most = voxels.iter().copied().max().filter(|most| *most > 0)?;
    let has = |voxels: &u64| *voxels as f64 > 0.03 * most as f64;
    let (first, last) = (voxels.iter().position(has)?, voxels.iter().rposition(has)?);
    let around = (AROUND_MM / mm).round().min(voxels.len() as f64) as usize;
    Some([first.saturating_sub(around), (last + around).min(voxels.len() - 1)])
}

/// First and number of the planes of both ranges; all where there is neither.
fn united(a: Option<[usize; 2]>, b: Option<[usize; 2]>, planes: usize) -> [usize; 2] {
    let ranges = || a.iter().chain(&b);
    let first = ranges().map(|range| range[0]).min().unwrap_or(0);
    let last = ranges().map(|range| range[1]).max().unwrap_or(planes - 1);
    [first, last + 1 - first]
}

#[cfg(test)]
mod tests;
