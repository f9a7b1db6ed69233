//! Measures one row in this process.

use super::Args;
use super::common::fma_peak::FmaPeak;
use super::common::median;
use super::common::usage::{Usage, measure};
use super::pipeline::Pipeline;
use super::row::Row;
use super::step::{Step, size_of};
use burn::tensor::Device;
use std::time::Instant;

/// Measures the one row that `args` describes; a reason takes the place of figures.
pub fn row(args: &Args) -> Row {
    let (size, task, precision) = (&args.sizes[0], args.task[0], args.precision[0]);
    let mut row = Row::new(args, size, task, precision);
    let chosen = match stunet::device::choose(&args.device) {
        Ok(chosen) => chosen,
        Err(error) => {
            row.error = Some(error.to_string());
            return row;
        }
    };
    row.device = chosen.name;
    if !chosen.device.supports_dtype(precision.dtype()) {
        row.error = Some(format!("{} arithmetic is not offered by this device", precision.name()));
        return row;
    }
    let pipeline = size_of(size).map(|size| Pipeline::new(task, size, &chosen.device));
    let found = pipeline.and_then(|pipeline| match pipeline {
        Some(pipeline) => {
            let (flop, run) = (pipeline.flop, Box::new(move || pipeline.run()) as Box<Run>);
            Ok((flop, run))
        }
        None => {
            let mut step = Step::new(args, size, task, precision, false, &chosen.device)?;
            Ok((step.flop, Box::new(move || step.run()) as Box<Run>))
        }
    });
    match found {
        Ok((flop, run)) => time(args, &chosen.device, (flop, run), &mut row),
        Err(reason) => row.error = Some(reason),
    }
    row
}

/// Does the work once.
type Run = dyn FnMut() -> f32;

fn time(args: &Args, device: &Device, (flop, mut run): (f64, Box<Run>), row: &mut Row) {
    let mut reserved = None;
    let mut call = || {
        let (value, usage) = measure(|| {
            let value = run();
            device.sync().unwrap();
            value
        });
        reserved = reserved.max(device.memory_pool_usage().map(|usage| usage.bytes_reserved));
        (usage, value)
    };
    let start = Instant::now();
    let (first, value) = call();
    if !value.is_finite() {
        row.error = Some(format!("the result is {value}"));
        return;
    }
    row.first_secs = Some(first.wall_secs);
    if first.wall_secs < args.budget {
        call();
    }
    // `scripts/scaling` looks at the threads from here to the last repeat.
    eprintln!("measuring");
    let begin = Instant::now();
    let mut samples: Vec<Usage> = Vec::new();
    while samples.is_empty()
        || samples.len() < args.repeats && begin.elapsed().as_secs_f64() < args.budget
    {
        samples.push(call().0);
    }
    samples.sort_by(|a, b| a.wall_secs.total_cmp(&b.wall_secs));
    let middle = samples[samples.len() / 2].wall_secs;
    row.median_secs = Some(middle);
    row.best_secs = Some(samples[0].wall_secs);
    row.repeats = samples.len();
    row.reserved_bytes = reserved;
    row.gflops = Some(flop / middle / 1e9);
    if row.device.starts_with("cpu") {
        let cpu_secs = median(samples.iter().map(|usage| usage.cpu_secs).collect());
        row.cpu_secs = Some(cpu_secs);
        row.peak_bytes = samples.iter().map(|usage| usage.peak_bytes).max();
        let peak = FmaPeak::measure();
        row.peak_share = Some(flop / middle / 1e9 / peak.gflops());
        row.peak_share_cpu = Some(flop / cpu_secs / 1e9 / peak.gflops_per_core());
    }
    eprintln!("{} repeats in {:.1} s", samples.len(), start.elapsed().as_secs_f64());
}
