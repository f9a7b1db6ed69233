//! Golden tests: every numeric step held against data recorded from the reference.
//!
//! One module per folder of the golden data, so that a name is a filter:
//! `cargo test --release --test golden preprocess`. Each recorded case is a test of its own. Those in
//! `MODULE::public::` run on the data that comes with the repository (`tests/golden-public`), the
//! others on the private part, and are ignored without it: see `stunet_testing::oracle`.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

mod augment;
mod checkpoints;
mod evaluate;
mod export;
mod loss;
mod model;
mod plan;
mod preprocess;
mod repository;
mod sliding_window;
mod splits;
mod trajectory;

/// The device under test: the processor unless `STUNET_TEST_DEVICE` names another.
fn device() -> burn::tensor::Device {
    chosen().unwrap()
}

fn chosen() -> Result<burn::tensor::Device, stunet::device::DeviceError> {
    let name = std::env::var("STUNET_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    stunet::device::parse(&name)
}

pub fn main() -> std::process::ExitCode {
    // Once, and not as the failure of every test.
    if let Err(error) = chosen() {
        eprintln!("{error}");
        return std::process::ExitCode::FAILURE;
    }
    let mut golden = stunet_testing::oracle::Golden::new();
    augment::tests(&mut golden);
    checkpoints::tests(&mut golden);
    evaluate::tests(&mut golden);
    export::tests(&mut golden);
    loss::tests(&mut golden);
    model::tests(&mut golden);
    plan::tests(&mut golden);
    preprocess::tests(&mut golden);
    sliding_window::tests(&mut golden);
    splits::tests(&mut golden);
    trajectory::tests(&mut golden);
    repository::tests(&mut golden);
    golden.tests.run()
}
