//! One file per subcommand: from its options to calls of the libraries.

pub mod accumulate;
pub mod completions;
pub mod convert;
pub mod devices;
pub mod ensemble;
pub mod evaluate;
pub mod export;
pub mod find_best;
pub mod info;
pub mod labels;
pub mod man;
pub mod plan;
pub mod postprocess;
pub mod predict;
pub mod preprocess;
pub mod train;
