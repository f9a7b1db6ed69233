//! Medical volumes for STU-Net: files, geometry, and nnU-Net's preprocessing with its inverse.
//!
//! The lowest layer of the workspace. It has no tensors and no networks, only arrays `[C, Z, Y, X]` and
//! spacings `[z, y, x]` in mm.
//!
//! 1. [`nifti`] reads an [`image::Image`]: voxels on a [`geometry::Geometry`].
//! 2. [`plans::Plans`] describe the input of a model; [`dataset`] and [`labels::LabelSet`] say
//!    which files make a case and what label values mean.
//! 3. [`preprocess::preprocess`] crops, transposes, resamples and normalises, in the order of the
//!    implementation the model was trained with, and returns a [`preprocess::Trace`].
//! 4. The trace takes labels back to the file's grid, and [`nifti::write_labelmap`] writes them
//!    with exactly the geometry of the input.
//! 5. For training, [`store`] keeps preprocessed cases on disk and maps them into memory.
//!
//! Before training, a [`dataset::RawDataset`] is checked, measured into a
//! [`fingerprint::Fingerprint`], and [`planner::plan`] makes plans of it by nnU-Net's own rules;
//! [`splits`] are its folds.
//!
//! After it, [`metrics`] says how well labelmaps agree with their references.
//!
//! ```no_run
//! use stunet_data::{nifti, plans::Plans, preprocess::preprocess};
//! let image = nifti::read_image(&["ct_0000.nii.gz"])?;
//! let prepared = preprocess(&image, &Plans::totalsegmentator())?;
//! println!("the network sees {:?}", prepared.image.shape());
//! # Ok::<(), stunet_data::DataError>(())
//! ```
//!
//! Results never depend on the number of threads.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod array_file;
pub mod augment;
pub mod cleanup;
pub mod compare;
pub mod components;
pub mod dataset;
#[cfg(feature = "dicom")]
pub mod dicom;
pub mod error;
pub mod files;
pub mod fingerprint;
pub mod formats;
pub mod geometry;
mod gzip;
pub mod image;
pub mod labels;
pub mod loader;
pub mod mapping;
mod metaimage;
pub mod metrics;
pub mod nifti;
mod nrrd;
pub mod numpy_random;
pub mod per_class;
pub mod planner;
pub mod plans;
pub mod plausibility;
pub mod preprocess;
pub mod reference;
pub mod sample;
pub mod simd;
pub mod splits;
pub mod statistics;
pub mod store;
mod voxels;
mod zeroed;

pub use error::{DataError, Result};
