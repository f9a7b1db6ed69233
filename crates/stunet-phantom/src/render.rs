//! From a body to voxels, block by block.
//!
//! A block asks only the parts that reach it, and bends space at its corners only; the same blocks
//! are computed whatever the number of threads.

use super::anatomy::{Body, Paint, Part};
use super::noise;
use super::pose::Pose;
use super::shape::{Bounds, Point};
use super::tissue::AIR;
use super::trunk::FAR_MM;
use ndarray::Array3;
use rayon::prelude::*;

/// Voxels along z, y, x that share their corners.
const BLOCK: [usize; 3] = [4, 8, 8];

/// The grid and the machine.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    pub(super) shape: [usize; 3],
    pub(super) spacing_mm: Point,
    /// Centre of the first voxel.
    pub(super) origin_mm: Point,
    /// Standard deviation of the noise in the middle of a thin body.
    pub(super) noise_hounsfield: f32,
    /// Share of the neighbours in the noise of a voxel.
    pub(super) noise_blur: f32,
    pub(super) seed: u32,
    /// Height of the table under the middle of the body.
    pub(super) table_mm: f32,
    /// Beyond this distance from the middle of a slice nothing was reconstructed.
    pub(super) circle_mm: Option<f32>,
}

impl Scanner {
    fn place(&self, voxel: [usize; 3]) -> Point {
        std::array::from_fn(|i| self.origin_mm[i] + self.spacing_mm[i] * voxel[i] as f32)
    }

    /// Over how many mm a surface is smeared: a voxel and the scanner's own blur.
    fn blur_mm(&self) -> f32 {
        let [z, y, x] = self.spacing_mm;
        0.35 * z + 0.3 * (y + x) + 0.7
    }

    /// A curved couch of foam in a shell, in the air under the patient.
    fn table(&self, p: Point) -> f32 {
        const SHELL: f32 = -260.0;
        const FOAM: f32 = -940.0;
        let deep = p[1] - self.table_mm + 28.0 * (p[2] / 200.0).powi(2);
        let half = 205.0 - p[2].abs();
        let cover = |distance: f32| (0.5 - distance / self.blur_mm()).clamp(0.0, 1.0);
        let couch = cover((-deep).max(deep - 38.0).max(-half));
        let foam = cover((3.0 - deep).max(deep - 35.0).max(3.0 - half));
        let shell = AIR + couch * (SHELL - AIR);
        shell + foam * (FOAM - shell)
    }
}

/// Values `[z, y, x]` in Hounsfield units as a scanner stores them, and labels.
pub(super) fn render(body: &Body, pose: &Pose, scanner: &Scanner) -> (Array3<f32>, Array3<u16>) {
    let [depth, height, width] = scanner.shape;
    let mut image = vec![0f32; depth * height * width];
    let mut labels = vec![0u16; depth * height * width];
    let slab = BLOCK[0] * height * width;
    let pairs = image.par_chunks_mut(slab).zip(labels.par_chunks_mut(slab));
    pairs.enumerate().for_each(|(number, (image, labels))| {
        Slab { body, pose, scanner, first: number * BLOCK[0] }.fill(image, labels);
    });
    let whole = "as many values as the shape has";
    (
        Array3::from_shape_vec(scanner.shape, image).expect(whole),
        Array3::from_shape_vec(scanner.shape, labels).expect(whole),
    )
}

struct Slab<'a> {
    body: &'a Body,
    pose: &'a Pose,
    scanner: &'a Scanner,
    first: usize,
}

impl Slab<'_> {
    fn fill(&self, image: &mut [f32], labels: &mut [u16]) {
        let [_, height, width] = self.scanner.shape;
        let planes = image.len() / (height * width);
        for (z, plane) in image.chunks_exact_mut(height * width).enumerate() {
            let Scanner { seed, noise_blur, .. } = *self.scanner;
            let noise = noise::slice(seed, self.first + z, [height, width], noise_blur);
            plane.copy_from_slice(&noise);
        }
        for y in (0..height).step_by(BLOCK[1]) {
            for x in (0..width).step_by(BLOCK[2]) {
                let block = Block::new(self, [self.first, y, x]);
                for z in 0..planes {
                    for dy in 0..BLOCK[1].min(height - y) {
                        for dx in 0..BLOCK[2].min(width - x) {
                            let at = (z * height + y + dy) * width + x + dx;
                            let (value, label) = block.voxel([z, dy, dx], image[at]);
                            image[at] = value;
                            labels[at] = label;
                        }
                    }
                }
            }
        }
    }
}

