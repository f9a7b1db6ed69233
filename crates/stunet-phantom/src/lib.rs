//! A procedural CT of the torso that can be redistributed, and its true labels.
//!
//! Organs are solids with a distance to their surface (`shape`), placed as in a body
//! (`anatomy`), filled with what tissues show with and without contrast medium (`tissue`), bent and
//! turned (`pose`) and sampled by a scanner (`render`). One seed is one patient at one moment in
//! one scanner; no two seeds agree in anatomy, contrast, pose, field of view, spacing or noise.
//!
//! [`PhantomCase`] is such a scan as image and labelmap, [`write_dataset`] writes many in nnU-Net's
//! layout, and [`demo`] is a small model that was trained on them.
//!
//! ```
//! use stunet_phantom::{STRUCTURES, ScanOptions, scan};
//! let coarse = ScanOptions { in_plane_mm: [7.0, 8.0], slice_mm: [9.0, 10.0], ..Default::default() };
//! let phantom = scan(7, &coarse);
//! assert_eq!(phantom.image.dim(), phantom.labels.dim());
//! assert_eq!(phantom.image, scan(7, &coarse).image);
//! assert!(phantom.labels.iter().all(|&label| usize::from(label) <= STRUCTURES.len()));
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod anatomy;
mod case;
mod dataset;
pub mod demo;
mod noise;
mod point;
mod pose;
mod render;
mod shape;
mod tissue;
mod trunk;

pub use case::{PhantomCase, label_set};
pub use dataset::{DatasetOptions, write_dataset};

use anatomy::Body;
use chacha20::ChaCha8Rng;
use ndarray::{Array3, Axis};
use pose::Pose;
use rand::{RngExt, SeedableRng};
use render::{Scanner, render};

/// The structures by label, first is 1; TotalSegmentator's names where it has one.
pub const STRUCTURES: [&str; 14] = [
    "lung_right",
    "lung_left",
    "heart",
    "liver",
    "spleen",
    "kidney_right",
    "kidney_left",
    "aorta",
    "spine",
    "stomach",
    "urinary_bladder",
    "trachea",
    "pancreas",
    "gallbladder",
];

/// A phantom on its grid.
///
/// # Units
/// Millimetres. Origin and direction as in ITK: components x, y, z of LPS, column `j` of the
/// direction for voxel axis `j` of x, y, z; spacing as the arrays, `[z, y, x]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Phantom {
    /// Whole Hounsfield units between -1024 and 3071, `[z, y, x]`: unless its axes were turned, feet
    /// to head, front to back, right to left.
    pub image: Array3<f32>,
    /// Which structure each voxel belongs to, as an index into [`STRUCTURES`] plus one; 0 is none.
    pub labels: Array3<u16>,
    /// Distance between voxel centres.
    pub spacing_mm: [f64; 3],
    /// Centre of the first voxel.
    pub origin_mm: [f64; 3],
    /// Directions of the voxel axes.
    pub direction: [[f64; 3]; 3],
}

/// How much of the body is in the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyPart {
    /// Shoulders to hips.
    Torso,
    /// Shoulders to upper abdomen.
    Chest,
    /// Lung bases to pelvis; the lower end may be higher.
    Abdomen,
}

impl BodyPart {
    const ALL: [Self; 3] = [Self::Torso, Self::Chest, Self::Abdomen];

    /// Between which heights of the reference body the lower and the upper end lie, in mm.
    const fn ends_mm(self) -> [[f32; 2]; 2] {
        match self {
            Self::Torso => [[-385.0, -345.0], [235.0, 275.0]],
            Self::Chest => [[-120.0, -50.0], [220.0, 280.0]],
            Self::Abdomen => [[-385.0, -230.0], [30.0, 90.0]],
        }
    }
}

/// What a scan is drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanOptions {
    /// How much of the body; drawn when not given.
    pub region: Option<BodyPart>,
    /// Least and most spacing within a slice, mm.
    pub in_plane_mm: [f64; 2],
    /// Least and most spacing of slices, mm.
    pub slice_mm: [f64; 2],
    /// Store the axes in any order and direction, as files do; left and right stay where they are
    /// in the world.
    pub turn_axes: bool,
}

impl Default for ScanOptions {
    /// Voxels of 1.4 to 2.4 mm in slices of 1.5 to 5 mm: one to eight million of them.
    fn default() -> Self {
        Self { region: None, in_plane_mm: [1.4, 2.4], slice_mm: [1.5, 5.0], turn_axes: false }
    }
}

/// The scan of one seed.
///
/// Contents are drawn before the grid: the same seed is the same patient under all options.
///
/// # Panics
/// When a spacing is not positive.
#[must_use]
pub fn scan(seed: u64, options: &ScanOptions) -> Phantom {
    let [lowest, highest] = [options.in_plane_mm, options.slice_mm].map(|[low, high]| {
        assert!(low > 0.0 && high >= low, "a spacing of {low} to {high} mm");
        [low, high]
    });
    let mut patient = Patient::draw(seed);
    let rng = &mut patient.rng;
    let region = BodyPart::ALL[rng.random_range(0..3)];
    let region = options.region.unwrap_or(region);
    let in_plane = lowest[0] + (lowest[1] - lowest[0]) * rng.random::<f64>();
    let slice = highest[0] + (highest[1] - highest[0]) * rng.random::<f64>();
    let ends = region.ends_mm().map(|[low, high]| rng.random_range(low..high));
    // Hundredths of a millimetre, as scanners state them.
    let spacing = [slice, in_plane, in_plane].map(|mm| (mm * 100.0).round().max(1.0) / 100.0);
    let extent = patient.extent(ends);
    let shape = std::array::from_fn(|i| (extent[i] / spacing[i] as f32).ceil() as usize);
    let order = if options.turn_axes { Some(patient.rng.random_range(0..48)) } else { None };
    let phantom = patient.scanned(shape, spacing, ends);
    match order {
        Some(order) => phantom.turned(order),
        None => phantom,
    }
}

