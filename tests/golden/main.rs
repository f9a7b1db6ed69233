//! Golden tests: every numeric step held against data recorded from the reference.
//!
//! One module per folder of the golden data, so that a name is a filter:
//! `cargo test --release --test golden preprocess`.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

mod augment;
mod checkpoints;
mod evaluate;
mod export;
mod loss;
mod model;
mod plan;
mod preprocess;
mod sliding_window;
mod splits;
mod trajectory;

/// The device under test: the processor unless `STUNET_TEST_DEVICE` names another.
fn device() -> burn::tensor::Device {
    let name = std::env::var("STUNET_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    stunet::device::parse(&name).unwrap()
}
