//! What the tests of `stunet` share: the golden data, seeded weights, and comparisons with bounds.
//!
//! Never published; only dev-dependencies may name it.
//!
//! * [`harness`] runs tests that may lack what they need, and says so,
//! * [`oracle`] finds the golden data, reads it and makes tests of its cases,
//! * [`prng`] makes the seeded weights, inputs and labels the golden data were recorded with,
//! * [`compare`] holds two arrays against each other by peak and by RMSE,
//! * [`nifti_bytes`] and [`dicom_bytes`] write files byte by byte, wrong ones too.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]
#![allow(clippy::print_stderr, clippy::print_stdout)]

pub mod compare;
pub mod dicom_bytes;
pub mod harness;
pub mod nifti_bytes;
pub mod oracle;
pub mod prng;