struct Block<'a> {
    slab: &'a Slab<'a>,
    first: [usize; 3],
    corners: [Point; 8],
    parts: Vec<&'a Part>,
    empty: bool,
}

impl<'a> Block<'a> {
    fn new(slab: &'a Slab<'a>, first: [usize; 3]) -> Self {
        let corners: [Point; 8] = std::array::from_fn(|corner| {
            let voxel = std::array::from_fn(|i| first[i] + BLOCK[i] * ((corner >> (2 - i)) & 1));
            slab.pose.body_from_scanner(slab.scanner.place(voxel))
        });
        let mut bounds = Bounds::NOWHERE;
        corners.iter().for_each(|corner| bounds.include(*corner));
        let middle: Point = std::array::from_fn(|i| 0.5 * (bounds.low[i] + bounds.high[i]));
        let reach: f32 = (0..3).map(|i| (bounds.high[i] - bounds.low[i]).powi(2)).sum();
        let empty = slab.body.trunk.distances(middle).0 > FAR_MM + reach.sqrt();
        let near = bounds.grown(slab.scanner.blur_mm());
        let parts =
            slab.body.parts.iter().filter(|part| !empty && part.solid.bounds().meets(&near));
        Self { slab, first, corners, parts: parts.collect(), empty }
    }

    /// Between the bent corners.
    fn place(&self, offset: [usize; 3]) -> Point {
        let t: Point = std::array::from_fn(|i| offset[i] as f32 / BLOCK[i] as f32);
        let mut sum = [0.0; 3];
        for (corner, p) in self.corners.iter().enumerate() {
            let weight = |i: usize| if (corner >> (2 - i)) & 1 == 1 { t[i] } else { 1.0 - t[i] };
            let weight = weight(0) * weight(1) * weight(2);
            for (sum, p) in sum.iter_mut().zip(p) {
                *sum += weight * p;
            }
        }
        sum
    }

    fn voxel(&self, offset: [usize; 3], noise: f32) -> (f32, u16) {
        let scanner = self.slab.scanner;
        let place = scanner.place(std::array::from_fn(|i| self.first[i] + offset[i]));
        if scanner.circle_mm.is_some_and(|most| place[1].hypot(place[2]) > most) {
            return (-1024.0, 0);
        }
        let (value, label, deep) =
            if self.empty { (AIR, 0, 0.0) } else { self.tissue(self.place(offset)) };
        let value = if deep > 0.0 { value } else { value.max(scanner.table(place)) };
        let noise = noise * scanner.noise_hounsfield * (0.7 + 0.005 * deep.min(120.0));
        ((value + noise).round().clamp(-1024.0, 3071.0), label)
    }

    /// Value, label and depth under the skin at a place in the body.
    fn tissue(&self, p: Point) -> (f32, u16, f32) {
        let (body, blur) = (self.slab.body, self.slab.scanner.blur_mm());
        let texture = noise::texture(body.trunk.seed, p);
        let base = body.trunk.at(p, blur, texture);
        let (mut value, mut label) = (base.hounsfield, 0);
        if base.from_skin > -1.0 {
            return (value, label, 0.0);
        }
        for part in &self.parts {
            let distance = part.solid.distance(p);
            let cover = (0.5 - distance / blur).min(1.0);
            if cover <= 0.0 {
                continue;
            }
            value += cover * (part.tissue.at(p, distance, texture) - value);
            if distance <= 0.0 {
                match part.paint {
                    Paint::Label(new) => label = new,
                    Paint::Clear => label = 0,
                    Paint::Keep => {}
                }
            }
        }
        (value, label, -base.from_skin)
    }
}
