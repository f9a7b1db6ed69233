//! A whole-body CT of any length, and a model of any number of classes: what memory is measured with.
//!
//! ```console
//! cargo run --release --example whole_body -- ct out/ct.nii.gz --slices 1000
//! cargo run --release --example whole_body -- model out/model --classes 105 --patch 64
//! ```
//!
//! The CT is the phantom's torso, 512 × 512 voxels of 0.8 mm, repeated up and down, as whole
//! Hounsfield units in a 16-bit file. The model has seeded random weights and few features: memory
//! does not ask what a network knows.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::infer::Model;
use stunet::model::{Initialisation, StuNetConfig};
use stunet_phantom::{BodyPart, ScanOptions, scan};

/// Voxels of a slice along each side.
const WIDTH: usize = 512;
const AIR: i16 = -1024;

/// Makes what memory is measured with.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A CT
    Ct {
        /// The file to write (.nii)
        output: PathBuf,
        /// How many slices of 1 mm
        #[arg(long, default_value_t = 1000)]
        slices: usize,
    },
    /// A model folder
    Model {
        /// The folder to make
        output: PathBuf,
        /// Classes, background included
        #[arg(long, default_value_t = 105)]
        classes: usize,
        /// Voxels of a window along each side
        #[arg(long, default_value_t = 64)]
        patch: usize,
        /// Features of the finest stage
        #[arg(long, default_value_t = 2)]
        width: usize,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        What::Ct { output, slices } => write_ct(&output, slices),
        What::Model { output, classes, patch, width } => {
            write_model(&output, classes, patch, width)
        }
    }
}

fn write_ct(path: &Path, slices: usize) -> anyhow::Result<()> {
    let options = ScanOptions {
        region: Some(BodyPart::Torso),
        in_plane_mm: [0.8, 0.8],
        slice_mm: [1.0, 1.0],
        turn_axes: false,
    };
    let torso = scan(1, &options).image;
    let (depth, height, width) = torso.dim();
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&header(slices))?;
    let shift = |size: usize| size as i64 / 2 - WIDTH as i64 / 2;
    let (top, left) = (shift(height), shift(width));
    for z in 0..slices {
        // Up and down again, so that neighbours fit.
        let turn = z % (2 * depth);
        let plane = torso.index_axis(ndarray::Axis(0), turn.min(2 * depth - 1 - turn));
        for y in 0..WIDTH as i64 {
            for x in 0..WIDTH as i64 {
                let at = [(y + top) as usize, (x + left) as usize];
                let value = plane.get(at).map_or(AIR, |v| *v as i16);
                file.write_all(&value.to_le_bytes())?;
            }
        }
    }
    file.flush()?;
    println!("{path:?}");
    Ok(())
}

/// A NIfTI-1 header: 16-bit voxels of 0.8 × 0.8 × 1 mm, axes as the patient's.
fn header(slices: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; 352];
    let mut put = |at: usize, raw: &[u8]| bytes[at..at + raw.len()].copy_from_slice(raw);
    put(0, &348i32.to_le_bytes());
    let dims = [3, WIDTH as i16, WIDTH as i16, slices as i16, 1, 1, 1, 1];
    dims.iter().enumerate().for_each(|(i, n)| put(40 + 2 * i, &n.to_le_bytes()));
    put(70, &4i16.to_le_bytes());
    put(72, &16i16.to_le_bytes());
    let spacing = [1.0f32, 0.8, 0.8, 1.0];
    spacing.iter().enumerate().for_each(|(i, v)| put(76 + 4 * i, &v.to_le_bytes()));
    put(108, &352f32.to_le_bytes());
    put(112, &1f32.to_le_bytes());
    put(254, &1i16.to_le_bytes());
    for (row, value) in [0.8f32, 0.8, 1.0].into_iter().enumerate() {
        put(280 + 16 * row + 4 * row, &value.to_le_bytes());
    }
    put(344, b"n+1\0");
    bytes
}

fn write_model(path: &Path, classes: usize, patch: usize, width: usize) -> anyhow::Result<()> {
    let names: Vec<String> = (0..classes)
        .map(|i| if i == 0 { "background".to_owned() } else { format!("structure_{i}") })
        .collect();
    let labels = LabelSet::from_names(names.iter().map(String::as_str))?;
    let config = StuNetConfig {
        width: [1, 1, 2, 2, 2, 2].map(|factor| factor * width),
        ..StuNetConfig::small(1, classes)
    };
    let plans =
        Plans { patch_size: [patch; 3], num_outputs: Some(classes), ..Plans::totalsegmentator() };
    let device = stunet::device::parse("cpu")?;
    let network = config.init_seeded(Initialisation::NnUNetV1, 1, &device)?;
    Model::from_parts(vec![network], plans, labels)?.save_folder(path)?;
    println!("{path:?}");
    Ok(())
}
