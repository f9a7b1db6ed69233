//! One table over all devices that are here and all sizes of the network.
//!
//! `cargo bench --bench backends --features wgpu` measures, on every usable device (software adapters when
//! they are named with `--device`): what the device can do at most (copied bytes and multiply-adds in a
//! second), reports of others that could hold on it, forward passes, training steps and a whole case, from
//! resampling to labels. Shares of the ceilings follow from the bytes and products that the kernels state
//! themselves. Every device has one process, which keeps what it has compiled between rows; a row that
//! fails, hangs or takes the driver down is given up, and the next process goes on behind it. `--out FILE`
//! receives each row as it is measured, and a later call with the same file goes on from there.
//!
//! `-- --predict` computes nothing: it counts, on any GPU, and prints what passes should take on several.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

mod case;
mod ceilings;
mod child;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "gpu")]
#[path = "../common/counted.rs"]
mod counted;
#[cfg(feature = "gpu")]
mod kernels;
#[cfg(feature = "gpu")]
mod predicted;
mod row;
#[path = "../network/step.rs"]
mod step;
#[path = "../network/stock.rs"]
mod stock;
#[cfg(feature = "gpu")]
#[path = "../../tests/backends/upstream.rs"]
mod upstream;

use child::Child;
use clap::Parser;
use row::{Row, Work, table};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use step::{Operators, Precision};

/// Times the network on all devices.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// Devices; without it, all that are usable and no software
    #[arg(long, value_delimiter = ',')]
    device: Vec<String>,
    /// Sizes: S, B, L, H
    #[arg(long, value_delimiter = ',', default_value = "S,B,L,H")]
    sizes: Vec<String>,
    /// What is measured
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "ceilings,reports,forward,train,case"
    )]
    task: Vec<Work>,
    /// Sizes of training steps and of whole cases, of those above
    #[arg(long, value_delimiter = ',', default_value = "S,B")]
    large_task_sizes: Vec<String>,
    /// Precision of convolutions and activations; parameters stay in f32
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    precision: Vec<Precision>,
    /// Whose operators: own, stock
    #[arg(long = "operators", value_enum, value_delimiter = ',', default_value = "own")]
    whose: Vec<Operators>,
    /// Those of the row that is measured
    #[arg(skip = Operators::Own)]
    operators: Operators,
    /// Patch, three multiples of 16, 16, 32
    #[arg(long, value_delimiter = ',', num_args = 1, default_value = "128,128,128")]
    patch: Vec<usize>,
    /// Voxels of the whole case, at the network's spacing
    #[arg(long, value_delimiter = ',', num_args = 1, default_value = "192,192,192")]
    case: Vec<usize>,
    /// Classes, background included
    #[arg(long, default_value_t = 105)]
    classes: usize,
    /// Samples in a training step; forward passes take one
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Recompute the activations of a training step, with operators of our own
    #[arg(long)]
    recompute: bool,
    /// Measured repeats, after the first call and one warm-up
    #[arg(long, default_value_t = 10)]
    repeats: usize,
    /// Seconds for the repeats of a row
    #[arg(long, default_value_t = 10.0)]
    budget: f64,
    /// Seconds after which a row is given up
    #[arg(long, default_value_t = 300.0)]
    row_limit: f64,
    /// Seconds in all; rows that did not fit are named
    #[arg(long, default_value_t = 3600.0)]
    limit: f64,
    /// File that receives one JSON line per row
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder in which compiled kernels are kept, where the program can keep any
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Say what this binary was built with and what is usable here, and measure nothing
    #[arg(long)]
    list_devices: bool,
    /// Print what passes should take on several GPUs, by counted bytes and products
    #[arg(long)]
    predict: bool,
    /// Launch every kernel on the device, whatever comes of it: for scripts/ptxas-check
    #[arg(long, hide = true)]
    kernels: bool,
    /// Measure rows in this process, as lines on the input ask for them
    #[arg(long, hide = true)]
    child: bool,
    /// Passed by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

pub fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.list_devices {
        usable(true).iter().for_each(|found| println!("{found}"));
        Ok(())
    } else if args.child {
        child::serve(&args);
        Ok(())
    } else if args.predict || args.kernels {
        on_a_gpu(&args)
    } else {
        measure(&args)
    };
    done.map_or_else(
        |reason| {
            eprintln!("{reason}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

#[cfg(feature = "gpu")]
fn on_a_gpu(args: &Args) -> Result<(), String> {
    let names = if args.device.is_empty() { usable(true) } else { args.device.clone() };
    let devices = names.iter().map(|name| stunet::device::choose(name));
    let devices = devices.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let mut devices = devices.into_iter();
    let chosen =
        devices.find(|chosen| chosen.backend.is_gpu()).ok_or("expected a GPU, found none")?;
    if args.kernels {
        kernels::launch(args, &chosen);
    } else {
        predicted::print(args, &chosen.device);
    }
    Ok(())
}

#[cfg(not(feature = "gpu"))]
fn on_a_gpu(_: &Args) -> Result<(), String> {
    let command = "cargo bench --bench backends --features wgpu -- ...";
    Err(format!("built without a GPU's backend: {command}"))
}

/// How the error of a row ends whose type the device lacks.
const NOT_OFFERED: &str = "is not offered by this device";

/// Names of the devices that compute.
fn usable(with_software: bool) -> Vec<String> {
    let all = stunet::device::list().into_iter().flat_map(|status| status.devices);
    let found = all.filter(|device| device.usable.is_ok() && (with_software || !device.software));
    found.map(|device| device.name).collect()
}

/// Every row, device by device; an error where one was not measured.
fn measure(args: &Args) -> Result<(), String> {
    let end = Instant::now() + std::time::Duration::from_secs_f64(args.limit);
    let devices = if args.device.is_empty() { usable(false) } else { args.device.clone() };
    let mut rows = written_before(args);
    for device in &devices {
        let mut child: Option<Child> = None;
        for wanted in Row::wanted(args, device) {
            if rows.iter().any(|row| row.is_done(&wanted)) {
                continue;
            }
            let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
            let found = if left < 2.0 {
                vec![wanted.failed("not run: out of time")]
            } else {
                child::measure(args, &mut child, wanted, left.min(args.row_limit))
            };
            for row in found {
                eprintln!("{row}");
                append(args, &row);
                rows.push(row);
            }
        }
    }
    println!("{}", table(&rows));
    // An earlier failure may have been made good by now, and a device need not have every type.
    let good = |row: &Row| rows.iter().any(|other| other.is_done(row));
    let failed = |row: &&Row| row.error.as_ref().is_some_and(|error| !error.ends_with(NOT_OFFERED));
    match rows.iter().filter(failed).filter(|row| !good(row)).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} rows were not measured")),
    }
}

/// Rows of an earlier call.
fn written_before(args: &Args) -> Vec<Row> {
    let text = args.out.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn append(args: &Args, row: &Row) {
    if let Some(path) = &args.out {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{}", serde_json::to_string(row).unwrap()).unwrap();
    }
}
