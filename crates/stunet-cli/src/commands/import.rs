//! `stunet import`: datasets of the Medical Segmentation Decathlon and of nnU-Net 1.

use std::path::{Path, PathBuf};

use anyhow::Context;
use stunet::data::dataset::{DatasetOrigin, import};

use crate::args::ImportArgs;
use crate::failure::Interrupted;
use crate::folders::{Home, Homes};
use crate::interrupt;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;

/// Writes the dataset, and tells what it was.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let out = match &args.output {
        Some(out) => out.clone(),
        None => default_place(args)?,
    };
    let about = args.dataset.join("dataset.json");
    places::check([about], [Output::new("--output", out.join("dataset.json"))])?;
    interrupt::watch(args.quiet, "file")?;
    let progress = CaseBar::new("importing".to_owned(), args.quiet);
    let done = import(&args.dataset, &out, &|_| interrupt::flow())?;
    drop(progress);
    let Some(done) = done else { return Err(Interrupted.into()) };
    if args.quiet {
        return Ok(());
    }
    let origin = match done.origin {
        DatasetOrigin::Decathlon => "the Medical Segmentation Decathlon",
        DatasetOrigin::NnUNetV1 => "nnU-Net 1",
    };
    output::line(&format!(
        "a dataset of {origin}: {} files of images, {} of labels: {}",
        done.images,
        done.labels,
        out.display()
    ))
}

/// `DatasetNNN_NAME` for `TaskNN_NAME`, where the variable says.
fn default_place(args: &ImportArgs) -> anyhow::Result<PathBuf> {
    let homes = Homes::read();
    let home = homes.each(Home::Raw).next().context(
        "expected --output, or the variable nnUNet_raw set to the folder of the datasets, found neither",
    )?;
    let name = dataset_name(&args.dataset, args.number).with_context(|| {
        format!(
            "expected --output, or a folder called TaskNN_NAME, found another: {}",
            args.dataset.display()
        )
    })?;
    Ok(home.join(name))
}

fn dataset_name(folder: &Path, number: Option<u32>) -> Option<String> {
    let name = folder.canonicalize().ok()?.file_name()?.to_str()?.to_owned();
    let (digits, name) = name.strip_prefix("Task")?.split_once('_')?;
    let number = match number {
        Some(number) => number,
        None => digits.parse().ok()?,
    };
    Some(format!("Dataset{number:03}_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let home = tempfile::tempdir().unwrap();
        let check = |name: &str, number, expected: Option<&str>| {
            let folder = home.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            assert_eq!(dataset_name(&folder, number).as_deref(), expected, "{name}");
        };
        check("Task09_Spleen", None, Some("Dataset009_Spleen"));
        check("Task101_Total_Body", Some(7), Some("Dataset007_Total_Body"));
        check("Spleen", None, None);
        check("TaskX_Spleen", None, None);
    }
}