/// A whole torso of `shape` voxels, `[z, y, x]`, whatever spacing that takes.
///
/// ```
/// let torso = stunet_phantom::torso([24, 32, 40], 7);
/// assert_eq!(torso.image.dim(), (24, 32, 40));
/// assert_eq!(torso.image, stunet_phantom::torso([24, 32, 40], 7).image);
/// ```
///
/// # Panics
/// When a length is 0.
#[must_use]
pub fn torso(shape: [usize; 3], seed: u64) -> Phantom {
    assert!(!shape.contains(&0), "a torso of no voxels");
    let mut patient = Patient::draw(seed);
    let ends = [-375.0, 265.0];
    let extent = patient.extent(ends);
    let spacing = std::array::from_fn(|i| f64::from(extent[i]) / shape[i] as f64);
    patient.scanned(shape, spacing, ends)
}

/// Everything but the grid.
struct Patient {
    rng: ChaCha8Rng,
    body: Body,
    pose: Pose,
}

impl Patient {
    fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let body = Body::draw(&mut rng);
        let pose = Pose::draw(&mut rng);
        Self { rng, body, pose }
    }

    /// Millimetres the field of view is long, from one end in the reference body to the other.
    fn extent(&mut self, ends: [f32; 2]) -> [f32; 3] {
        let fat = 1.2 * self.body.trunk.fat_mm;
        let [scale_z, scale_y, scale_x] = self.pose.scale;
        let margin = [self.rng.random_range(1.0f32..1.15), self.rng.random_range(1.04f32..1.18)];
        [
            (ends[1] - ends[0]) * scale_z,
            2.0 * (136.0 + fat) * scale_y * margin[0],
            2.0 * (172.0 + fat) * scale_x * margin[1],
        ]
    }

    fn scanned(mut self, shape: [usize; 3], spacing_mm: [f64; 3], ends: [f32; 2]) -> Phantom {
        let spacing = spacing_mm.map(|mm| mm as f32);
        let [scale_z, scale_y, scale_x] = self.pose.scale;
        let mut shift = || self.rng.random_range(-6.0f32..6.0);
        let middle = [0.5 * (ends[0] + ends[1]) * scale_z, 22.0 * scale_y + shift(), shift()];
        let origin: [f32; 3] =
            std::array::from_fn(|i| middle[i] - 0.5 * spacing[i] * (shape[i] - 1) as f32);
        let wide = 0.5 * spacing[2] * shape[2] as f32;
        let rng = &mut self.rng;
        let circle = rng.random_bool(0.3).then_some(wide.max(205.0 * scale_x));
        let scanner = Scanner {
            shape,
            spacing_mm: spacing,
            origin_mm: origin,
            noise_hounsfield: rng.random_range(6.0..20.0),
            noise_blur: rng.random_range(0.15..0.5),
            seed: rng.random(),
            table_mm: self.body.trunk.back() * scale_y + rng.random_range(0.0..6.0),
            circle_mm: circle,
        };
        let (image, labels) = render(&self.body, &self.pose, &scanner);
        let [z, y, x] = origin.map(f64::from);
        let direction = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        Phantom { image, labels, spacing_mm, origin_mm: [x, y, z], direction }
    }
}

impl Phantom {
    /// The same scan with labels 1, 2, ... for the given structures only.
    ///
    /// # Panics
    /// When a name is not one of [`STRUCTURES`].
    #[must_use]
    pub fn with_structures(mut self, names: &[&str]) -> Self {
        let mut table = vec![0u16; STRUCTURES.len() + 1];
        for (index, name) in names.iter().enumerate() {
            let known = STRUCTURES.iter().position(|structure| structure == name);
            table[known.unwrap_or_else(|| panic!("no structure {name}")) + 1] = index as u16 + 1;
        }
        self.labels.mapv_inplace(|label| table[usize::from(label)]);
        self
    }

    /// The same scan with its axes stored in the `order`-th of 48 ways.
    fn turned(mut self, order: usize) -> Self {
        const ORDERS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let axes = ORDERS[order % 6];
        let flipped: [bool; 3] = std::array::from_fn(|i| ((order / 6) >> i) & 1 == 1);
        let (lengths, spacing) = (self.image.shape().to_vec(), self.spacing_mm);
        let mut direction = [[0.0; 3]; 3];
        for (to, from) in axes.into_iter().enumerate() {
            // Array axis `a` is voxel axis `2 - a`, and so is the world's component.
            direction[2 - from][2 - to] = if flipped[from] { -1.0 } else { 1.0 };
            if flipped[from] {
                self.origin_mm[2 - from] += spacing[from] * (lengths[from] - 1) as f64;
                self.image.invert_axis(Axis(from));
                self.labels.invert_axis(Axis(from));
            }
        }
        self.image = self.image.permuted_axes(axes).as_standard_layout().into_owned();
        self.labels = self.labels.permuted_axes(axes).as_standard_layout().into_owned();
        self.spacing_mm = axes.map(|from| spacing[from]);
        self.direction = direction;
        self
    }
}

#[cfg(test)]
mod tests;
