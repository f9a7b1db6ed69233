//! `stunet predict`.

use crate::args::PredictArgs;

/// Not there yet.
pub fn run(_args: PredictArgs) -> anyhow::Result<()> {
    anyhow::bail!("predict: not there yet")
}
