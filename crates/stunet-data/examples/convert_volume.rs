//! Converts a volume between formats: `convert_volume IN OUT`. Into NIfTI the voxels go as 32-bit floats, into
//! MetaImage and NRRD as labels.
#![allow(clippy::disallowed_macros)]

use std::path::Path;
use stunet_data::labels::{CompactLabelMap, LabelVoxels};
use stunet_data::{DataError, formats, nifti};

fn convert(input: &Path, output: &Path) -> Result<(), DataError> {
    if formats::written_ending(output).is_some_and(|ending| ending.starts_with(".nii")) {
        return nifti::write_image(output, &nifti::read_image(&[input])?);
    }
    let labels = nifti::read_labelmap(input)?;
    let most = labels.data.iter().copied().max().unwrap_or(0);
    let voxels = LabelVoxels::Words(labels.data);
    let labels = CompactLabelMap { voxels, geometry: labels.geometry };
    formats::write_compact_labelmap(output, &labels, most, Some("{\"made by\": \"an example\"}"))
}

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = &words[..] else {
        println!("usage: convert_volume IN OUT");
        return std::process::ExitCode::from(2);
    };
    match convert(Path::new(input), Path::new(output)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
