//! Options of pictures: in `predict`, and of the command `preview`.

use std::path::PathBuf;

use clap::Args;
use stunet::pictures::preview::GreyWindow;

const PICTURES: &str = "Pictures and reports";

/// Examples, below the options.
pub(super) const PREVIEW_HELP: &str = "\
Examples:
  stunet preview -i ct.nii.gz -l labels.nii.gz -o preview.png --names base_ep4k.model
  stunet preview -i mr_0000.nii.gz mr_0001.nii.gz -l labels.nii.gz -o preview.png --channel 1
  stunet preview -i ct.nii.gz -l predicted.nii.gz --truth labels.nii.gz -o preview.png";

/// Examples, below the options.
pub(super) const PICTURES_HELP: &str = "\
Every training case becomes CASE.png: three planes and a projection with the labels of labelsTr over the
image, and without, so that wrong sides, shifted or swapped labels are seen before a training is begun.

Examples:
  stunet pictures nnUNet_raw/Dataset501_Liver -o pictures
  stunet pictures nnUNet_raw/Dataset501_Liver -o pictures_again --report pictures_again.html --window -160,240";

/// What pictures show beside the labels.
#[derive(Clone, Debug, Default, Args)]
pub struct ViewArgs {
    /// Labelmaps that are known to be right, to draw and to compare with: a file, or a folder with a
    /// file of the name of each case
    #[arg(help_heading = PICTURES, long, value_name = "TRUTH")]
    pub truth: Option<PathBuf>,

    /// Intensities that are black and white in pictures: two numbers such as -160,240 (Hounsfield units
    /// in CT), or `ct` for soft tissue, or `percentiles` [default: `ct` for CT, else `percentiles`]
    #[arg(help_heading = PICTURES, long, value_name = "WINDOW", value_parser = window, allow_hyphen_values = true)]
    pub window: Option<WindowArg>,

    /// Channel that pictures show, from 0
    #[arg(help_heading = PICTURES, long, value_name = "N", default_value_t = 0)]
    pub channel: u16,
}

/// Pictures of `predict`.
#[derive(Clone, Debug, Default, Args)]
pub struct PictureArgs {
    /// Also draw every case as CASE_preview.png: three planes and a projection with the labels, and
    /// without
    #[arg(help_heading = PICTURES, long)]
    pub preview: bool,

    /// Also write a page of all cases: pictures, volumes, warnings
    #[arg(help_heading = PICTURES, long, value_name = "REPORT.html")]
    pub report: Option<PathBuf>,

    #[command(flatten)]
    pub view: ViewArgs,
}

/// `stunet preview`.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// The image: one file (NIfTI, MetaImage, NRRD), or the channel files of one case
    #[arg(short, long, value_name = "IN", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,

    /// The labelmap, on the grid of the image
    #[arg(short, long, value_name = "LABELS")]
    pub labels: PathBuf,

    /// The picture to write (.png)
    #[arg(short, long, value_name = "OUT.png")]
    pub output: PathBuf,

    /// Names of the labels: a dataset.json, a labels.json, or a model in any form that
    /// `stunet predict --model` accepts [default: numbers]
    #[arg(long, value_name = "NAMES")]
    pub names: Option<PathBuf>,

    /// Heading of the picture
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    #[command(flatten)]
    pub view: ViewArgs,

    #[command(flatten)]
    pub forgive: super::headers::ForgiveArgs,

    /// Replace an existing file
    #[arg(long)]
    pub overwrite: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet pictures`.
#[derive(Debug, Args)]
pub struct PicturesArgs {
    /// Folder of the raw dataset, or its name or number
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Folder for the pictures
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Also write a page of all cases: pictures, volumes
    #[arg(long, value_name = "REPORT.html")]
    pub report: Option<PathBuf>,

    /// Intensities that are black and white: two numbers such as -160,240 (Hounsfield units in CT), or
    /// `ct` for soft tissue, or `percentiles` [default: `ct` for CT, else `percentiles`]
    #[arg(long, value_name = "WINDOW", value_parser = window, allow_hyphen_values = true)]
    pub window: Option<WindowArg>,

    /// Channel that is shown, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub channel: u16,

    #[command(flatten)]
    pub forgive: super::headers::ForgiveArgs,

    /// Number of cases at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = super::values::at_least_one)]
    pub num_threads: Option<usize>,

    /// Replace existing pictures
    #[arg(long)]
    pub overwrite: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// A window of intensities, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowArg {
    /// Soft tissue in CT.
    Ct,
    /// By the image's own intensities.
    Percentiles,
    /// From black to white.
    Range([i64; 2]),
}

impl ViewArgs {
    /// The window that the options mean.
    pub fn window(&self) -> GreyWindow {
        WindowArg::shown(self.window)
    }
}

impl WindowArg {
    /// The window that an option means; without one, that of the image.
    pub fn shown(given: Option<Self>) -> GreyWindow {
        match given {
            None => GreyWindow::Auto,
            Some(Self::Ct) => GreyWindow::Ct,
            Some(Self::Percentiles) => GreyWindow::Percentiles,
            Some(Self::Range(ends)) => {
                GreyWindow::Range(ends.map(|thousandths| thousandths as f32 / 1000.0))
            }
        }
    }
}

fn window(text: &str) -> Result<WindowArg, String> {
    let number = |text: &str| {
        let value = text.trim().parse::<f64>().ok()?;
        (value.abs() < 1e12).then_some((value * 1000.0).round() as i64)
    };
    let ends = |text: &str| {
        let (low, high) = text.split_once(',')?;
        Some([number(low)?, number(high)?])
    };
    match (text, ends(text)) {
        ("ct", _) => Ok(WindowArg::Ct),
        ("percentiles", _) => Ok(WindowArg::Percentiles),
        (_, Some([low, high])) if low < high => Ok(WindowArg::Range([low, high])),
        _ => Err("expected two numbers such as -160,240, the lower one first, `ct` or \
                  `percentiles`"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let check = |text: &str, expected: Option<WindowArg>| {
            assert_eq!(window(text).ok(), expected, "{text}");
        };
        check("ct", Some(WindowArg::Ct));
        check("-160,240", Some(WindowArg::Range([-160_000, 240_000])));
        check("0, 0.5", Some(WindowArg::Range([0, 500])));
        for bad in ["", "1", "240,-160", "1,1", "nan,2", "0,inf", "1,2,3", "auto"] {
            check(bad, None);
        }
    }
}
