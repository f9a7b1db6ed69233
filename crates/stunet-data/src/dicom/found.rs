//! Every series of a place, and the one that is meant.

use super::header::Header;
use super::place::Place;
use super::series::Series;
use super::syntax::shown;
use super::volume::Image;
use crate::error::{DataError, Result};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What was found in a place.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Sorted by number.
    pub series: Vec<Series>,
    /// Files that are no DICOM images.
    pub num_others: usize,
    /// DICOM files that cannot be read, and why, without their names.
    pub unreadable: Vec<String>,
}

/// What became of a file.
enum Seen {
    Image(Image),
    Other,
    Unreadable(DataError),
}

/// Looks at the headers of files.
pub(super) fn find(places: Vec<Place>) -> Result<Found> {
    let alone = places.len() == 1;
    let seen: Vec<Seen> = places.into_par_iter().map(look).collect();
    let mut found = Found { series: Vec::new(), num_others: 0, unreadable: Vec::new() };
    let mut by_uid: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for seen in seen {
        match seen {
            Seen::Image(image) => {
                by_uid.entry(image.header.series_uid.clone()).or_default().push(image);
            }
            Seen::Other => found.num_others += 1,
            Seen::Unreadable(error) if alone => return Err(error),
            Seen::Unreadable(DataError::InFile { source, .. }) => {
                found.unreadable.push(source.to_string());
            }
            Seen::Unreadable(error) => found.unreadable.push(error.to_string()),
        }
    }
    found.series = by_uid.into_values().flat_map(Series::of).collect();
    if let Some(first) = found.unreadable.first() {
        // Nobody knows which series they belong to.
        let count = found.unreadable.len();
        let note = format!("{count} DICOM file(s) beside it cannot be read, the first: {first}");
        found.series.iter_mut().for_each(|series| series.notes.push(note.clone()));
    }
    found.series.sort_by_key(|series| {
        (series.header().series_number, series.part.as_ref().map(|part| part.0))
    });
    Ok(found)
}

fn look(place: Place) -> Seen {
    let parsed = match place.start() {
        Ok(parsed) => parsed,
        Err(DataError::NotDicom { .. }) => return Seen::Other,
        Err(error) => return Seen::Unreadable(place.at(error)),
    };
    match Header::of(&parsed) {
        Ok(Some(header)) => Seen::Image(Image { place, header }),
        Ok(None) => Seen::Other,
        Err(error) => Seen::Unreadable(place.at(error)),
    }
}

impl Found {
    /// The series that are volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| series.no_volume().is_none())
    }

    /// The series that is meant: by number or UID, or the only volume.
    ///
    /// # Errors
    /// When there is none, or more than one; the error lists them.
    pub fn choose(&self, wanted: Option<&str>) -> Result<&Series> {
        let matches = |series: &&Series| match wanted {
            Some(wanted) => {
                let part = series.part.as_ref().map(|part| part.0).unwrap_or_default();
                series.uid() == wanted
                    || series.number().as_deref() == Some(wanted)
                    || series.header().series_number.map(|n| n.to_string()).as_deref()
                        == Some(wanted)
                    || format!("{}.{part}", series.uid()) == wanted
            }
            None => series.no_volume().is_none(),
        };
        let found: Vec<_> = self.series.iter().filter(matches).collect();
        match found[..] {
            [series] => Ok(series),
            _ => Err(DataError::ChooseSeries {
                expected: match wanted {
                    Some(wanted) => format!("one series {}", shown(wanted)),
                    None => "one volume".to_owned(),
                },
                found: match (found.len(), self.series.len()) {
                    (0, 0) => "none".to_owned(),
                    (0, _) => "none of these:".to_owned(),
                    (count, _) => {
                        format!("{count}; choose one of these with --series NUMBER or UID:")
                    }
                },
                series: self.lines(),
            }),
        }
    }

    /// The series as a list, one per line.
    pub fn lines(&self) -> String {
        let line = |series: &Series| format!("\n  {}", series.line());
        let mut lines: Vec<String> = self.series.iter().map(line).collect();
        if !self.unreadable.is_empty() {
            let (count, first) = (self.unreadable.len(), &self.unreadable[0]);
            lines.push(format!("\n  {count} DICOM file(s) cannot be read, the first: {first}"));
        }
        lines.concat()
    }
}
