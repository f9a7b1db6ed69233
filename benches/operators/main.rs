//! Time of each operator on the processor, forward and backward, at the sizes the network has.
//!
//! `cargo bench --bench operators` runs one case per operator; `-- --layers S,B` every 3×3×3
//! convolution of those sizes in a 128³ window, two-source ones as the network runs them. Prints medians
//! of wall and processor time, GFLOP/s (a multiply-add is two), the share of the FMA peak that one core
//! reaches in the same process, the share of the operator's bound, GB/s of what must be read and
//! written, and peak memory. The bound is the time that multiply-adds take at the peak, or that memory
//! takes to be read and written once, whichever is longer; a convolution by minimal filtering, which
//! needs fewer products, may go beyond it. Shares are by processor time, so that a busy machine changes
//! little; memory's speed is measured with every thread at work. `RAYON_NUM_THREADS` sets the threads;
//! `--out FILE` receives one JSON line per row.
//!
//! A gradient is timed as `y.backward()` with that one input tracked, less the time of making the
//! tensor of ones it begins with.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod layers;

use burn::tensor::Device;
use case::{Case, Direction, Part};
use clap::Parser;
use common::bandwidth::Bandwidth;
use common::fma_peak::FmaPeak;
use common::median;
use common::usage::{Usage, measure};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use stunet::model::{StuNetConfig, StuNetSize};

/// Times the operators of the network.
#[derive(Parser)]
struct Args {
    /// Every 3×3×3 layer of these sizes instead: S, B, L, H
    #[arg(long, value_delimiter = ',')]
    layers: Vec<String>,
    /// Patch of the layers
    #[arg(long, value_delimiter = ',', num_args = 1, default_value = "128,128,128")]
    patch: Vec<usize>,
    /// What is timed
    #[arg(long, value_enum, value_delimiter = ',', default_value = "forward,input,weight")]
    directions: Vec<Direction>,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Burn's own operators instead
    #[arg(long)]
    stock: bool,
    /// Measured repeats, after one warm-up
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Seconds for the repeats of a row
    #[arg(long, default_value_t = 10.0)]
    budget: f64,
    /// File that receives one JSON line per row
    #[arg(long)]
    out: Option<PathBuf>,
    /// Passed by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let (peak, bandwidth) = (FmaPeak::measure(), Bandwidth::measure());
    println!(
        "{} threads, FMA peak {:.0} GFLOP/s, {:.1} a core by processor time; memory read at {:.1} GB/s a \
         core, written at {:.1}\n",
        rayon::current_num_threads(),
        peak.gflops(),
        peak.gflops_per_core(),
        bandwidth.read / 1e9,
        bandwidth.write / 1e9
    );
    println!(
        "| operator | direction | wall ms | CPU ms | GFLOP/s a core | of peak | of bound | GB/s | memory |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    let device = Device::flex();
    for case in cases(&args) {
        for &direction in args.directions.iter().filter(|d| case.has(**d)) {
            let mut run = case.start(direction, args.stock, &device);
            let (mut seeds, mut samples) = (Vec::new(), Vec::new());
            run(&mut |_, work| work());
            let begin = Instant::now();
            while samples.is_empty()
                || samples.len() < args.repeats && begin.elapsed().as_secs_f64() < args.budget
            {
                run(&mut |part, work| {
                    let samples = if part == Part::Seed { &mut seeds } else { &mut samples };
                    samples.push(measure(work).1);
                });
            }
            print(&args, &case, direction, &seeds, &samples, (peak, bandwidth));
        }
    }
}

fn cases(args: &Args) -> Vec<Case> {
    let all = if args.layers.is_empty() {
        case::operators()
    } else {
        let patch = args.patch.clone().try_into().expect("--patch: three sizes");
        let of = |name: &String| {
            let size =
                StuNetSize::ALL.into_iter().find(|s| s.name()[..1].eq_ignore_ascii_case(name));
            let size = size.expect("--layers: expected some of S, B, L, H");
            layers::convolutions(name, &StuNetConfig::new(size, 1, 105), patch)
        };
        args.layers.iter().flat_map(of).collect()
    };
    all.into_iter().filter(|case| case.name.contains(&args.only)).collect()
}

fn print(
    args: &Args,
    case: &Case,
    direction: Direction,
    seeds: &[Usage],
    samples: &[Usage],
    (peak, bandwidth): (FmaPeak, Bandwidth),
) {
    let net = |secs: fn(&Usage) -> f64| {
        let seed = if seeds.is_empty() { 0.0 } else { median(seeds.iter().map(secs).collect()) };
        median(samples.iter().map(secs).collect()) - seed
    };
    let (wall, cpu) = (net(|usage| usage.wall_secs), net(|usage| usage.cpu_secs));
    let memory = samples.iter().map(|usage| usage.peak_bytes).max().unwrap_or(0);
    let (flop, bytes) = (case.flop(), case.bytes(direction));
    let gflops = flop.map(|flop| flop / cpu / 1e9);
    let share = gflops.map(|gflops| gflops / peak.gflops_per_core());
    let computing = flop.unwrap_or(0.0) / peak.gflops_per_core() / 1e9;
    let bound = computing.max(bandwidth.secs(bytes)) / cpu;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    println!(
        "| {} | {} | {:.2} | {:.2} | {} | {} | {:.0} % | {:.1} | {:.2} GB |",
        case.name,
        direction.name(),
        wall * 1e3,
        cpu * 1e3,
        or_dash(gflops.map(|v| format!("{v:.1}"))),
        or_dash(share.map(|v| format!("{:.0} %", v * 100.0))),
        bound * 100.0,
        bytes.iter().sum::<f64>() / wall / 1e9,
        memory as f64 / 1e9
    );
    if let Some(path) = &args.out {
        let row = serde_json::json!({
            "operator": case.name, "direction": direction.name(), "stock": args.stock,
            "threads": rayon::current_num_threads(), "wall_secs": wall, "cpu_secs": cpu,
            "gflops_per_core": gflops, "peak_share": share, "bound_share": bound,
            "peak_bytes": memory,
            "repeats": samples.len(),
        });
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{row}").unwrap();
    }
}
