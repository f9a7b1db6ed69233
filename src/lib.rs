//! STU-Net in pure Rust: scalable 3-D U-Nets for CT segmentation, with nnU-Net's pipeline around
//! them, on [Burn](https://burn.dev).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod device;

pub use stunet_data as data;
pub use stunet_infer as infer;
pub use stunet_kernels as kernels;
pub use stunet_model as model;
pub use stunet_train as train;
