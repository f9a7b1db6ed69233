//! Pickles read as data, never run.
//!
//! nnU-Net v1 keeps its plans in pickles, and every PyTorch checkpoint holds one. A pickle is a
//! program for a small stack machine that may import and call anything; this reader knows the
//! machine's operations (protocols 0 to 5) but a fixed list of constructors only, and each of
//! those builds plain data. Any other name is an error that states the name and where it stands.
//!
//! Hostile input is answered by an error, too: operations are bounded in size, number, depth and
//! in what they copy, so that neither memory nor time runs away. What sharing spreads out to, and
//! what is copied, is held in proportion to the bytes of the pickle, so that a short one stays
//! small; a value that was read can be walked, written and turned into JSON without further care.
//!
//! ```
//! use stunet_model::weights::pickle;
//! // {"spacing": (1.5, 2)}, as Python writes it with protocol 2
//! let bytes = b"\x80\x02}q\0X\x07\0\0\0spacingq\x01G?\xf8\0\0\0\0\0\0K\x02\x86q\x02s.";
//! let value = pickle::read(bytes)?;
//! assert_eq!(value.to_json(), serde_json::json!({ "spacing": [1.5, 2] }));
//!
//! let hostile = b"cos\nsystem\n(S'echo gone'\ntR.";
//! assert!(pickle::read(hostile).unwrap_err().to_string().contains("os.system"));
//! # Ok::<(), stunet_model::weights::pickle::PickleError>(())
//! ```

mod constructors;
mod encode;
mod error;
mod globals;
mod input;
mod machine;
mod node;
mod numpy;
mod objects;
mod text;
mod value;

#[cfg(test)]
mod tests;

pub use encode::{write, write_with_functions};
pub use error::{PickleError, PickleProblem};
pub use value::{Array, Dict, Elements, Value};

use super::source::Source;
use crate::ModelError;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Longest pickle. Those of checkpoints with tens of thousands of logged values stay below 10 MB.
const MAX_BYTES: u64 = 1 << 27;
/// Most objects on the machine.
const MAX_NODES: usize = 1 << 24;
/// Most bytes that operations copy out of other objects, whatever the pickle's length.
const MAX_DERIVED: u64 = 1 << 28;
/// Bytes that operations may copy for every byte of the pickle, and in any case.
const DERIVED: (u64, u64) = (64, 1 << 24);
/// Most values once sharing is spread out, whatever the pickle's length. nnU-Net's properties of a case
/// have 50,000 for every class and more.
const MAX_VALUES: u64 = 1 << 24;
/// Values for every byte of the pickle, and in any case. A byte can name one object at the most;
/// plans and checkpoints share little.
const VALUES: (u64, u64) = (4, 1 << 17);
/// Deepest nesting.
const MAX_DEPTH: u32 = 100;

/// A bound that grows with the pickle's length up to `most`.
fn in_proportion((per_byte, least): (u64, u64), most: u64, length: u64) -> u64 {
    length.saturating_mul(per_byte).saturating_add(least).min(most)
}

/// Reads a pickle that stands alone.
///
/// # Errors
/// When the pickle is malformed, names anything that is not on the allow-list, is beyond the
/// bounds, or is followed by other bytes.
pub fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    let mut rest = bytes;
    let (value, length) = machine::run(&mut rest, false)?;
    if !rest.is_empty() {
        return Err(error::unexpected("the end of the data", "more bytes").at(length));
    }
    Ok(value)
}

/// Reads a pickle file, such as nnU-Net v1's `plans.pkl` or `*.model.pkl`.
///
/// # Errors
/// As [`read`], and when the file cannot be read.
pub fn read_file(path: &Path) -> Result<Value, ModelError> {
    let source = Source::open(path, "a pickle")?;
    let length = source.length().map_err(|e| ModelError::io("read", path, e))?;
    let mut reader = BufReader::new(source.part(0, length));
    let (value, length) =
        machine::run(&mut reader, false).map_err(|e| ModelError::pickle(path, e))?;
    match reader.fill_buf() {
        Ok([]) => Ok(value),
        Ok(_) => {
            let problem = error::unexpected("the end of the file", "more bytes");
            Err(ModelError::pickle(path, problem.at(length)))
        }
        Err(e) => Err(ModelError::io("read", path, e)),
    }
}

/// As [`read_file`], of a file that is in memory; errors name `path`.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8], path: &Path) -> Result<Value, ModelError> {
    read(bytes).map_err(|e| ModelError::pickle(path, e))
}

/// Reads one pickle of a torch file, in which persistent ids name storages; returns its length,
/// too, since others may follow.
pub(super) fn read_torch(input: &mut dyn BufRead) -> Result<(Value, u64), PickleError> {
    machine::run(input, true)
}
