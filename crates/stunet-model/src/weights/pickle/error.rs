//! What can be wrong with a pickle.

use thiserror::Error;

/// Why a pickle was refused, and at which byte.
#[derive(Debug, Error)]
#[error("pickle, byte {offset}: {problem}")]
#[non_exhaustive]
pub struct PickleError {
    /// Position of the operation that failed, in bytes from the start of the pickle.
    pub offset: u64,
    /// What is wrong there.
    pub problem: PickleProblem,
}

/// What is wrong with a pickle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PickleProblem {
    /// The pickle ends before its STOP.
    #[error("expected {expected}, found the end of the data")]
    Truncated {
        /// What was to be read.
        expected: &'static str,
    },
    /// A name that is not on the allow-list: nothing is ever imported or called.
    #[error(
        "it names `{name}`, which is not on the list of allowed constructors; \
         nothing was executed"
    )]
    ForbiddenGlobal {
        /// The dotted name.
        name: String,
    },
    /// An operation this reader does not know.
    #[error("unknown operation 0x{code:02x}")]
    UnknownOperation {
        /// The operation's byte.
        code: u8,
    },
    /// An operation that checkpoints and plans have no use for.
    #[error("unsupported operation {name}")]
    Unsupported {
        /// The operation's name.
        name: &'static str,
    },
    /// The stack does not hold what an operation needs.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What the operation needs.
        expected: &'static str,
        /// What the stack or the memo holds.
        found: String,
    },
    /// A bound that keeps hostile data from exhausting memory.
    #[error("expected at most {limit} {what}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A list or dict that contains itself has no finite value.
    #[error("a container contains itself")]
    Cycle,
    /// The bytes could not be read.
    #[error("cannot read: {0}")]
    Io(#[from] std::io::Error),
}

impl PickleProblem {
    pub(super) fn at(self, offset: u64) -> PickleError {
        PickleError { offset, problem: self }
    }
}

/// What the machine's steps return before the position is added.
pub(super) type StepResult<T> = Result<T, PickleProblem>;

pub(super) fn unexpected(expected: &'static str, found: impl Into<String>) -> PickleProblem {
    PickleProblem::Unexpected { expected, found: found.into() }
}
