//! One step in a process of its own, run whenever a line asks for it: `benches/peers/run` lets such
//! processes take turns.
//!
//! In: `run`, or `sample FILE` for every [`STRIDE`]th logit as little-endian `f32`. Out: a line of
//! JSON for each, and one when ready.

use super::Args;
use super::common::fma_peak::FmaPeak;
use super::common::usage::{Usage, measure, resident_bytes};
use super::step::Step;
use serde_json::{Value, json};
use std::io::BufRead;

/// Every so many logits are compared: 2 million of a 128³ window with 105 classes.
const STRIDE: usize = 101;

/// Answers lines until there are no more.
pub fn serve(args: &Args) {
    let device = stunet::device::choose(&args.device).expect("a device that is here").device;
    let threads = rayon::current_num_threads();
    if args.fma_peak {
        println!("{}", json!({ "ready": true, "threads": threads }));
        return answer(|command, _| {
            assert_eq!(command, "run", "a peak has no logits");
            let peak = FmaPeak::measure();
            reply(peak.usage, json!({ "flop": peak.flop }))
        });
    }
    let (size, task, precision) = (&args.sizes[0], args.task[0], args.precision[0]);
    let mut step = Step::new(args, size, task, precision, true, &device).unwrap();
    println!("{}", json!({ "ready": true, "threads": threads, "flop": step.flop }));
    answer(|command, file| {
        if command == "run" {
            let (value, usage) = measure(|| {
                let value = step.run();
                device.sync().unwrap();
                value
            });
            reply(usage, json!({ "value": value }))
        } else {
            let logits = step.logits().into_data().convert::<f32>();
            let logits = logits.as_slice::<f32>().unwrap().iter().step_by(STRIDE);
            let bytes: Vec<u8> = logits.flat_map(|v| v.to_le_bytes()).collect();
            std::fs::write(file, bytes).unwrap();
            json!({ "stride": STRIDE })
        }
    });
}

fn answer(mut work: impl FnMut(&str, &str) -> Value) {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (command, file) = line.split_once(' ').unwrap_or((&line, ""));
        println!("{}", work(command, file));
    }
}

fn reply(usage: Usage, mut more: Value) -> Value {
    more["wall_secs"] = usage.wall_secs.into();
    more["cpu_secs"] = usage.cpu_secs.into();
    more["peak_bytes"] = usage.peak_bytes.into();
    more["resident_bytes"] = resident_bytes().into();
    more
}
