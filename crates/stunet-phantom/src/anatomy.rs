//! The reference body, and how one body differs from the next.
//!
//! Parts are painted in order: later ones cover earlier ones.

mod abdomen;
mod chest;
mod skeleton;

use super::shape::{Dome, Point, Shape, Solid, turned};
use super::tissue::{Enhancement, FAT, Fill, Tissue};
use super::trunk::{Trunk, rib_bone};
use chacha20::ChaCha8Rng;
use rand::RngExt;

/// What painting a part does to the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// The part has this label.
    Label(u16),
    /// The part has none.
    Clear,
    /// The part lies within another and keeps its label.
    Keep,
}

/// A piece of anatomy.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) solid: Solid,
    pub(super) tissue: Tissue,
    pub(super) paint: Paint,
}

/// One body, in the reference frame: mm up, back and left from the middle of the diaphragm.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) trunk: Trunk,
    pub(super) parts: Vec<Part>,
}

/// Draws what differs from body to body.
struct Sculptor<'a> {
    rng: &'a mut ChaCha8Rng,
    parts: Vec<Part>,
    blood: Enhancement,
}

impl Sculptor<'_> {
    fn between(&mut self, low: f32, high: f32) -> f32 {
        self.rng.random_range(low..high)
    }

    /// A factor near 1.
    fn factor(&mut self, amount: f32) -> f32 {
        1.0 + self.rng.random_range(-amount..amount)
    }

    fn moved(&mut self, p: Point, by_mm: f32) -> Point {
        p.map(|v| v + self.rng.random_range(-by_mm..by_mm))
    }

    fn seed(&mut self) -> u32 {
        self.rng.random()
    }

    /// An ellipsoid moved by up to 5 mm, stretched by up to 9 %, tilted by up to 8 degrees.
    fn egg(&mut self, centre: Point, radii: Point, tilt: Point) -> Shape {
        let centre = self.moved(centre, 5.0);
        let whole = self.factor(0.05);
        let radii = radii.map(|r| r * whole * self.factor(0.05));
        let frame = turned(self.moved(tilt, 8.0));
        Shape::Ellipsoid { centre, frame, radii }
    }

    /// A tube whose nodes `[z, y, x, radius]` wander by up to `by_mm`.
    fn tube(&mut self, nodes: &[[f32; 4]], by_mm: f32) -> Shape {
        let thickness = self.factor(0.12);
        let shift = self.moved([0.0; 3], by_mm);
        let nodes = nodes.iter().map(|&[z, y, x, radius]| {
            let p = self.moved([z + shift[0], y + shift[1], x + shift[2]], 0.6 * by_mm);
            (p, radius * thickness)
        });
        Shape::Tube(nodes.collect())
    }

    fn paint(&mut self, solid: Solid, tissue: Tissue, paint: Paint) {
        self.parts.push(Part { solid, tissue, paint });
    }

    fn filled(&mut self, mean: f32, grain: f32, fill: Fill) -> Tissue {
        let seed = self.seed();
        Tissue::filled(mean, grain, fill, seed)
    }

    /// Roughens a solid's surface.
    fn rough(&mut self, solid: Solid, amount_mm: f32, scale_mm: f32) -> Solid {
        let amount = amount_mm * self.factor(0.4);
        let seed = self.seed();
        solid.uneven(amount, scale_mm, seed)
    }

    fn fat(&self) -> Tissue {
        Tissue::even(FAT, 8.0)
    }
}

impl Body {
    /// The body of one generator.
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let blood = Enhancement::draw(rng);
        let mut sculptor = Sculptor { rng, parts: Vec::new(), blood };
        let trunk = trunk(&mut sculptor);
        abdomen::paint_behind(&mut sculptor, &trunk);
        chest::paint(&mut sculptor, &trunk);
        abdomen::paint(&mut sculptor, &trunk);
        chest::paint_heart(&mut sculptor, &trunk);
        chest::paint_vessels(&mut sculptor);
        skeleton::paint(&mut sculptor);
        Self { trunk, parts: sculptor.parts }
    }
}

fn trunk(sculptor: &mut Sculptor<'_>) -> Trunk {
    // Most people are neither very lean nor very heavy.
    let (lean, heavy) = (sculptor.rng.random::<f32>(), sculptor.rng.random::<f32>());
    let fat_mm = 5.0 + 30.0 * lean * heavy + 6.0 * lean;
    let breath = sculptor.between(-14.0, 14.0);
    let dome = Dome {
        top: [
            24.0 + breath + sculptor.between(-5.0, 5.0),
            10.0 + breath + sculptor.between(-6.0, 6.0),
        ],
        centre_x: [-62.0 + sculptor.between(-5.0, 5.0), 60.0 + sculptor.between(-5.0, 5.0)],
        raised_by: 0.0,
    };
    let muscle = sculptor.blood.muscle;
    let muscle = sculptor.filled(muscle, 9.0, Fill::Muscle);
    let cortex = sculptor.between(520.0, 760.0);
    let seed = sculptor.seed();
    let mut trunk = Trunk::new(fat_mm, dome, muscle, rib_bone(cortex, seed), seed);
    trunk.rib_offset = sculptor.between(-9.0, 9.0);
    trunk
}

/// The label of a structure by its name.
fn label(name: &str) -> Paint {
    let index = super::STRUCTURES.iter().position(|known| *known == name);
    Paint::Label(index.expect("a name of the list") as u16 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_structure_is_painted_once_or_more() {
        let body = Body::draw(&mut ChaCha8Rng::seed_from_u64(1));
        for name in super::super::STRUCTURES {
            assert!(body.parts.iter().any(|part| part.paint == label(name)), "{name}");
        }
    }
}
