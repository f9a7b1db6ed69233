//! Export alone: 105 classes from 200 × 273 × 273 to 300 × 512 × 512 voxels, the best class of each.
//!
//! `cargo bench --bench export [-- CLASSES SLICES]` prints seconds of the restore, without the windows
//! that feed it, the bytes it holds and the process's peak; `scripts/bench_export.py` runs nnU-Net's own
//! code on the same task.
#![allow(missing_docs, clippy::disallowed_macros, clippy::unwrap_used)]

use ndarray::Array4;
use std::ops::{ControlFlow, Range};
use std::time::Instant;
use stunet_data::plans::{Accumulation, Reference};
use stunet_data::preprocess::Placement;
use stunet_data::preprocess::resample::AxisTaps;
use stunet_infer::InferError;
use stunet_infer::export::{Decision, Extras, Restore};
use stunet_infer::network::{Network, Outputs, WindowCost};
use stunet_infer::sink::RowSink;
use stunet_infer::slab::Slab;
use stunet_infer::sliding_window::{Keep, WindowSettings, slide_tiles};
use stunet_infer::tile::Tile;

const WINDOW: [usize; 3] = [8, 273, 273];

/// Answers every window with the same logits: blobs, one class after the other.
struct Blobs(Vec<f32>, usize);

impl Blobs {
    fn new(classes: usize) -> Self {
        let [z, y, x] = WINDOW;
        let logits = Array4::from_shape_fn((classes, z, y, x), |(c, z, y, x)| {
            let centre = [(c * 37 % 273) as f32, (c * 101 % 273) as f32];
            let distance = (y as f32 - centre[0]).hypot(x as f32 - centre[1]);
            4.0 - distance / 8.0 + (z as f32 + c as f32).sin() * 0.1
        });
        Self(logits.into_raw_vec_and_offset().0, classes)
    }
}

impl Network for Blobs {
    fn in_channels(&self) -> usize {
        1
    }

    fn num_classes(&self) -> usize {
        self.1
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, _: [usize; 3]) -> Result<WindowCost, InferError> {
        let bytes = self.0.len() as u64 * 4;
        Ok(WindowCost { peak_bytes: bytes, output_bytes: bytes, work: 1.0 })
    }

    fn predict_window(&self, _: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        take(0..WINDOW[0], &self.0);
    }
}

/// Times what is done with finished rows.
struct Timed {
    restore: Restore,
    wall: f64,
    cpu: f64,
}

impl RowSink for Timed {
    fn begin(&mut self, tile: &Tile) -> Result<(), InferError> {
        self.restore.begin(tile)
    }

    fn rows(
        &mut self,
        slab: &mut Slab,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        let (clock, cpu) = (Instant::now(), cpu_secs());
        let done = self.restore.rows(slab, planes, rows);
        self.wall += clock.elapsed().as_secs_f64();
        self.cpu += cpu_secs() - cpu;
        done
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|a| a.parse().ok());
    let classes: usize = numbers.next().unwrap_or(105);
    let slices: usize = numbers.next().unwrap_or(300);
    let (from, to) = ([slices * 2 / 3, WINDOW[1], WINDOW[2]], [slices, 512, 512]);
    let taps = [0, 1, 2].map(|axis| AxisTaps::linear(from[axis], to[axis]));
    let network = Blobs::new(classes);
    let image = Array4::<f32>::zeros((1, from[0], from[1], from[2]));
    for (name, reference, accumulation) in [
        ("v1, f32", Reference::NnUNetV1, Accumulation::F32),
        ("v2, f16", Reference::NnUNetV28, Accumulation::F16),
    ] {
        let recipe = WindowSettings {
            window: WINDOW,
            step_size: 1.0,
            mirror_axes: Vec::new(),
            reference,
            accumulation,
            keep: Keep::Sums,
            windows_at_once: 1,
            average_passes: false,
            part_of: None,
        };
        let decision = Decision::Largest { labels: (0..classes as u16).collect() };
        let half = accumulation == Accumulation::F16;
        let place = Placement::whole(to);
        let restore = Restore::new(taps.clone(), half, decision, place, Extras::default());
        let mut timed = Timed { restore, wall: 0.0, cpu: 0.0 };
        let tiles = [Tile::whole(from, to)];
        let report = slide_tiles(
            &[&network],
            image.view().into(),
            &recipe,
            &tiles,
            &mut timed,
            &mut |_, _| ControlFlow::Continue(()),
        )
        .unwrap();
        let (labels, _) = timed.restore.finish();
        println!(
            "{{\"program\": \"stunet\", \"task\": \"export\", \"sums\": \"{name}\", \"classes\": {classes}, \
             \"slices\": {slices}, \"threads\": {}, \"wall_secs\": {:.2}, \"cpu_secs\": {:.2}, \
             \"sums_bytes\": {}, \"labels_bytes\": {}, \"peak_bytes\": {}}}",
            rayon::current_num_threads(),
            timed.wall,
            timed.cpu,
            report.peak_bytes,
            labels.iter().count(),
            peak_bytes(),
        );
    }
}

/// The process's high-water mark (Linux), its program and the windows' logits included; 0 elsewhere.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// User and system time of the process (Linux: clock ticks of 10 ms); 0 elsewhere.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
