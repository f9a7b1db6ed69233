//! `stunet labels`.

use crate::args::LabelsArgs;

/// Not there yet.
pub fn run(_args: &LabelsArgs) -> anyhow::Result<()> {
    anyhow::bail!("labels: not there yet")
}
