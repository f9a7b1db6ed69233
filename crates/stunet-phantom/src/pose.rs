//! How a body lies on the table: turned, larger or smaller, and bent a little everywhere.

use super::shape::{Point, apply, dot, turned};
use chacha20::ChaCha8Rng;
use rand::RngExt;

#[derive(Clone, Copy, Debug)]
struct Wave {
    direction: Point,
    phase: f32,
    amplitude: Point,
}

/// From the scanner's millimetres to the reference body's.
#[derive(Clone, Debug)]
pub(super) struct Pose {
    frame: [Point; 3],
    pub(super) scale: Point,
    waves: Vec<Wave>,
}

impl Pose {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let degrees: Point = [7.0, 3.0, 4.0].map(|most: f32| rng.random_range(-most..most));
        let size = rng.random_range(0.90f32..1.10);
        let scale =
            [0.07, 0.05, 0.06].map(|most: f32| size * (1.0 + rng.random_range(-most..most)));
        let waves = (0..6).map(|_| {
            let length = rng.random_range(150.0f32..320.0);
            let towards: Point = std::array::from_fn(|_| rng.random_range(-1.0f32..1.0));
            let norm = dot(towards, towards).sqrt().max(0.2);
            Wave {
                direction: towards.map(|v| v / norm * std::f32::consts::TAU / length),
                phase: rng.random_range(0.0..std::f32::consts::TAU),
                amplitude: std::array::from_fn(|_| rng.random_range(-3.2f32..3.2)),
            }
        });
        Self { frame: turned(degrees), scale, waves: waves.collect() }
    }

    pub(super) fn body_from_scanner(&self, p: Point) -> Point {
        let turned = apply(&self.frame, p);
        let mut q: Point = std::array::from_fn(|i| turned[i] / self.scale[i]);
        let straight = q;
        for wave in &self.waves {
            let sway = (dot(wave.direction, straight) + wave.phase).sin();
            for (value, amplitude) in q.iter_mut().zip(wave.amplitude) {
                *value += sway * amplitude;
            }
        }
        q
    }
}
