//! The one error type of the crate.

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
}

impl ModelError {
    pub(crate) fn config(
        what: &'static str,
        expected: impl Into<String>,
        found: impl std::fmt::Debug,
    ) -> Self {
        Self::Config { what, expected: expected.into(), found: format!("{found:?}") }
    }
}
