//! The one error type of the crate.

use crate::weights::LoadReport;
use crate::weights::pickle::PickleError;
use std::path::{Path, PathBuf};

/// What can go wrong with a configuration, a parameter or a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration that describes no network.
    #[error("network configuration: {what}: expected {expected}, found {found}")]
    Config {
        /// The field.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A parameter of another shape than the network has.
    #[error("parameter {name}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The parameter's name.
        name: String,
        /// The network's shape.
        expected: Vec<usize>,
        /// The source's shape.
        found: Vec<usize>,
    },
    /// A pickle that is malformed or names something that is not allowed.
    #[error("{problem}: {}", path.display())]
    Pickle {
        /// What is wrong, and where in the pickle.
        problem: PickleError,
        /// The file.
        path: PathBuf,
    },
    /// A file that is no checkpoint or model folder, or a broken one.
    #[error("expected {expected}, found {found}: {}", path.display())]
    Checkpoint {
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint that does not fit the network.
    #[error("the checkpoint does not fit the network: {report}: {}", path.display())]
    Load {
        /// What was applied, and what not.
        report: Box<LoadReport>,
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be opened, read or written.
    #[error("cannot {action}: {problem}: {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        problem: std::io::Error,
        /// The file.
        path: PathBuf,
    },
}

impl ModelError {
    pub(crate) fn config(
        what: &'static str,
        expected: impl Into<String>,
        found: impl std::fmt::Debug,
    ) -> Self {
        Self::Config { what, expected: expected.into(), found: format!("{found:?}") }
    }

    pub(crate) fn pickle(path: &Path, problem: PickleError) -> Self {
        Self::Pickle { problem, path: path.to_owned() }
    }

    pub(crate) fn checkpoint(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Checkpoint { expected: expected.into(), found: found.into(), path: path.to_owned() }
    }

    pub(crate) fn io(action: &'static str, path: &Path, problem: std::io::Error) -> Self {
        Self::Io { action, problem, path: path.to_owned() }
    }
}
