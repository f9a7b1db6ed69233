//! Cubic resampling of a torso CT, 300 x 512 x 512 voxels to 200 x 273 x 273.
//!
//! `cargo bench -p stunet-data --bench resample [-- RUNS]` prints the median of wall and CPU
//! seconds; `scripts/resample_peer.py` times SciPy on the same task.
#![allow(missing_docs, clippy::disallowed_macros)]

use ndarray::Array3;
use std::time::Instant;
use stunet_data::preprocess::resample::{Order, resize};

const FROM: [usize; 3] = [300, 512, 512];
const TO: [usize; 3] = [200, 273, 273];

fn main() {
    let runs = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(5usize);
    let input =
        Array3::from_shape_fn(FROM, |(z, y, x)| ((x * 7 + y * 13 + z * 29) % 2001) as f32 - 1000.0);
    for (name, order) in [("cubic", Order::Cubic), ("linear", Order::Linear)] {
        let mut wall = Vec::new();
        let mut cpu = Vec::new();
        for _ in 0..runs {
            let (start, cpu_start) = (Instant::now(), cpu_secs());
            let output = resize(input.view(), TO, order);
            wall.push(start.elapsed().as_secs_f64());
            cpu.push(cpu_secs() - cpu_start);
            assert_eq!(output.shape(), TO);
        }
        println!(
            "{name} {FROM:?} -> {TO:?}, f32 in and out, f64 inside, {} threads: median wall {:.3} s, \
             CPU {:.2} s of {runs} runs",
            rayon::current_num_threads(),
            median(wall),
            median(cpu),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// User and system time of the process (Linux: clock ticks of 10 ms); 0 elsewhere.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
