//! Options on the axes of scans.

use clap::Args;
use stunet::data::geometry::Orientation;
use stunet::data::plans::OrientationChoice;

use super::headers::READING;

/// How the axes of a scan are turned before a model sees it: `predict`.
#[derive(Clone, Debug, Default, Args)]
pub struct OrientationArgs {
    /// How the axes of a scan are turned for the network. `auto`: as those of the training images ran,
    /// where the model says it; `as-is`: not at all, as nnU-Net does; letters such as RAS or LPS: to
    /// these, for a model that does not say it. Outputs are on the grid of the scan in any case
    #[arg(help_heading = READING, long, value_name = "AXES", default_value = "auto", value_parser = choice)]
    pub orientation: OrientationChoice,
}

fn choice(text: &str) -> Result<OrientationChoice, String> {
    text.parse().map_err(|_| "expected auto, as-is, or three letters such as RAS or LPS".to_owned())
}

/// Three letters.
pub(super) fn letters(text: &str) -> Result<Orientation, String> {
    let expected = "expected three letters, one each of R or L, A or P, S or I, such as RAS";
    text.parse().map_err(|_| expected.to_owned())
}
