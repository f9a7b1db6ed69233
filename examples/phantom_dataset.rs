//! A raw dataset in nnU-Net's layout, made of synthetic CTs: something to plan, train and evaluate on.
//!
//! ```console
//! cargo run --release --example phantom_dataset -- nnUNet_raw/Dataset501_Phantoms
//! ```
//!
//! Writes `dataset.json`, `imagesTr` and `labelsTr` with fourteen labelled structures, or those named
//! with `--structures`. `stunet phantom` does the same without a checkout.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use stunet_phantom::{DatasetOptions, STRUCTURES, ScanOptions, write_dataset};

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
    write_dataset(&args.folder, &options, &mut |_| ())
        .with_context(|| format!("cannot write the dataset: {:?}", args.folder))?;
    println!("{} cases: {:?}", args.cases, args.folder);
    Ok(())
}
