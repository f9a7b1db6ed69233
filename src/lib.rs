//! STU-Net in pure Rust: scalable 3-D U-Nets for CT segmentation, with nnU-Net's pipeline around
//! them, on [Burn](https://burn.dev).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod device;
