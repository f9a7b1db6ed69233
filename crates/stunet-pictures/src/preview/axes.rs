//! The patient's axes: how a volume is turned so that pictures show it as radiologists look at it.

use ndarray::ArrayView3;
use stunet_data::geometry::{Geometry, Turn};

/// An axis of a turned volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatientAxis {
    /// From the head to the feet; planes across it are axial.
    Down = 0,
    /// From the front to the back; planes across it are coronal.
    Back = 1,
    /// From the patient's right to the left; planes across it are sagittal.
    Left = 2,
}

impl PatientAxis {
    /// All of them, in the order of a turned volume's axes.
    pub const ALL: [Self; 3] = [Self::Down, Self::Back, Self::Left];

    /// What planes across it are called.
    pub fn plane(self) -> &'static str {
        ["Axial", "Coronal", "Sagittal"][self as usize]
    }

    /// Letters of its beginning and its end.
    pub(crate) fn letters(self) -> [&'static str; 2] {
        [["S", "I"], ["A", "P"], ["R", "L"]][self as usize]
    }

    /// The axes that run down and to the right in a picture of a plane across it.
    pub(crate) fn others(self) -> [Self; 2] {
        match self {
            Self::Down => [Self::Back, Self::Left],
            Self::Back => [Self::Down, Self::Left],
            Self::Left => [Self::Down, Self::Back],
        }
    }
}

/// A grid in the patient's axes: the nearest of the 48 ways to turn it at right angles.
#[derive(Clone, Debug)]
pub(crate) struct PatientGrid {
    pub turn: Turn,
    /// Voxels along the patient's axes.
    pub shape: [usize; 3],
    /// Their lengths in mm.
    pub mm: [f64; 3],
    /// Largest angle between an axis and the patient's, in degrees.
    pub oblique_degrees: f64,
    geometry: Geometry,
}

impl PatientGrid {
    pub fn of(geometry: &Geometry) -> Self {
        // Rows: left, back, up (LPS); columns: the array's axes backwards.
        let direction = geometry.direction();
        let along = |axis: usize, component: usize| direction[component][2 - axis];
        const ORDERS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        // The patient's axis `i` has component `2 - i`.
        let close = |axes: &[usize; 3]| (0..3).map(|i| along(axes[i], 2 - i).abs()).sum::<f64>();
        let axes = ORDERS.into_iter().max_by(|a, b| close(a).total_cmp(&close(b)));
        let axes = axes.expect("there are six");
        let flipped = [along(axes[0], 2) > 0.0, along(axes[1], 1) < 0.0, along(axes[2], 0) < 0.0];
        let turn = Turn::new(axes, flipped).expect("an order of the axes");
        let mm = turn.reorder(geometry.voxel_size_mm());
        let angle = |i: usize| along(axes[i], 2 - i).abs().min(1.0).acos().to_degrees();
        let oblique_degrees = (0..3).map(angle).fold(0.0, f64::max);
        let geometry = geometry.turned(turn, mm).expect("a turned grid is a grid");
        Self { turn, shape: geometry.shape(), mm, oblique_degrees, geometry }
    }

    /// Fails where another volume does not lie on the same grid, however it is stored.
    pub fn check_same(&self, other: &Self) -> stunet_data::Result<()> {
        self.geometry.check_same_grid(&other.geometry)
    }

    pub fn turned<'a, T>(&self, volume: ArrayView3<'a, T>) -> ArrayView3<'a, T> {
        self.turn.apply(volume)
    }

    /// Where the middle of a plane lies along its axis, such as `S 123.4 mm`.
    pub fn position(&self, axis: PatientAxis, index: usize) -> String {
        let mut at = self.shape.map(|n| (n - 1) as f64 / 2.0);
        at[axis as usize] = index as f64;
        // RAS: to the right, to the front and up, from the indices of x, y, z.
        let row = self.geometry.world_from_voxel()[2 - axis as usize];
        let mm = row[0] * at[2] + row[1] * at[1] + row[2] * at[0] + row[3];
        let [begin, end] = axis.letters();
        // All three axes begin where the world's component is largest.
        let letter = if mm >= 0.0 { begin } else { end };
        format!("{letter} {:.1} mm", mm.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    /// A volume whose values say where in the patient they lie, stored in any order.
    #[test]
    fn all_orientations_are_turned_to_one() {
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        // Up, back and left along the arrays' axes.
        let plain = Geometry::new([5, 7, 11], [3.0, 1.0, 0.5], [10.0, 20.0, 30.0], identity);
        let plain = plain.unwrap();
        let values = Array3::from_shape_fn((5, 7, 11), |(z, y, x)| 100 * z + 10 * y + x);
        let expected = PatientGrid::of(&plain);
        let wanted = expected.turned(values.view()).to_owned();
        assert_eq!(expected.shape, [5, 7, 11]);
        // From the head, the front and the right.
        assert_eq!(wanted[[0, 0, 0]], values[[4, 0, 0]]);
        assert_eq!(expected.position(PatientAxis::Down, 0), "S 42.0 mm");
        assert_eq!(expected.position(PatientAxis::Back, 6), "P 26.0 mm");
        assert_eq!(expected.position(PatientAxis::Left, 0), "L 10.0 mm");
        for order in 0..48 {
            let axes = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
            let flipped = std::array::from_fn(|i| (order / 6) >> i & 1 == 1);
            let turn = Turn::new(axes[order % 6], flipped).unwrap();
            let stored = turn.apply(values.view()).to_owned();
            let geometry = plain.turned(turn, turn.reorder(plain.spacing_mm())).unwrap();
            let grid = PatientGrid::of(&geometry);
            assert_eq!(grid.turned(stored.view()), wanted, "{order}");
            assert_eq!(grid.mm, expected.mm, "{order}");
            grid.check_same(&expected).unwrap();
            for axis in PatientAxis::ALL {
                assert_eq!(grid.position(axis, 3), expected.position(axis, 3), "{order}");
            }
        }
    }

    #[test]
    fn oblique_grids_are_turned_to_the_nearest() {
        let (s, c) = 12f64.to_radians().sin_cos();
        let turned = [[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]];
        let geometry = Geometry::new([5, 7, 11], [1.0; 3], [0.0; 3], turned).unwrap();
        let grid = PatientGrid::of(&geometry);
        assert_eq!(grid.turn.axes(), [0, 1, 2]);
        assert!((grid.oblique_degrees - 12.0).abs() < 1e-9);
    }
}
