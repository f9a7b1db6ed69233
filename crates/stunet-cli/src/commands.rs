//! One file per subcommand: from its options to calls of the libraries.

pub mod accumulate;
pub mod completions;
pub mod convert;
#[cfg(feature = "demo")]
pub mod demo;
pub mod devices;
pub mod download;
pub mod ensemble;
pub mod evaluate;
pub mod export;
pub mod find_best;
pub mod import;
pub mod info;
pub mod install;
pub mod labelmaps;
pub mod labels;
pub mod man;
pub mod models;
#[cfg(feature = "demo")]
pub mod phantom;
pub mod plan;
pub mod postprocess;
pub mod predict;
pub mod preprocess;
pub mod preview;
pub mod train;
