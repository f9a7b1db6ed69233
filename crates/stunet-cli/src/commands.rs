//! One file per subcommand: what its arguments mean, and the calls that do it.

pub mod convert;
pub mod devices;
pub mod export;
pub mod info;
pub mod labels;
pub mod predict;
pub mod train;
