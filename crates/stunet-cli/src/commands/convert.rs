//! `stunet convert`.

use crate::args::ConvertArgs;

/// Not there yet.
pub fn run(_args: &ConvertArgs) -> anyhow::Result<()> {
    anyhow::bail!("convert: not there yet")
}
