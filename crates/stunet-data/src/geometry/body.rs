//! Voxels and axes in the patient.

use super::Geometry;
use serde::{Deserialize, Serialize};

/// A direction from the middle of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodySide {
    /// The patient's left.
    Left,
    /// The patient's right.
    Right,
    /// To the back.
    Posterior,
    /// To the front.
    Anterior,
    /// To the feet.
    Inferior,
    /// To the head.
    Superior,
}

impl BodySide {
    /// Its name, such as `superior`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Posterior => "posterior",
            Self::Anterior => "anterior",
            Self::Inferior => "inferior",
            Self::Superior => "superior",
        }
    }
}

impl Geometry {
    /// The place of a voxel index, which need not be whole: `[z, y, x]` in, x, y, z of RAS in mm out.
    pub(crate) fn world_of(&self, index: [f64; 3]) -> [f64; 3] {
        let affine = self.world_from_voxel();
        let [z, y, x] = index;
        std::array::from_fn(|row| {
            let [a, b, c, offset] = affine[row];
            a * x + b * y + c * z + offset
        })
    }

    /// The smallest box of RAS around a box of voxels, `[z, y, x]` of its first and its last, outer
    /// edges included.
    pub(crate) fn world_box(&self, first: [usize; 3], last: [usize; 3]) -> [[f64; 3]; 2] {
        let mut ends = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for corner in 0..8 {
            let index = std::array::from_fn(|axis| match corner >> axis & 1 {
                0 => first[axis] as f64 - 0.5,
                _ => last[axis] as f64 + 0.5,
            });
            for (axis, value) in self.world_of(index).into_iter().enumerate() {
                ends[0][axis] = ends[0][axis].min(value);
                ends[1][axis] = ends[1][axis].max(value);
            }
        }
        ends
    }

    /// For each axis `[z, y, x]` the directions in the patient at its beginning and at its end. Every
    /// axis has other ones, also where a grid is oblique: those with the largest product of cosines.
    pub(crate) fn sides(&self) -> [[BodySide; 2]; 3] {
        use BodySide::{Anterior, Inferior, Left, Posterior, Right, Superior};
        const ORDERS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        // Beginning and end of the axes of LPS.
        const ENDS: [[BodySide; 2]; 3] =
            [[Right, Left], [Anterior, Posterior], [Inferior, Superior]];
        let direction = self.direction();
        let fit = |order: &[usize; 3]| -> f64 {
            (0..3).map(|column| direction[order[column]][column].abs()).product()
        };
        let best = ORDERS.into_iter().max_by(|a, b| fit(a).total_cmp(&fit(b)));
        let best = best.expect("there are six orders");
        // Columns of the direction are in the order x, y, z.
        [2, 1, 0].map(|column| {
            let [begin, end] = ENDS[best[column]];
            if direction[best[column]][column] < 0.0 { [end, begin] } else { [begin, end] }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BodySide::{Anterior, Inferior, Left, Posterior, Right, Superior};

    fn check(rows: [[f64; 3]; 3], expected: [[BodySide; 2]; 3]) {
        let affine = [
            [rows[0][0], rows[0][1], rows[0][2], 5.0],
            [rows[1][0], rows[1][1], rows[1][2], -7.0],
            [rows[2][0], rows[2][1], rows[2][2], 11.0],
            [0.0, 0.0, 0.0, 1.0],
        ];
        let geometry = Geometry::from_world_from_voxel([2, 3, 4], &affine).unwrap();
        assert_eq!(geometry.sides(), expected, "{rows:?}");
    }

    #[test]
    fn beginnings_and_ends_of_axes() {
        let ras = [[Inferior, Superior], [Posterior, Anterior], [Left, Right]];
        check([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]], ras);
        let lps = [[Inferior, Superior], [Anterior, Posterior], [Right, Left]];
        check([[-1.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 3.0]], lps);
        // The file's z runs to the front, its y to the feet: a coronal series.
        let coronal = [[Posterior, Anterior], [Superior, Inferior], [Right, Left]];
        check([[-1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, -3.0, 0.0]], coronal);
        // Two axes are closest to the front; one of them has to be another one.
        let oblique = [[Inferior, Superior], [Posterior, Anterior], [Left, Right]];
        check([[0.6, 0.1, 0.0], [0.8, 0.9, 0.3], [0.0, -0.2, 0.9]], oblique);
    }

    #[test]
    fn places_are_nibabels() {
        let affine = [
            [2.0, 0.0, 0.5, 5.0],
            [0.0, -3.0, 0.0, -7.0],
            [0.25, 0.0, 4.0, 11.0],
            [0.0, 0.0, 0.0, 1.0],
        ];
        let geometry = Geometry::from_world_from_voxel([2, 3, 4], &affine).unwrap();
        // By hand: i = 3, j = 2, k = 1.
        let found = geometry.world_of([1.0, 2.0, 3.0]);
        for (found, expected) in found.into_iter().zip([11.5, -13.0, 15.75]) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
        let [low, high] = geometry.world_box([0, 0, 0], [1, 2, 3]);
        for (found, expected) in low.into_iter().zip([3.75, -14.5, 8.875]) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
        for (found, expected) in high.into_iter().zip([12.75, -5.5, 17.875]) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
    }
}
