//! Golden tests: every numeric step held against data recorded from the reference.
//!
//! One module per folder of the golden data, so that a name is a filter:
//! `cargo test --release --test golden preprocess`.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod checkpoints;
mod evaluate;
mod export;
mod model;
mod preprocess;
mod sliding_window;
mod splits;

/// The device under test: the processor unless `STUNET_TEST_DEVICE` names another.
fn device() -> burn::tensor::Device {
    let name = std::env::var("STUNET_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    stunet::device::parse(&name).unwrap()
}
