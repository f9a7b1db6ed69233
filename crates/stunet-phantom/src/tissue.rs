//! Hounsfield units: what a tissue shows on CT, with and without contrast medium.

use super::noise;
use super::shape::Point;
use rand::RngExt;

pub(super) const AIR: f32 = -1000.0;
pub(super) const FAT: f32 = -102.0;

/// What fills a solid.
#[derive(Clone, Debug)]
pub(super) enum Fill {
    /// One tissue.
    Even,
    /// A cortex of `mean` around marrow.
    Bone { marrow: f32, cortex_mm: f32 },
    /// A wall of `mean` around a content.
    Hollow { content: f32, wall_mm: f32 },
    /// Vessels that branch through the tissue, wider towards a hilum.
    Vessels { hounsfield: f32, scale_mm: f32, width: f32, hilum: Point },
    /// Air that is denser towards the back, and vessels.
    Lung { vessels: f32, hilum: Point },
    /// Loops of bowel in fat, some with gas.
    Loops { gas: f32 },
    /// Stool and gas within a wall of `mean`.
    Stool { gas: f32 },
    /// Muscle with fat in its fasciae.
    Muscle,
}

/// A tissue: its mean, how much its grain varies, and its make.
#[derive(Clone, Debug)]
pub(super) struct Tissue {
    pub(super) mean: f32,
    pub(super) grain: f32,
    pub(super) fill: Fill,
    pub(super) seed: u32,
}

fn step(from: f32, to: f32, t: f32) -> f32 {
    ((t - from) / (to - from)).clamp(0.0, 1.0)
}

fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

impl Tissue {
    pub(super) fn even(mean: f32, grain: f32) -> Self {
        Self { mean, grain, fill: Fill::Even, seed: 0 }
    }

    pub(super) fn filled(mean: f32, grain: f32, fill: Fill, seed: u32) -> Self {
        Self { mean, grain, fill, seed }
    }

    /// Hounsfield units at `p`, `distance` mm from the surface (negative inside), where the grain
    /// of all tissues is `texture`.
    pub(super) fn at(&self, p: Point, distance: f32, texture: f32) -> f32 {
        let seed = self.seed;
        let grain = self.grain * texture;
        match &self.fill {
            Fill::Even => self.mean + grain,
            Fill::Bone { marrow, cortex_mm } => {
                let spongy = marrow + 2.0 * grain;
                mix(self.mean, spongy, step(-0.4 * cortex_mm, -1.6 * cortex_mm, distance))
            }
            Fill::Hollow { content, wall_mm } => mix(
                self.mean + grain,
                content + 0.4 * grain,
                step(-wall_mm + 0.7, -wall_mm - 0.7, distance),
            ),
            Fill::Vessels { hounsfield, scale_mm, width, hilum } => {
                let width = width * (0.7 + 1.2 * (-reach(p, *hilum) / 45.0).exp());
                let covered = noise::branches(seed, p, *scale_mm, width);
                mix(self.mean + grain, *hounsfield, covered)
            }
            Fill::Lung { vessels, hilum } => {
                let near = (-reach(p, *hilum) / 38.0).exp();
                let wide = noise::branches(seed, p, 24.0, 0.10 + 0.26 * near);
                let fine = noise::branches(seed ^ 0x77, p, 11.0, 0.10 + 0.10 * near);
                let air = self.mean + 0.35 * (p[1] + 20.0) + grain;
                mix(air, *vessels, wide.max(0.6 * fine))
            }
            Fill::Loops { gas } => self.loops(p, grain, *gas),
            Fill::Stool { gas } => {
                let lumps = noise::smooth(seed, p, 9.0) + 0.5 * noise::smooth(seed ^ 0x3, p, 4.5);
                let stool = 25.0 + 70.0 * lumps;
                let air = noise::smooth(seed ^ 0x5, p, 32.0) - 0.006 * (p[1] + 20.0);
                let content = mix(stool, -930.0, step(0.0, 0.12, air - 0.5 + gas));
                mix(self.mean + grain, content, step(-2.0, -3.2, distance))
            }
            Fill::Muscle => {
                // Long sheets, and only here and there.
                let sheet = noise::smooth(seed, [0.35 * p[0], p[1], p[2]], 30.0).abs();
                let place = noise::smooth(seed ^ 0x9, p, 45.0);
                let fascia = step(0.075, 0.02, sheet) * step(-0.3, 0.2, place);
                mix(self.mean + grain, FAT, 0.8 * fascia)
            }
        }
    }

    fn loops(&self, p: Point, grain: f32, gas: f32) -> f32 {
        let seed = self.seed;
        let wide = noise::smooth(seed, p, 27.0) + 0.45 * noise::smooth(seed ^ 0x11, p, 13.0);
        // Between two loops lies fat; the loops themselves lie where the noise is far from zero.
        let bowel = step(0.06, 0.13, wide.abs());
        let air = noise::smooth(seed ^ 0x5, p, 24.0) - 0.008 * (p[1] + 20.0);
        let inside = step(0.24, 0.34, wide.abs());
        let content = mix(18.0 + grain, -900.0, step(0.0, 0.1, air - 0.62 + gas));
        mix(FAT + 0.6 * grain, mix(self.mean + grain, content, inside), bowel)
    }
}

fn reach(p: Point, from: Point) -> f32 {
    let d = super::shape::sub(p, from);
    super::shape::dot(d, d).sqrt()
}

/// Means of the tissues that contrast medium changes: one draw is one patient at one moment.
#[derive(Clone, Debug)]
pub(super) struct Enhancement {
    pub(super) aorta: f32,
    pub(super) veins: f32,
    pub(super) right_heart: f32,
    pub(super) myocardium: f32,
    pub(super) liver: f32,
    pub(super) spleen: f32,
    pub(super) kidney_cortex: f32,
    pub(super) kidney_medulla: f32,
    pub(super) pancreas: f32,
    pub(super) bowel_wall: f32,
    pub(super) muscle: f32,
    pub(super) urine: f32,
}

/// Rows: without contrast medium, arterial, portal venous; in the order of the fields above.
const PHASES: [[f32; 12]; 3] = [
    [41.0, 40.0, 40.0, 46.0, 57.0, 47.0, 33.0, 30.0, 40.0, 35.0, 54.0, 4.0],
    [310.0, 75.0, 240.0, 100.0, 72.0, 115.0, 165.0, 90.0, 100.0, 75.0, 58.0, 5.0],
    [150.0, 145.0, 140.0, 105.0, 110.0, 125.0, 185.0, 165.0, 90.0, 85.0, 63.0, 7.0],
];

impl Enhancement {
    pub(super) fn draw(rng: &mut impl RngExt) -> Self {
        let phase = PHASES[rng.random_range(0..PHASES.len())];
        // Everything the medium adds is more or less by one factor, and a little by itself.
        let dose = rng.random_range(0.8f32..1.2);
        let mut means = phase;
        for (mean, plain) in means.iter_mut().zip(PHASES[0]) {
            *mean = plain + dose * (*mean - plain) * rng.random_range(0.93f32..1.07);
            *mean += rng.random_range(-5.0f32..5.0);
        }
        let [aorta, veins, right_heart, myocardium, liver, spleen, ..] = means;
        let [.., kidney_cortex, kidney_medulla, pancreas, bowel_wall, muscle, urine] = means;
        Self {
            aorta,
            veins,
            right_heart,
            myocardium,
            liver,
            spleen,
            kidney_cortex,
            kidney_medulla,
            pancreas,
            bowel_wall,
            muscle,
            urine,
        }
    }
}
