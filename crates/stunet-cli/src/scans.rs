//! Where a case is read from: files of volumes, or a DICOM series.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, ensure};
use stunet::data::dataset::{folded, list_cases, list_labelmaps};
use stunet::data::dicom::{self, Found, Series, Source};
use stunet::data::geometry::Geometry;
use stunet::data::image::RawImage;
use stunet::data::nifti::Opener;

use crate::args::PredictArgs;
use crate::forgiven::forgiven;

/// What a case is read from.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// The files of the case.
    #[default]
    Files,
    /// A DICOM series, which lies in the files of the case.
    Dicom(Arc<DicomOrigin>),
}

/// A DICOM series, and how it is read.
#[derive(Debug)]
pub struct DicomOrigin {
    series: Series,
    /// Slices at uneven distances are interpolated.
    uneven: bool,
    /// The file or folder that was named.
    given: PathBuf,
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Files, Self::Files) => true,
            (Self::Dicom(a), Self::Dicom(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Origin {}

/// A scan of DICOM before it has a place for its labels.
pub struct DicomCase {
    /// A name for it, different from the others'.
    pub name: String,
    /// Files of the series.
    pub files: Vec<PathBuf>,
    /// Where it is read from.
    pub origin: Origin,
}

impl Origin {
    /// Reads a scan; the notes say what was made up.
    pub fn read(
        &self,
        files: &[PathBuf],
        opener: Opener,
    ) -> anyhow::Result<(RawImage, Vec<String>)> {
        match self {
            Self::Files => Ok((opener.read_scan(files)?, forgiven(files, opener))),
            Self::Dicom(of) => {
                let scan = of.series.read(of.uneven)?;
                Ok((opener.see(scan.image)?, scan.notes))
            }
        }
    }

    /// Grids and numbers of channels of what will be read, by the headers.
    pub fn grids(
        &self,
        files: &[PathBuf],
        opener: Opener,
    ) -> anyhow::Result<Vec<(Geometry, usize)>> {
        match self {
            Self::Files => files.iter().map(|file| Ok(opener.read_geometry(file)?)).collect(),
            Self::Dicom(of) => {
                let grid = of.series.geometry(of.uneven)?;
                Ok(vec![(opener.see_grid(grid)?, 1)])
            }
        }
    }

    /// What DICOM objects of it say of it; none of other files.
    pub fn source(&self) -> anyhow::Result<Option<Source>> {
        match self {
            Self::Files => Ok(None),
            Self::Dicom(of) => Ok(Some(of.series.source(of.uneven)?)),
        }
    }

    /// Its files, where it is DICOM.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Files => Vec::new(),
            Self::Dicom(of) => of.series.files(),
        }
    }

    /// What was named on the command line for it, where that is not its files.
    pub fn given(&self) -> Option<&Path> {
        match self {
            Self::Files => None,
            Self::Dicom(of) => Some(&of.given),
        }
    }

    /// What tells the series from others in the same files.
    pub fn part(&self) -> Option<String> {
        match self {
            Self::Files => None,
            Self::Dicom(of) => {
                let number = of.series.number().unwrap_or_default();
                Some(format!("{} {number}", of.series.uid()))
            }
        }
    }

    /// One line about the series.
    pub fn line(&self) -> Option<String> {
        match self {
            Self::Files => None,
            Self::Dicom(of) => Some(of.series.line()),
        }
    }
}

