//! One file per subcommand: from its options to calls of the libraries.

pub mod convert;
pub mod devices;
pub mod evaluate;
pub mod export;
pub mod info;
pub mod labels;
pub mod plan;
pub mod predict;
pub mod preprocess;
pub mod train;
