//! Exact Euclidean distances to the nearest of many grid points, where they are asked for.

use rayon::prelude::*;

/// No point in this column.
const NONE: u16 = u16::MAX;

/// Points on a grid, prepared so that distances to the nearest of them are quick to find.
///
/// The points are first reduced to steps along z, two bytes for every point of the grid; the other
/// two axes are done plane by plane, and only where somebody asks. Distances are exact: squares are
/// added in the order z, y, x, as SciPy's `distance_transform_edt` adds them, so that they are equal
/// to its to the last bit but where several points are equally near.
///
/// # Source
/// Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, Theory of Computing 8
/// (2012): the lower envelope of parabolas, one axis after the other.
pub(super) struct NearestPoint {
    /// Steps along z to the nearest point, `[y, z, x]`.
    steps: Vec<u16>,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
}

impl NearestPoint {
    /// Of the points where `is_point` is true, `[z, y, x]`.
    ///
    /// # Panics
    /// When the grid is empty, has 65535 planes or more, or `is_point` has another length.
    pub fn new(is_point: &[bool], shape: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        let [depth, height, width] = shape;
        assert_eq!(is_point.len(), depth * height * width, "points of another grid");
        assert!(depth < usize::from(NONE) && width > 0, "a grid of a volume");
        let mut steps = vec![NONE; is_point.len()];
        steps.par_chunks_mut(depth * width).enumerate().for_each(|(y, rows)| {
            let points = |z: usize| &is_point[(z * height + y) * width..][..width];
            for z in 0..depth {
                let (above, here) = rows.split_at_mut(z * width);
                let above = &above[z.saturating_sub(1) * width..];
                for (x, (step, point)) in here[..width].iter_mut().zip(points(z)).enumerate() {
                    let before = if z == 0 { NONE } else { above[x] };
                    *step = if *point { 0 } else { before.saturating_add(1) };
                }
            }
            for z in (0..depth.saturating_sub(1)).rev() {
                let (here, below) = rows.split_at_mut((z + 1) * width);
                for (step, below) in here[z * width..].iter_mut().zip(below) {
                    *step = (*step).min(below.saturating_add(1));
                }
            }
        });
        Self { steps, shape, spacing_mm }
    }

    /// Distances in mm at the grid points where `asked` is true, in the order z, y, x.
    ///
    /// Infinite where there is no point at all.
    pub fn distances(&self, asked: &[bool]) -> Vec<f64> {
        let [depth, height, width] = self.shape;
        assert_eq!(asked.len(), depth * height * width, "another grid");
        let planes: Vec<Vec<f64>> = (0..depth)
            .into_par_iter()
            .map_init(
                || Plane::new(height, width),
                |plane, z| {
                    let asked = &asked[z * height * width..][..height * width];
                    if asked.contains(&true) { self.plane(z, asked, plane) } else { Vec::new() }
                },
            )
            .collect();
        planes.concat()
    }

    fn plane(&self, z: usize, asked: &[bool], plane: &mut Plane) -> Vec<f64> {
        let [depth, height, width] = self.shape;
        let [dz, dy, dx] = self.spacing_mm;
        for y in 0..height {
            let row = &self.steps[(y * depth + z) * width..][..width];
            for (x, step) in row.iter().enumerate() {
                let along_z = f64::from(*step) * dz;
                plane.by_column[x * height + y] =
                    if *step == NONE { f64::INFINITY } else { along_z * along_z };
            }
        }
        // Rows in which nobody asks are left out.
        let wanted: Vec<usize> =
            (0..height).filter(|y| asked[y * width..][..width].contains(&true)).collect();
        for (x, column) in plane.by_column.chunks_exact(height).enumerate() {
            plane.envelope.build(column, dy);
            plane.envelope.read(column, dy, wanted.iter().copied(), |y, square| {
                plane.by_row[y * width + x] = square;
            });
        }
        let mut found = Vec::new();
        for y in wanted {
            let (row, asked) = (&plane.by_row[y * width..][..width], &asked[y * width..][..width]);
            plane.envelope.build(row, dx);
            let places = (0..width).filter(|x| asked[*x]);
            plane.envelope.read(row, dx, places, |_, square| found.push(square.sqrt()));
        }
        found
    }
}

