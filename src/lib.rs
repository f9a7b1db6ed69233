//! STU-Net in pure Rust: scalable 3-D U-Nets for CT segmentation, with nnU-Net's pipeline around
//! them, on [Burn](https://burn.dev).
//!
//! This package is the front door: it re-exports the crates of the house and adds [`device`], the
//! choice of a machine to compute on. A tour from the ground floor up:
//!
//! * [`data`]: files, geometry, preprocessing and its inverse,
//! * [`kernels`]: the operators of the network,
//! * [`model`]: the network, its weights, and the import of PyTorch checkpoints,
//! * [`infer`]: sliding windows and export in bounded memory,
//! * [`train`]: the loop,
//! * [`device`]: `auto|cpu|cuda[:N]|…` to a Burn device,
//! * [`burn`] and [`ndarray`]: the libraries whose tensors and arrays go in and out.
//!
//! ```
//! use stunet::model::{StuNetConfig, StuNetSize, cost};
//!
//! let network = StuNetConfig::new(StuNetSize::Base, 1, 105);
//! assert_eq!(cost::num_parameters(&network), 58_262_669);
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod device;

/// The tensor library, in the version that everything here is built on.
pub use burn;
/// The array library of [`data`].
pub use ndarray;
#[doc(inline)]
pub use stunet_data as data;
#[doc(inline)]
pub use stunet_infer as infer;
#[doc(inline)]
pub use stunet_kernels as kernels;
#[doc(inline)]
pub use stunet_model as model;
#[doc(inline)]
pub use stunet_train as train;
