//! Golden tests: every numeric step held against data recorded from the reference.
//!
//! One module per folder of the golden data, so that a name is a filter:
//! `cargo test --release --test golden preprocess`.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod checkpoints;
mod model;
mod preprocess;
mod sliding_window;
