//! `stunet phantom`: a raw dataset of synthetic CTs.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use stunet_phantom::{DatasetOptions, STRUCTURES, ScanOptions, write_dataset};

use crate::args::PhantomArgs;
use crate::output;
use crate::pictures::size_text;

/// Writes the dataset, whole or not at all.
pub fn run(args: &PhantomArgs) -> anyhow::Result<()> {
    ensure!(args.spacing >= 1.0, "--spacing: expected at least 1mm, found {}mm", args.spacing);
    let structures = structures(&args.structures)?;
    let folder = &args.folder;
    let guard = Unfinished::begin(folder)?;
    let spacing = [args.spacing; 2];
    let scan = ScanOptions { in_plane_mm: spacing, slice_mm: spacing, ..ScanOptions::default() };
    let seeds = args.seed..args.seed.saturating_add(args.cases as u64);
    let options = DatasetOptions { seeds, scan, structures: &structures };
    let mut told = Ok(());
    write_dataset(folder, &options, &mut |case| {
        if !args.quiet && told.is_ok() {
            let size = size_text(&case.image.geometry);
            told = output::line(&format!("{}: {size}", case.name));
        }
    })?;
    guard.finish();
    told?;
    if !args.quiet {
        let structures = structures.len();
        let cases = args.cases;
        output::line(&format!("{cases} cases, {structures} labels: {}", folder.display()))?;
    }
    Ok(())
}

fn structures(names: &[String]) -> anyhow::Result<Vec<&'static str>> {
    if names.is_empty() {
        return Ok(STRUCTURES.to_vec());
    }
    let mut found: Vec<&'static str> = Vec::new();
    for name in names {
        let known = STRUCTURES.into_iter().find(|known| known == name);
        let known = known.with_context(|| {
            format!("--structures: expected some of {}, found {name:?}", STRUCTURES.join(", "))
        })?;
        ensure!(!found.contains(&known), "--structures: found {known} twice");
        found.push(known);
    }
    Ok(found)
}

/// The folder of a dataset under construction. Unless it is finished, what was made goes again.
struct Unfinished<'a> {
    folder: &'a Path,
    made: bool,
    finished: bool,
}

impl<'a> Unfinished<'a> {
    fn begin(folder: &'a Path) -> anyhow::Result<Self> {
        let made = !folder.exists();
        if !made {
            ensure!(
                folder.is_dir(),
                "expected a new or empty folder, found a file: {}",
                folder.display()
            );
            let first = fs::read_dir(folder).with_context(|| folder.display().to_string())?.next();
            if let Some(entry) = first {
                let name = entry?.file_name();
                bail!(
                    "expected a new or empty folder, found {} in it: {}",
                    name.to_string_lossy(),
                    folder.display()
                );
            }
        }
        Ok(Self { folder, made, finished: false })
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for part in ["imagesTr", "labelsTr"] {
            let _ = fs::remove_dir_all(self.folder.join(part));
        }
        if self.made {
            let _ = fs::remove_dir(self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_those_of_the_phantom() {
        let given =
            |names: &[&str]| structures(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&[]).unwrap().len(), 14);
        assert_eq!(given(&["spleen", "liver"]).unwrap(), ["spleen", "liver"]);
        assert!(given(&["spleen", "lever"]).unwrap_err().to_string().contains("found \"lever\""));
        assert!(given(&["liver", "liver"]).unwrap_err().to_string().contains("twice"));
    }
}
