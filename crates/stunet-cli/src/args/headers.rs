//! Options on headers: which of a place's series is meant, and what is forgiven.

use clap::{Args, ValueEnum};
use stunet::data::geometry::Leniency;

/// What of headers is forgiven: `plan`, `preprocess` and `evaluate`.
#[derive(Clone, Debug, Default, Args)]
pub struct ForgiveArgs {
    /// Accept channels and labels whose voxels lie up to LENGTH from those of the first file of their
    /// case, such as 0.3mm [default: a hundredth of a voxel]
    #[arg(long, value_name = "LENGTH", value_parser = millimetres)]
    pub geometry_tolerance: Option<f64>,

    /// Accept what is otherwise rejected
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub allow: Vec<AllowArg>,
}

/// What may be accepted of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AllowArg {
    /// Axes that are not at right angles: the closest ones that are replace them
    Sheared,
}

/// Heading of the options on how scans are read.
pub(super) const READING: &str = "How scans are read";

/// What of headers is forgiven, and which series is meant: `predict`.
#[derive(Clone, Debug, Default, Args)]
pub struct ScanArgs {
    /// The DICOM series to predict: its number, its UID, or `all` [default: the only one]
    #[arg(help_heading = READING, long, value_name = "SERIES")]
    pub series: Option<String>,

    /// Every file is a case of its own, whatever its name
    #[arg(help_heading = READING, long)]
    pub each_file_is_a_case: bool,

    /// Accept channels whose voxels lie up to LENGTH from those of the first, such as 0.3mm [default:
    /// a hundredth of a voxel]
    #[arg(help_heading = READING, long, value_name = "LENGTH", value_parser = millimetres)]
    pub geometry_tolerance: Option<f64>,

    /// Accept what is otherwise rejected
    #[arg(help_heading = READING, long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub allow: Vec<AllowScanArg>,
}

/// What may be accepted of scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AllowScanArg {
    /// Axes that are not at right angles: the closest ones that are replace them
    Sheared,
    /// DICOM slices at uneven distances, or one missing: interpolated to the median distance
    Uneven,
}

impl ForgiveArgs {
    /// What the options mean.
    pub fn leniency(&self) -> Leniency {
        Leniency {
            tolerance_mm: self.geometry_tolerance,
            sheared: self.allow.contains(&AllowArg::Sheared),
        }
    }
}

impl ScanArgs {
    /// What the options mean.
    pub fn leniency(&self) -> Leniency {
        Leniency {
            tolerance_mm: self.geometry_tolerance,
            sheared: self.allow.contains(&AllowScanArg::Sheared),
        }
    }

    /// Whether slices may be interpolated.
    pub fn uneven(&self) -> bool {
        self.allow.contains(&AllowScanArg::Uneven)
    }
}

/// A length with its unit.
pub(super) fn millimetres(text: &str) -> Result<f64, String> {
    let units = [("mm", 1.0), ("cm", 10.0), ("um", 0.001), ("µm", 0.001)];
    let found = units.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let length = found.and_then(|(number, size)| Some(number.trim().parse::<f64>().ok()? * size));
    match length.filter(|length| *length > 0.0 && length.is_finite()) {
        Some(length) => Ok(length),
        None => Err("expected a length above 0 with its unit, such as 0.3mm".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let check = |text: &str, expected: Option<f64>| {
            assert_eq!(millimetres(text).ok(), expected, "{text}");
        };
        check("0.3mm", Some(0.3));
        check("0.3 mm", Some(0.3));
        check("0.2cm", Some(2.0));
        check("500um", Some(0.5));
        for bad in ["0.3", "mm", "0mm", "-1mm", "nanmm", "infmm", "0.3m", ""] {
            check(bad, None);
        }
    }
}
