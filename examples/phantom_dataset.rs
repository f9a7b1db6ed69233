//! A raw dataset in nnU-Net's layout, made of synthetic CTs: something to plan, train and evaluate on.
//!
//! ```console
//! cargo run --release --example phantom_dataset -- nnUNet_raw/Dataset501_Phantoms
//! ```
//!
//! Writes `dataset.json`, `imagesTr` and `labelsTr` with fourteen labelled structures, or those named
//! with `--structures`.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use flate2::{Compression, write::GzEncoder};
use stunet_testing::phantom::{DatasetOptions, STRUCTURES, ScanOptions, write_dataset};

/// Writes a raw dataset of phantoms.
#[derive(Parser)]
struct Args {
    /// The dataset's folder, such as nnUNet_raw/Dataset501_Phantoms
    folder: PathBuf,
    /// Number of cases
    #[arg(long, default_value_t = 8)]
    cases: u64,
    /// Seed of the first case; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Spacing of the voxels in mm
    #[arg(long, default_value_t = 4.0)]
    spacing: f64,
    /// Structures to label, such as liver,spleen
    #[arg(long, value_delimiter = ',', default_values = STRUCTURES)]
    structures: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.spacing >= 1.0, "--spacing: expected at least 1 mm, found {}", args.spacing);
    let known = |name: &String| STRUCTURES.iter().copied().find(|known| known == name);
    let structures = args.structures.iter().map(|name| {
        known(name)
            .with_context(|| format!("--structures: expected {STRUCTURES:?}, found {name:?}"))
    });
    let structures = structures.collect::<anyhow::Result<Vec<_>>>()?;
    let spacing = [args.spacing, args.spacing];
    let scan = ScanOptions { in_plane_mm: spacing, slice_mm: spacing, ..ScanOptions::default() };
    let seeds = args.seed..args.seed.saturating_add(args.cases);
    let options = DatasetOptions { seeds, scan, structures: &structures };
    write_dataset(&args.folder, &options)
        .with_context(|| format!("cannot write the dataset: {:?}", args.folder))?;
    for part in ["imagesTr", "labelsTr"] {
        compress(&args.folder.join(part))?;
    }
    let description = args.folder.join("dataset.json");
    let text = fs::read_to_string(&description)?.replace("\".nii\"", "\".nii.gz\"");
    fs::write(&description, text)?;
    println!("{} cases: {:?}", args.cases, args.folder);
    Ok(())
}

/// Every `.nii` of a folder becomes a `.nii.gz`: the ending that every reader of nnU-Net takes.
fn compress(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let plain = entry?.path();
        if plain.extension().is_some_and(|ending| ending == "nii") {
            let packed = File::create(plain.with_extension("nii.gz"))?;
            let mut packed = GzEncoder::new(packed, Compression::fast());
            std::io::copy(&mut File::open(&plain)?, &mut packed)?;
            packed.finish()?.sync_all()?;
            fs::remove_file(&plain)?;
        }
    }
    Ok(())
}