/// The series that the inputs mean, where they are DICOM.
pub fn dicom_cases(args: &PredictArgs) -> anyhow::Result<Option<Vec<DicomCase>>> {
    let mut all: Vec<(&PathBuf, Option<Found>)> = Vec::new();
    for input in &args.input {
        all.push((input, found_in(input)?));
    }
    let dicom = all.iter().filter(|(_, found)| found.is_some()).count();
    if dicom == 0 {
        ensure!(
            args.scan.series.is_none(),
            "--series: expected DICOM (a folder, a zip archive, a file), found none: {}",
            args.input[0].display()
        );
        return Ok(None);
    }
    if let Some((other, _)) = all.iter().find(|(_, found)| found.is_none()) {
        bail!("--input: expected DICOM as the others are, found another file: {}", other.display());
    }
    let mut cases = Vec::new();
    for (given, found) in all {
        let found = found.unwrap_or_default();
        let wanted = args.scan.series.as_deref();
        let series: Vec<&Series> = match wanted {
            Some("all") => found.volumes().collect(),
            wanted => vec![found.choose(wanted).map_err(|e| e.at(given))?],
        };
        ensure!(
            !series.is_empty(),
            "expected at least one volume, found none:{}: {}",
            found.lines(),
            given.display()
        );
        cases.extend(series.into_iter().map(|series| case_of(series, given, args)));
    }
    tell_apart(&mut cases);
    Ok(Some(cases))
}

fn case_of(series: &Series, given: &Path, args: &PredictArgs) -> DicomCase {
    let origin =
        DicomOrigin { series: series.clone(), uneven: args.scan.uneven(), given: given.to_owned() };
    DicomCase {
        name: series.name(),
        files: series.files(),
        origin: Origin::Dicom(Arc::new(origin)),
    }
}

/// The DICOM series that the DICOM objects of a case refer to, where any are asked for.
///
/// # Errors
///
/// Where there is none, or one too many.
pub fn source_for(
    origin: &Origin,
    input: &Path,
    args: &PredictArgs,
    many: bool,
) -> anyhow::Result<Origin> {
    let given = args.formats.dicom_source.as_deref();
    let Some(option) = args.formats.of_dicom() else {
        ensure!(
            given.is_none(),
            "--dicom-source: expected --format dicom-seg or rtstruct with it, found neither"
        );
        return Ok(Origin::Files);
    };
    match (origin, given) {
        (Origin::Dicom(_), None) => Ok(origin.clone()),
        (Origin::Dicom(_), Some(_)) => bail!(
            "--dicom-source: expected files of another format, found DICOM, which is its own source: \
             {}",
            input.display()
        ),
        (Origin::Files, None) => bail!(
            "{option}: expected DICOM, to whose patient, study and images the object belongs, found \
             another format; --dicom-source names the series it was converted from: {}",
            input.display()
        ),
        (Origin::Files, Some(_)) if many => bail!(
            "--dicom-source: expected a single case, as one series is given, found several: {}",
            args.input[0].display()
        ),
        (Origin::Files, Some(given)) => {
            let found = dicom::find(given)?;
            let series = found.choose(None).map_err(|e| e.at(given))?.clone();
            let (uneven, given) = (args.scan.uneven(), given.to_owned());
            Ok(Origin::Dicom(Arc::new(DicomOrigin { series, uneven, given })))
        }
    }
}

/// The series of an input; none where it is no DICOM.
fn found_in(input: &Path) -> anyhow::Result<Option<Found>> {
    if !input.is_dir() {
        return match dicom::is_dicom(input) {
            true => Ok(Some(dicom::find(input)?)),
            false => Ok(None),
        };
    }
    // A folder of volumes is one, whatever else lies in it.
    let volumes = list_labelmaps(input).map_or(0, |found| found.files.len());
    if volumes > 0 || list_cases(input).is_ok() {
        return Ok(None);
    }
    let found = dicom::find(input)?;
    Ok((!found.series.is_empty()).then_some(found))
}

/// Gives series of one name different ones.
fn tell_apart(cases: &mut [DicomCase]) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for case in cases.iter() {
        *counts.entry(folded(&case.name)).or_default() += 1;
    }
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for case in cases.iter_mut().filter(|case| counts[&folded(&case.name)] > 1) {
        let number = numbers.entry(folded(&case.name)).or_default();
        *number += 1;
        case.name = format!("{}_{}", case.name, letter(*number));
    }
}

/// a, b, …, z, then numbers.
fn letter(number: usize) -> String {
    match u8::try_from(number) {
        Ok(number @ 1..=26) => char::from(b'a' + number - 1).to_string(),
        _ => number.to_string(),
    }
}
