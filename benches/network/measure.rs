//! Measures one row in this process.

use crate::Args;
use crate::row::Row;
use crate::step::Step;
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
    match Step::new(args, size, task, precision, &chosen.device) {
        Ok(step) => time(args, &chosen.device, step, &mut row),
        Err(reason) => row.error = Some(reason),
    }
    row
}

fn time(args: &Args, device: &Device, mut step: Step, row: &mut Row) {
    let mut reserved = None;
    let mut call = || {
        let start = Instant::now();
        let value = step.run();
        device.sync().unwrap();
        let secs = start.elapsed().as_secs_f64();
        reserved = reserved.max(device.memory_pool_usage().map(|usage| usage.bytes_reserved));
        (secs, value)
    };
    let start = Instant::now();
    let (first, value) = call();
    if !value.is_finite() {
        row.error = Some(format!("the result is {value}"));
        return;
    }
    row.first_secs = Some(first);
    if first < args.budget {
        call();
    }
    let begin = Instant::now();
    let mut samples = Vec::new();
    while samples.is_empty()
        || samples.len() < args.repeats && begin.elapsed().as_secs_f64() < args.budget
    {
        samples.push(call().0);
    }
    samples.sort_by(f64::total_cmp);
    row.median_secs = Some(samples[samples.len() / 2]);
    row.best_secs = Some(samples[0]);
    row.repeats = samples.len();
    row.reserved_bytes = reserved;
    eprintln!("{} repeats in {:.1} s", samples.len(), start.elapsed().as_secs_f64());
}
