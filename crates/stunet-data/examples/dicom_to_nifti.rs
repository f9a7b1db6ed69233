//! Converts a DICOM series to NIfTI: `dicom_to_nifti IN OUT.nii.gz [SERIES] [uneven]`.
#![allow(clippy::disallowed_macros)]

use std::path::Path;
use stunet_data::{DataError, dicom, nifti};

fn convert(input: &str, output: &str, rest: &[String]) -> Result<(), DataError> {
    let found = dicom::find(Path::new(input))?;
    let uneven = rest.iter().any(|word| word == "uneven");
    let wanted = rest.iter().find(|word| *word != "uneven");
    let series = found.choose(wanted.map(String::as_str))?;
    println!("{}", series.line());
    let scan = series.read(uneven)?;
    scan.notes.iter().for_each(|note| println!("note: {note}"));
    nifti::write_image(Path::new(output), &scan.image.into_image())
}

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, rest @ ..] = &words[..] else {
        println!("usage: dicom_to_nifti IN OUT.nii.gz [SERIES] [uneven]");
        return std::process::ExitCode::from(2);
    };
    match convert(input, output, rest) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
