//! What the commands that draw share: files of true labels, sizes in words, and the writer.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use stunet::data::geometry::Geometry;
use stunet::data::{DataError, files, formats};

use crate::args::PictureArgs;

/// The labelmap that a case is compared with: the file, or that of the case's name in the folder. None
/// where the folder has none.
pub fn truth_of(args: &PictureArgs, case: &str) -> Option<PathBuf> {
    let truth = args.view.truth.as_ref()?;
    if !truth.is_dir() {
        return Some(truth.clone());
    }
    let mut candidates =
        formats::ENDINGS.iter().map(|ending| truth.join(format!("{case}{ending}")));
    candidates.find(|path| path.is_file())
}

/// Fails where the options of pictures do not fit each other or the number of cases.
pub fn check(args: &PictureArgs, cases: usize) -> anyhow::Result<()> {
    let Some(truth) = &args.view.truth else { return Ok(()) };
    ensure!(
        args.preview || args.report.is_some(),
        "--truth: expected --preview or --report as well, which show it: {}",
        truth.display()
    );
    if !truth.is_dir() {
        drop(files::open(truth)?);
        ensure!(
            cases == 1,
            "--truth: expected a folder, as there are {cases} cases, found a file: {}",
            truth.display()
        );
    }
    Ok(())
}

/// The size of an image for people.
pub fn size_text(geometry: &Geometry) -> String {
    let [z, y, x] = geometry.shape();
    let [dz, dy, dx] = geometry.voxel_size_mm().map(|mm| {
        let text = format!("{mm:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    });
    format!("{x} × {y} × {z} voxels of {dx} × {dy} × {dz} mm")
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(files::write(path, |file| {
        file.write_all(bytes).map_err(|source| DataError::Io { action: "write", source })
    })?)
}
