//! What was accepted of headers only because that was asked for.

use std::path::PathBuf;

use stunet::data::dataset::RawDataset;
use stunet::data::geometry::{Geometry, Leniency};
use stunet::data::nifti::Opener;

/// Notes of a whole data set that are told one by one.
const MOST: usize = 5;

/// What was accepted of headers only because that was asked for, one sentence each.
pub fn forgiven(files: &[PathBuf], opener: Opener) -> Vec<String> {
    let strict = Opener { leniency: Leniency::default(), ..opener };
    let mut notes = Vec::new();
    let mut first: Option<Geometry> = None;
    if opener.leniency == strict.leniency {
        return notes;
    }
    for file in files {
        let name = file.file_name().unwrap_or_default().display();
        let Ok((grid, _)) = opener.read_geometry(file) else { continue };
        if strict.read_geometry(file).is_err() {
            notes.push(format!(
                "the axes of {name} are not at right angles: the closest ones that are replace them"
            ));
        }
        let differs = first.as_ref().and_then(|first| first.check_same_grid(&grid).err());
        if let Some(difference) = differs {
            notes
                .push(format!("{name}: {difference}; accepted, the grid of the first file counts"));
        }
        first = first.or(Some(grid));
    }
    notes
}

/// The same for many groups of files that must lie on one grid, each with a name: the first notes, and how many
/// more there are.
pub fn forgiven_in<'a>(
    groups: impl Iterator<Item = (&'a str, Vec<PathBuf>)>,
    opener: Opener,
) -> Vec<String> {
    let all = groups.flat_map(|(name, files)| {
        forgiven(&files, opener).into_iter().map(move |note| format!("{name}: {note}"))
    });
    let mut notes: Vec<String> = all.collect();
    let more = notes.len().saturating_sub(MOST);
    if more > 0 {
        notes.truncate(MOST);
        notes.push(format!(
            "{more} more headers were accepted as --geometry-tolerance and --allow ask for"
        ));
    }
    notes
}

/// The same for a data set: images and labels of every case.
pub fn forgiven_of(dataset: &RawDataset) -> Vec<String> {
    let cases = dataset.cases().iter().map(|case| {
        let files = case.images.iter().chain([&case.labels]).cloned().collect();
        (case.name.as_str(), files)
    });
    forgiven_in(cases, dataset.info().opener())
}
