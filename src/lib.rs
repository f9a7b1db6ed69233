//! STU-Net in pure Rust: scalable 3-D U-Nets for CT segmentation, with nnU-Net's pipeline around
//! them, on [Burn](https://burn.dev).
//!
//! This package re-exports the crates of the workspace and adds [`device`], the choice of a device to
//! compute on, and [`mod@verify`], its check. From the lowest layer up:
//!
//! * [`data`]: NIfTI files, geometry, plans, preprocessing and its inverse, augmentation,
//! * [`kernels`]: the 3-D operators of the network,
//! * [`model`]: the network, its weights, and the import of PyTorch checkpoints,
//! * [`infer`]: sliding-window prediction and export in bounded memory, evaluation,
//! * [`pictures`]: previews of segmented volumes, charts, HTML pages,
//! * [`train`]: losses, optimiser, training loop, checkpoints,
//! * [`device`]: from `auto|cpu|cuda[:N]|…` to a Burn device,
//! * [`mod@verify`]: whether a device computes what is meant; [`verdict`]: what was found, kept,
//! * [`burn`] and [`ndarray`]: the libraries of the tensors and arrays in this interface.
//!
//! ```
//! use stunet::model::{StuNetConfig, StuNetSize, cost};
//!
//! let network = StuNetConfig::new(StuNetSize::Base, 1, 105);
//! assert_eq!(cost::num_parameters(&network), 58_262_669);
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod device;
pub mod verdict;
pub mod verify;

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
pub use stunet_pictures as pictures;
#[doc(inline)]
pub use stunet_train as train;

/// The Rust blocks of README and book compile.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/how-to/library.md")]
    struct Library;
    #[doc = include_str!("../docs/how-to/memory-wasm.md")]
    struct Memory;
}
