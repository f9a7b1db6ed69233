//! How well two labelmaps agree: counts of voxels, distances between surfaces, lesions, and what can be
//! said of many cases.
//!
//! Numbers only: no network, no files. `stunet_infer::evaluate` reads folders and writes results.
//!
//! * [`Contingency`] counts in one pass how often which label meets which; [`Counts`] of each [`Class`]
//!   follow from it, and Dice, IoU and the others from them,
//! * [`LabelPair`] cuts a class out of both labelmaps as a [`MaskPair`]; [`SurfaceScores`] measures how
//!   far its surfaces are apart, [`LesionCounts`] which of its connected parts were found,
//! * [`Bootstrap`] says how sure a mean over cases is, [`SignedRank`] whether two models differ.
//!
//! ```
//! use stunet_data::geometry::Geometry;
//! use stunet_data::labels::LabelMap;
//! use stunet_data::metrics::{Class, Contingency, LabelPair, SurfaceRules, SurfaceScores};
//! # use ndarray::Array3;
//! let grid = Geometry::axis_aligned([4, 5, 6], [3.0, 1.0, 0.5])?;
//! let block = |x| Array3::from_shape_fn((4, 5, 6), |at| u16::from(at.2 >= x));
//! let reference = LabelMap::new(block(2), grid.clone())?;
//! let prediction = LabelMap::new(block(3), grid.clone())?;
//! let class = Class::Label(1);
//! let counts = Contingency::of(reference.data.view(), prediction.data.view()).counts(&class, None);
//! let masks = LabelPair::new(&reference, &prediction, None).masks(&class);
//! let scores = SurfaceScores::of(&masks, grid.spacing_mm(), false, &SurfaceRules::default());
//! assert_eq!((counts.dice(), scores.hausdorff_mm), (6.0 / 7.0, 0.5));
//! # Ok::<(), stunet_data::DataError>(())
//! ```
//!
//! Nothing here depends on the number of threads.

mod class;
mod counts;
mod distance;
mod lesions;
mod masks;
pub mod numpy;
mod statistics;
mod surface;
mod surfels;

pub use class::Class;
pub use counts::{Contingency, Counts};
pub use lesions::{LesionCounts, LesionRules};
pub use masks::{LabelPair, MaskPair};
pub use statistics::{Bootstrap, Draws, Interval, SignedRank, holm, mean_of};
pub use surface::{SurfaceDefinition, SurfaceRules, SurfaceScores};
