//! Solids by their distance in mm: negative inside, and near the surface about right.

use super::noise;
pub(super) use super::point::{Point, dot, sub};

/// Turns by `degrees` about z, then y, then x, as rows that take a point into the turned frame.
pub(super) fn turned(degrees: Point) -> [Point; 3] {
    let [(sz, cz), (sy, cy), (sx, cx)] = degrees.map(|d| d.to_radians().sin_cos());
    let about_z = [[1.0, 0.0, 0.0], [0.0, cz, sz], [0.0, -sz, cz]];
    let about_y = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
    let about_x = [[cx, sx, 0.0], [-sx, cx, 0.0], [0.0, 0.0, 1.0]];
    product(&about_x, &product(&about_y, &about_z))
}

fn product(a: &[Point; 3], b: &[Point; 3]) -> [Point; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

pub(super) fn apply(rows: &[Point; 3], p: Point) -> Point {
    rows.map(|row| dot(row, p))
}

/// A box by its corners.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) low: Point,
    pub(super) high: Point,
}

impl Bounds {
    pub(super) const EVERYWHERE: Self = Self { low: [f32::MIN; 3], high: [f32::MAX; 3] };
    pub(super) const NOWHERE: Self = Self { low: [f32::MAX; 3], high: [f32::MIN; 3] };

    pub(super) fn include(&mut self, p: Point) {
        self.low = std::array::from_fn(|axis| self.low[axis].min(p[axis]));
        self.high = std::array::from_fn(|axis| self.high[axis].max(p[axis]));
    }

    pub(super) fn grown(self, by: f32) -> Self {
        Self { low: self.low.map(|v| v - by), high: self.high.map(|v| v + by) }
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        (0..3).all(|axis| self.low[axis] <= other.high[axis] && other.low[axis] <= self.high[axis])
    }

    fn union(mut self, other: Self) -> Self {
        self.include(other.low);
        self.include(other.high);
        self
    }

    fn common(self, other: Self) -> Self {
        Self {
            low: std::array::from_fn(|i| self.low[i].max(other.low[i])),
            high: std::array::from_fn(|i| self.high[i].min(other.high[i])),
        }
    }
}

/// A cross-section of a [`Loft`]: half widths along x and y around a centre line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) z: f32,
    pub(super) centre_y: f32,
    pub(super) half_y: f32,
    pub(super) half_x: f32,
}

/// Cross-sections between an ellipse and a rectangle, joined along z.
#[derive(Clone, Debug)]
pub(super) struct Loft {
    first_z: f32,
    sections: Vec<Section>,
}

impl Loft {
    const STEP_MM: f32 = 5.0;

    /// Joins cross-sections, given from below to above, smoothly.
    pub(super) fn new(keys: &[Section]) -> Self {
        let (first, last) = (keys[0].z, keys[keys.len() - 1].z);
        let count = ((last - first) / Self::STEP_MM).ceil() as usize + 1;
        let sections = (0..count).map(|i| between(keys, first + Self::STEP_MM * i as f32));
        Self { first_z: first, sections: sections.collect() }
    }

    /// The cross-section at a height; beyond the ends, that of the end.
    pub(super) fn section(&self, z: f32) -> Section {
        let last = self.sections.len() - 1;
        let place = ((z - self.first_z) / Self::STEP_MM).clamp(0.0, last as f32);
        let below = (place as usize).min(last.saturating_sub(1));
        let (a, b, t) =
            (self.sections[below], self.sections[(below + 1).min(last)], place - below as f32);
        mixed(a, b, t, z)
    }

    /// Distance along the ray from the centre line.
    pub(super) fn distance(&self, p: Point) -> f32 {
        let section = self.section(p[0]);
        let [y, x] = [p[1] - section.centre_y, p[2]];
        let (u, v) = ((y / section.half_y).abs(), (x / section.half_x).abs());
        let radius = y.hypot(x);
        // exponent 2.5
        let level = (u * u * u.sqrt() + v * v * v.sqrt()).powf(0.4);
        if level < 1e-3 {
            return -section.half_y.min(section.half_x);
        }
        radius * (1.0 - 1.0 / level)
    }
}

fn mixed(a: Section, b: Section, t: f32, z: f32) -> Section {
    let mix = |a: f32, b: f32| a + (b - a) * t;
    Section {
        z,
        centre_y: mix(a.centre_y, b.centre_y),
        half_y: mix(a.half_y, b.half_y),
        half_x: mix(a.half_x, b.half_x),
    }
}

/// Cubic Hermite between the keys around `z`, without overshoot.
fn between(keys: &[Section], z: f32) -> Section {
    let after = keys.iter().position(|k| k.z >= z).unwrap_or(keys.len() - 1).max(1);
    let (a, b) = (keys[after - 1], keys[after]);
    let t = ((z - a.z) / (b.z - a.z)).clamp(0.0, 1.0);
    mixed(a, b, 0.5 * t + 0.5 * t * t * (3.0 - 2.0 * t), z)
}

