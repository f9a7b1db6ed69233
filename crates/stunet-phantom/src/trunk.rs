//! The wall of the body: skin, fat, muscle and ribs, around the cavity of chest and abdomen.

use super::noise;
use super::shape::{Dome, Loft, Point, Section};
use super::tissue::{AIR, FAT, Fill, Tissue};

const fn section(z: f32, [centre_y, half_y, half_x]: [f32; 3]) -> Section {
    Section { z, centre_y, half_y, half_x }
}

/// Inside of ribs and abdominal wall.
const CAVITY: [Section; 12] = [
    section(-440.0, [12.0, 22.0, 18.0]),
    section(-390.0, [14.0, 40.0, 36.0]),
    section(-330.0, [12.0, 62.0, 62.0]),
    section(-250.0, [0.0, 70.0, 95.0]),
    section(-170.0, [-5.0, 72.0, 115.0]),
    section(-90.0, [-8.0, 78.0, 122.0]),
    section(0.0, [-5.0, 86.0, 128.0]),
    section(80.0, [-2.0, 84.0, 124.0]),
    section(150.0, [2.0, 72.0, 106.0]),
    section(210.0, [5.0, 50.0, 74.0]),
    section(250.0, [5.0, 30.0, 35.0]),
    section(340.0, [5.0, 24.0, 24.0]),
];

/// Outside of the muscles.
const OUTLINE: [Section; 12] = [
    section(-440.0, [16.0, 98.0, 168.0]),
    section(-330.0, [19.0, 99.0, 172.0]),
    section(-250.0, [14.0, 98.0, 160.0]),
    section(-170.0, [7.5, 95.5, 138.0]),
    section(-90.0, [4.5, 101.0, 135.0]),
    section(0.0, [4.5, 107.5, 143.0]),
    section(80.0, [7.0, 105.0, 143.0]),
    section(150.0, [11.0, 95.0, 143.0]),
    section(210.0, [16.0, 82.0, 158.0]),
    section(250.0, [23.0, 69.0, 160.0]),
    section(295.0, [23.0, 61.0, 92.0]),
    section(350.0, [17.0, 60.0, 60.0]),
];

/// What the body is where no organ lies.
#[derive(Clone, Debug)]
pub(super) struct Trunk {
    pub(super) cavity: Loft,
    outline: Loft,
    pub(super) dome: Dome,
    pub(super) fat_mm: f32,
    pub(super) muscle: Tissue,
    pub(super) rib: Tissue,
    /// Moves the ribs up, in mm.
    pub(super) rib_offset: f32,
    pub(super) seed: u32,
}

/// The base at one point.
pub(super) struct Base {
    pub(super) hounsfield: f32,
    /// Distance from the skin, mm, negative inside.
    pub(super) from_skin: f32,
}

const SKIN_MM: f32 = 2.0;
/// Beyond this distance from the skin there is only air.
pub(super) const FAR_MM: f32 = 12.0;

impl Trunk {
    pub(super) fn new(fat_mm: f32, dome: Dome, muscle: Tissue, rib: Tissue, seed: u32) -> Self {
        let (cavity, outline) = (Loft::new(&CAVITY), Loft::new(&OUTLINE));
        Self { cavity, outline, dome, fat_mm, muscle, rib, rib_offset: 0.0, seed }
    }

    /// Distances from the skin and from the muscles under it, mm, negative inside.
    pub(super) fn distances(&self, p: Point) -> (f32, f32) {
        let from_muscle = self.outline.distance(p);
        let uneven = noise::smooth(self.seed, p, 110.0);
        let fat = self.fat_mm * (1.0 + 0.35 * uneven);
        (from_muscle - fat - SKIN_MM, from_muscle)
    }

    /// The farthest the body reaches to the back, mm.
    pub(super) fn back(&self) -> f32 {
        let deepest = OUTLINE.iter().map(|s| s.centre_y + s.half_y);
        deepest.fold(0.0, f32::max) + 1.1 * self.fat_mm
    }

    /// Layers from the outside in, mixed over `blur` mm.
    pub(super) fn at(&self, p: Point, blur: f32, texture: f32) -> Base {
        let (from_skin, from_muscle) = self.distances(p);
        let mut base = Base { hounsfield: AIR, from_skin };
        if from_skin > FAR_MM {
            return base;
        }
        let cover = |distance: f32| (0.5 - distance / blur).clamp(0.0, 1.0);
        let mut paint = |amount: f32, value: f32| {
            base.hounsfield += amount * (value - base.hounsfield);
        };
        paint(cover(from_skin), 15.0);
        let in_fat = cover(from_skin + SKIN_MM);
        if in_fat > 0.0 {
            paint(in_fat, FAT + 7.0 * texture);
        }
        let in_muscle = cover(from_muscle);
        if in_muscle > 0.0 {
            let from_cavity = self.cavity.distance(p);
            paint(in_muscle, self.muscle.at(p, from_muscle, texture));
            paint(cover(from_cavity), FAT + 9.0 * texture);
            if (-8.0..18.0).contains(&from_cavity) {
                let (distance, cartilage) = self.rib(p, from_cavity);
                if distance < blur {
                    let bone = self.rib.at(p, distance, texture);
                    paint(cover(distance), bone + cartilage * (115.0 - bone));
                }
            }
        }
        base
    }

    /// Distance from the nearest rib, and how much of it is cartilage there.
    ///
    /// Ribs run in the wall at a constant distance from the cavity, falling towards the front.
    fn rib(&self, p: Point, from_cavity: f32) -> (f32, f32) {
        const PITCH_MM: f32 = 25.5;
        const FIRST_MM: f32 = 214.0;
        let around = p[2].abs().atan2(p[1] - self.cavity.section(p[0]).centre_y);
        let front = around / std::f32::consts::PI;
        let along = p[0] - self.rib_offset + 12.0 + 84.0 * front * (1.3 - 0.45 * front);
        let number = ((FIRST_MM - along) / PITCH_MM).round();
        if !(0.0..12.0).contains(&number) || p[2].abs() < 22.0 && front < 0.5 {
            return (f32::MAX, 0.0);
        }
        // The bone ends sooner the lower the rib; the last two end freely.
        let end = if number > 9.5 { 0.46 } else { 0.80 - 0.022 * number };
        let tip = if number > 9.5 { end } else { 0.97 - 0.012 * number };
        let to_middle = ((FIRST_MM - number * PITCH_MM - along) / 1.35).hypot(from_cavity - 6.5);
        let beyond = 180.0 * (front - tip).max(0.0);
        (to_middle.max(beyond) - 4.6 + beyond.min(1.0), ((front - end) * 40.0).clamp(0.0, 1.0))
    }
}

/// Ribs: a thin cortex around marrow.
pub(super) fn rib_bone(cortex: f32, seed: u32) -> Tissue {
    Tissue::filled(cortex, 20.0, Fill::Bone { marrow: 260.0, cortex_mm: 1.6 }, seed)
}