/// Squared distances within one plane.
struct Plane {
    by_column: Vec<f64>,
    by_row: Vec<f64>,
    envelope: Envelope,
}

impl Plane {
    fn new(height: usize, width: usize) -> Self {
        let empty = vec![0.0; height * width];
        Self { by_column: empty.clone(), by_row: empty, envelope: Envelope::default() }
    }
}

/// The lower envelope of parabolas that stand on the places of a line.
#[derive(Default)]
struct Envelope {
    /// Where a parabola that is lowest somewhere stands, and from which place on it is.
    lowest: Vec<(usize, f64)>,
}

impl Envelope {
    /// Of parabolas `heights[i] + (step (x - i))²`; infinite ones are left out.
    fn build(&mut self, heights: &[f64], step: f64) {
        self.lowest.clear();
        let square = step * step;
        for (place, height) in heights.iter().enumerate().filter(|(_, h)| h.is_finite()) {
            let mut from = f64::NEG_INFINITY;
            while let Some(&(other, begin)) = self.lowest.last() {
                let apart = (place - other) as f64;
                let middle = (place + other) as f64 / 2.0;
                from = middle + (height - heights[other]) / (2.0 * square * apart);
                if from > begin {
                    break;
                }
                self.lowest.pop();
                from = f64::NEG_INFINITY;
            }
            self.lowest.push((place, from));
        }
    }

    /// Heights of the envelope at ascending places.
    fn read(
        &self,
        heights: &[f64],
        step: f64,
        places: impl Iterator<Item = usize>,
        mut take: impl FnMut(usize, f64),
    ) {
        let mut at = 0;
        for place in places {
            if self.lowest.is_empty() {
                take(place, f64::INFINITY);
                continue;
            }
            while self.lowest.get(at + 1).is_some_and(|(_, from)| *from < place as f64) {
                at += 1;
            }
            let (stands, _) = self.lowest[at];
            let along = place.abs_diff(stands) as f64 * step;
            take(place, heights[stands] + along * along);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stunet_testing::prng;

    fn points(seed: u64, count: usize, one_in: u64) -> Vec<bool> {
        prng::integers(seed, 0, count, one_in).iter().map(|v| *v == 0).collect()
    }

    fn by_hand(points: &[bool], [_, h, w]: [usize; 3], mm: [f64; 3], at: usize) -> f64 {
        let place = |i: usize| [i / (h * w), i / w % h, i % w];
        let square = |from: usize| {
            let (a, b) = (place(from), place(at));
            (0..3).map(|i| (a[i].abs_diff(b[i]) as f64 * mm[i]).powi(2)).sum::<f64>()
        };
        let squares = points.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| square(i));
        squares.fold(f64::INFINITY, f64::min).sqrt()
    }

    proptest! {
        #[test]
        fn every_distance_is_the_smallest(
            seed in 0u64..10_000,
            shape in prop::array::uniform3(1usize..9),
            mm in prop::array::uniform3(0.2f64..6.0),
            one_in in 1u64..60,
        ) {
            let count = shape.iter().product();
            let points = points(seed, count, one_in);
            let nearest = NearestPoint::new(&points, shape, mm);
            let found = nearest.distances(&vec![true; count]);
            for (at, found) in found.iter().enumerate() {
                let expected = by_hand(&points, shape, mm, at);
                let same = *found == expected || (found - expected).abs() <= 1e-12 * expected;
                prop_assert!(same, "{at}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn only_what_is_asked_for_and_in_order() {
        let (shape, mm) = ([5, 7, 11], [3.0, 1.0, 0.5]);
        let (points, asked) = (points(1, 5 * 7 * 11, 9), points(2, 5 * 7 * 11, 5));
        let found = NearestPoint::new(&points, shape, mm).distances(&asked);
        let expected: Vec<f64> = (0..asked.len())
            .filter(|at| asked[*at])
            .map(|at| by_hand(&points, shape, mm, at))
            .collect();
        assert_eq!(found, expected);
        let nothing = NearestPoint::new(&vec![false; 385], shape, mm).distances(&asked);
        assert!(nothing.len() == expected.len() && nothing.iter().all(|d| *d == f64::INFINITY));
    }
}