/// The diaphragm: two domes; below it is inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dome {
    pub(super) top: [f32; 2],
    pub(super) centre_x: [f32; 2],
    pub(super) raised_by: f32,
}

impl Dome {
    pub(super) fn height(&self, y: f32, x: f32) -> f32 {
        let v = (y + 12.0) / if y > -12.0 { 88.0 } else { 105.0 };
        let vault = |top: f32, centre_x: f32| {
            let u = (x - centre_x) / 80.0;
            let r2 = u * u + v * v;
            top - 85.0 * r2 * (0.45 + 0.55 * r2.min(1.6))
        };
        let sides = [0, 1].map(|i| vault(self.top[i], self.centre_x[i]));
        // The tendon between the domes, on which the heart rests.
        let tendon = vault(0.5 * (self.top[0] + self.top[1]) - 14.0, 5.0);
        let domes = smooth_max(smooth_max(sides[0], sides[1], 20.0), tendon, 20.0);
        smooth_max(domes, -150.0, 10.0) + self.raised_by
    }
}

/// A primitive.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Rows of `frame` are its axes.
    Ellipsoid { centre: Point, frame: [Point; 3], radii: Point },
    /// A polyline of varying radius.
    Tube(Vec<(Point, f32)>),
    /// A stack of cross-sections, grown by a margin.
    Loft(Loft, f32),
    /// Below the diaphragm.
    Below(Dome),
    /// Where `normal · p < offset`, for a unit normal.
    Half { normal: Point, offset: f32 },
}

impl Shape {
    fn distance(&self, p: Point) -> f32 {
        match self {
            Self::Ellipsoid { centre, frame, radii } => {
                let q = apply(frame, sub(p, *centre));
                let scaled: Point = std::array::from_fn(|i| q[i] / radii[i]);
                let level = dot(scaled, scaled).sqrt();
                let slope: Point = std::array::from_fn(|i| scaled[i] / radii[i]);
                let slope = dot(slope, slope).sqrt();
                if slope < 1e-9 {
                    return -radii[0].min(radii[1]).min(radii[2]);
                }
                level * (level - 1.0) / slope
            }
            Self::Tube(nodes) => {
                nodes.windows(2).map(|w| capsule(w[0], w[1], p)).fold(f32::MAX, f32::min)
            }
            Self::Loft(loft, margin) => loft.distance(p) - margin,
            // The dome is steep at its rim: half the height is nearer the distance.
            Self::Below(dome) => 0.75 * (p[0] - dome.height(p[1], p[2])),
            Self::Half { normal, offset } => dot(*normal, p) - offset,
        }
    }

    fn bounds(&self) -> Bounds {
        match self {
            Self::Ellipsoid { centre, frame, radii } => {
                let reach = |axis: usize| -> f32 {
                    (0..3).map(|i| (frame[i][axis] * radii[i]).powi(2)).sum::<f32>().sqrt()
                };
                Bounds {
                    low: std::array::from_fn(|i| centre[i] - reach(i)),
                    high: std::array::from_fn(|i| centre[i] + reach(i)),
                }
            }
            Self::Tube(nodes) => nodes.iter().fold(Bounds::NOWHERE, |bounds, (p, radius)| {
                bounds.union(Bounds { low: *p, high: *p }.grown(*radius))
            }),
            _ => Bounds::EVERYWHERE,
        }
    }
}

fn capsule((a, from): (Point, f32), (b, to): (Point, f32), p: Point) -> f32 {
    let (along, offset) = (sub(b, a), sub(p, a));
    let t = (dot(offset, along) / dot(along, along)).clamp(0.0, 1.0);
    let away: Point = std::array::from_fn(|i| offset[i] - t * along[i]);
    dot(away, away).sqrt() - (from + (to - from) * t)
}

/// The larger of two distances, rounded over `k` mm where they are near each other.
pub(super) fn smooth_max(a: f32, b: f32, k: f32) -> f32 {
    let near = (k - (a - b).abs()).max(0.0);
    a.max(b) + near * near / (4.0 * k)
}

/// How a shape joins the solid before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// Also inside.
    Add,
    /// Not inside.
    Cut,
    /// Only inside.
    Within,
}

/// Shapes joined in order, with rounded seams and an uneven surface.
#[derive(Clone, Debug)]
pub(super) struct Solid {
    parts: Vec<(Join, Shape)>,
    /// After so many parts nothing is added.
    num_added: usize,
    bounds: Bounds,
    /// How far the surface is moved at most, over which distance, by which seed.
    uneven: (f32, f32, u32),
    grown_by: f32,
}

impl Solid {
    const SEAM_MM: f32 = 5.0;

