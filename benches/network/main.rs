//! Time of the network: forward passes and training steps, by size and precision.
//!
//! `cargo bench --bench network -- --device cpu --sizes S,B,L --task forward,train`. Prints device,
//! size, precision, medians of wall and processor time, GFLOP/s of the convolutions, on the CPU their
//! share of the FMA peak measured just after, and memory: peak resident on the CPU, reserved
//! elsewhere. `--out FILE` receives one JSON line per row as it is measured. Every row runs in a
//! process of its own, so that one that fails, runs out of memory or hangs ends neither the run nor
//! the device. A training step is the real one: loss and optimiser of `stunet-train`.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;
mod measure;
mod pipeline;
mod row;
mod step;
mod stock;
mod worker;

use clap::Parser;
use common::program;
use row::Row;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use step::{Operators, Precision, Task};

/// Times the network on one device.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// auto, cpu, cuda[:N], vulkan[:N], wgpu[:N], metal[:N]
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Sizes: S, B, L, H
    #[arg(long, value_delimiter = ',', default_value = "S")]
    sizes: Vec<String>,
    /// What is timed
    #[arg(long, value_enum, value_delimiter = ',', default_value = "forward")]
    task: Vec<Task>,
    /// Precision of convolutions and activations; parameters stay in f32
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    precision: Vec<Precision>,
    /// Whose operators
    #[arg(long, value_enum, default_value = "own")]
    operators: Operators,
    /// Patch, three multiples of 16, 16, 32
    #[arg(long, value_delimiter = ',', num_args = 1, default_value = "128,128,128")]
    patch: Vec<usize>,
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
    #[arg(long, default_value_t = 30.0)]
    budget: f64,
    /// Seconds after which a row is given up
    #[arg(long, default_value_t = 300.0)]
    limit: f64,
    /// File that receives one JSON line per row
    #[arg(long)]
    out: Option<PathBuf>,
    /// Say what this binary was built with and what is usable here, and measure nothing
    #[arg(long)]
    list_devices: bool,
    /// Measure one row in this process and print its JSON
    #[arg(long, hide = true)]
    row: bool,
    /// Run one row whenever a line on the input asks for it: for benches/peers/run
    #[arg(long, hide = true)]
    worker: bool,
    /// With --worker: fused multiply-adds instead of the network
    #[arg(long, hide = true)]
    fma_peak: bool,
    /// Passed by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

pub fn main() {
    let args = Args::parse();
    if args.list_devices {
        for status in stunet::device::list().iter().filter(|status| status.compiled_in) {
            for found in &status.devices {
                println!("{}: {:?}", found.name, found.usable);
            }
        }
        return;
    }
    if args.worker {
        worker::serve(&args);
        return;
    }
    if args.row {
        println!("{}", serde_json::to_string(&measure::row(&args)).unwrap());
        return;
    }
    let mut failed = 0;
    println!("{}", Row::HEADER);
    for size in &args.sizes {
        for &task in &args.task {
            for &precision in &args.precision {
                let row = measure_apart(&args, size, task, precision);
                failed += usize::from(row.error.is_some());
                println!("{row}");
                append(&args, &row);
            }
        }
    }
    if failed > 0 {
        eprintln!("{failed} rows were not measured");
    }
}

/// Runs one row in a child process and gives it up after the limit.
fn measure_apart(args: &Args, size: &str, task: Task, precision: Precision) -> Row {
    let mut row = Row::new(args, size, task, precision);
    match run_child(args, size, task, precision) {
        Ok(measured) => measured,
        Err(reason) => {
            row.error = Some(reason);
            row
        }
    }
}

fn run_child(args: &Args, size: &str, task: Task, precision: Precision) -> Result<Row, String> {
    let patch: Vec<String> = args.patch.iter().map(usize::to_string).collect();
    let mut child = Command::new(program())
        .args(["--row", "--device", &args.device, "--sizes", size])
        .args(["--task", task.name(), "--precision", precision.name()])
        .args(["--operators", args.operators.name()])
        .args(["--patch", &patch.join(","), "--classes", &args.classes.to_string()])
        .args(["--batch", &args.batch.to_string(), "--repeats", &args.repeats.to_string()])
        .args(["--budget", &args.budget.to_string()])
        .args(args.recompute.then_some("--recompute"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let stdout = child.stdout.take().map(read_in_background);
    let stderr = child.stderr.take().map(read_in_background);
    let end = Instant::now() + Duration::from_secs_f64(args.limit);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(status);
        }
        if Instant::now() > end {
            child.kill().map_err(|e| e.to_string())?;
            child.wait().map_err(|e| e.to_string())?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.and_then(|r| r.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let Some(status) = status else {
        return Err(format!("given up after {} s", args.limit));
    };
    stdout
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| format!("{status}: {}", first_reason(&stderr)))
}

fn read_in_background(
    mut pipe: impl std::io::Read + Send + 'static,
) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The message under the first panic, or the last line.
fn first_reason(stderr: &str) -> String {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let panic = lines.by_ref().find(|line| line.contains("panicked at")).and_then(|_| lines.next());
    let reason = panic.or_else(|| stderr.lines().map(str::trim).rfind(|line| !line.is_empty()));
    reason.unwrap_or("no reason given").chars().take(300).collect()
}

fn append(args: &Args, row: &Row) {
    if let Some(path) = &args.out {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{}", serde_json::to_string(row).unwrap()).unwrap();
    }
}