    pub(super) fn of(shape: Shape) -> Self {
        let bounds = shape.bounds();
        let parts = vec![(Join::Add, shape)];
        Self { parts, num_added: 1, bounds, uneven: (0.0, 1.0, 0), grown_by: 0.0 }
    }

    pub(super) fn add(mut self, shape: Shape) -> Self {
        self.bounds = self.bounds.union(shape.bounds());
        self.parts.push((Join::Add, shape));
        self.num_added = self.parts.len();
        self
    }

    pub(super) fn cut(mut self, shape: Shape) -> Self {
        self.parts.push((Join::Cut, shape));
        self
    }

    pub(super) fn within(mut self, shape: Shape) -> Self {
        self.bounds = self.bounds.common(shape.bounds());
        self.parts.push((Join::Within, shape));
        self
    }

    pub(super) fn uneven(mut self, amount_mm: f32, scale_mm: f32, seed: u32) -> Self {
        self.uneven = (amount_mm, scale_mm, seed);
        self
    }

    pub(super) fn grown(mut self, by: f32) -> Self {
        self.grown_by += by;
        self
    }

    /// Where it can be, seams and unevenness included.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds.grown(self.uneven.0 + self.grown_by.max(0.0) + Self::SEAM_MM)
    }

    pub(super) fn distance(&self, p: Point) -> f32 {
        const FAR_MM: f32 = 20.0;
        let mut distance = f32::MAX;
        for (number, (join, shape)) in self.parts.iter().enumerate() {
            // What follows only takes away.
            if number >= self.num_added && distance > FAR_MM {
                return distance;
            }
            let next = shape.distance(p);
            distance = match join {
                Join::Add if distance == f32::MAX => next,
                Join::Add => -smooth_max(-distance, -next, Self::SEAM_MM),
                Join::Cut => smooth_max(distance, -next, Self::SEAM_MM),
                Join::Within => smooth_max(distance, next, Self::SEAM_MM),
            };
        }
        let (amount, scale, seed) = self.uneven;
        // Far from the surface the unevenness changes nothing.
        if amount > 0.0 && distance.abs() < amount + 8.0 {
            distance += amount * noise::smooth(seed, p, scale);
        }
        distance - self.grown_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &Shape, p: Point, expected: f32, tolerance: f32) {
        let found = shape.distance(p);
        assert!((found - expected).abs() <= tolerance, "{p:?}: expected {expected}, found {found}");
    }

    #[test]
    fn distances_computed_by_hand() {
        let frame = turned([0.0; 3]);
        let ball = Shape::Ellipsoid { centre: [1.0, 2.0, 3.0], frame, radii: [4.0; 3] };
        check(&ball, [1.0, 2.0, 10.0], 3.0, 1e-4);
        check(&ball, [1.0, 2.0, 3.0], -4.0, 1e-4);
        let tube = Shape::Tube(vec![([0.0; 3], 2.0), ([0.0, 0.0, 10.0], 4.0)]);
        check(&tube, [0.0, 5.0, 5.0], 2.0, 1e-4);
        check(&tube, [0.0, 0.0, 17.0], 3.0, 1e-4);
        let half = Shape::Half { normal: [0.0, 1.0, 0.0], offset: 3.0 };
        check(&half, [9.0, 5.0, 9.0], 2.0, 1e-6);
    }

    #[test]
    fn an_ellipsoid_turns_with_its_frame() {
        // Long along z, turned a quarter about x: long along y.
        let frame = turned([0.0, 0.0, 90.0]);
        let egg = Shape::Ellipsoid { centre: [0.0; 3], frame, radii: [10.0, 2.0, 2.0] };
        check(&egg, [0.0, 10.0, 0.0], 0.0, 1e-4);
        check(&egg, [2.0, 0.0, 0.0], 0.0, 1e-4);
        let bounds = egg.bounds();
        assert!((bounds.high[1] - 10.0).abs() < 1e-3 && (bounds.high[0] - 2.0).abs() < 1e-3);
    }

    #[test]
    fn solids_lie_within_their_bounds() {
        let frame = turned([20.0, -30.0, 50.0]);
        let egg = Shape::Ellipsoid { centre: [5.0, -8.0, 3.0], frame, radii: [30.0, 12.0, 8.0] };
        let tube = Shape::Tube(vec![([0.0; 3], 6.0), ([20.0, 30.0, -40.0], 9.0)]);
        let solid = Solid::of(egg).add(tube).uneven(3.0, 15.0, 9);
        let bounds = solid.bounds();
        for i in 0..40_000u32 {
            let p: Point = [i % 40, i / 40 % 40, i / 1600].map(|v| (v as f32 - 15.0) * 4.0 - 10.0);
            if solid.distance(p) <= 0.0 {
                assert!(bounds.meets(&Bounds { low: p, high: p }), "{p:?}");
            }
        }
    }
}
