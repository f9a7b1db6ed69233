//! Where the axes of a volume lead, in the letters that every tool uses.

use super::{Affine, Geometry, Matrix, Turn, orthonormal};
use crate::error::{DataError, Result, invalid};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where the voxel axes x, y, z of a volume lead, such as `RAS`: to the right, the front and the top.
///
/// Each letter is the end of the body that its axis runs towards: `R` or `L`, `A` or `P`, `S` or `I`.
/// An oblique volume has the letters of the closest axes. There are 48.
///
/// ```
/// use stunet_data::geometry::{Geometry, Orientation};
/// // ITK's and DICOM's own axes run to the left, the back and the top.
/// let grid = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5])?;
/// assert_eq!(Orientation::of(&grid), Orientation::LPS);
/// let turned = grid.oriented("SRA".parse()?)?;
/// assert_eq!((turned.shape(), turned.spacing_mm()), ([7, 11, 5], [1.0, 0.5, 3.0]));
/// assert_eq!(turned.in_file(), &grid);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
///
/// # Source
/// nibabel 5.3 `orientations.py`: `io_orientation` and `aff2axcodes`; held against nibabel's by
/// `nifti/reader/tests.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Orientation {
    /// The axis of the body along voxel axis x, y, z: 0 to the right, 1 to the front, 2 to the top.
    along: [usize; 3],
    /// Whether the voxel axis runs the other way.
    against: [bool; 3],
}

/// Letters of the two ends of the body's axes.
const ENDS: [[char; 2]; 3] = [['R', 'L'], ['A', 'P'], ['S', 'I']];

impl Orientation {
    /// To the right, the front and the top: NIfTI's world.
    pub const RAS: Self = Self { along: [0, 1, 2], against: [false; 3] };
    /// To the left, the back and the top: the world of ITK and DICOM.
    pub const LPS: Self = Self { along: [0, 1, 2], against: [true, true, false] };

    /// That of a grid.
    pub fn of(grid: &Geometry) -> Self {
        Self::closest(&columns(&grid.world_from_voxel()))
    }

    /// All 48.
    pub fn all() -> impl Iterator<Item = Self> {
        const ORDERS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let signs = (0..8).map(|bits| [0, 1, 2].map(|axis| bits >> axis & 1 == 1));
        signs.flat_map(|against| ORDERS.map(|along| Self { along, against }))
    }

    /// The one that is closest to axes (RAS, as columns): the clearest axis is placed first, each takes
    /// the body's axis it has most of, of those that are left.
    pub(crate) fn closest(axes: &Matrix) -> Self {
        let mut rest = orthonormal(axes);
        let clearness = |m: &Matrix, c: usize| (0..3).map(|r| m[r][c].powi(2)).fold(0.0, f64::max);
        let clear: [f64; 3] = std::array::from_fn(|c| clearness(&rest, c));
        let mut order = [0, 1, 2];
        order.sort_by(|a, b| clear[*b].total_cmp(&clear[*a]));
        let mut found = Self::RAS;
        for column in order {
            let size = |row: usize| rest[row][column].abs();
            let most = (0..3).fold(0, |best, row| if size(row) > size(best) { row } else { best });
            found.along[column] = most;
            found.against[column] = rest[most][column] < 0.0;
            rest[most] = [0.0; 3];
        }
        found
    }

    /// The turn that brings a volume of this orientation to another one.
    pub fn turn_to(self, other: Self) -> Turn {
        let (mut from, mut flipped) = ([0; 3], [false; 3]);
        for (to, along) in other.along.into_iter().enumerate() {
            let own = self.along.into_iter().position(|axis| axis == along);
            let own = own.expect("every orientation has all three axes");
            // Arrays are z, y, x; letters are x, y, z.
            from[2 - to] = 2 - own;
            flipped[2 - to] = self.against[own] != other.against[to];
        }
        Turn::new(from, flipped).expect("every axis is taken once")
    }
}

impl Geometry {
    /// The grid after its axes were turned to an orientation; as it is where they run so already. The
    /// file's own is remembered. A plane, whose axes are only two, is never turned.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn oriented(&self, to: Orientation) -> Result<Self> {
        match Orientation::of(self).turn_to(to) {
            Turn::NONE => Ok(self.clone()),
            _ if self.is_plane() => Ok(self.clone()),
            turn => self.turned(turn, turn.reorder(self.spacing_mm())),
        }
    }
}

/// The axes of an affine as columns, with their lengths.
pub(crate) fn columns(affine: &Affine) -> Matrix {
    std::array::from_fn(|r| std::array::from_fn(|c| affine[r][c]))
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = self.along.into_iter().zip(self.against);
        // Padding counts for the whole word.
        f.pad(&axes.map(|(along, against)| ENDS[along][usize::from(against)]).collect::<String>())
    }
}

impl FromStr for Orientation {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let expected = "three letters, one each of R or L, A or P, S or I, such as RAS";
            invalid("orientation", "axes", expected, format_args!("{text:.40}"))
        };
        let letters: Vec<char> = text.chars().take(4).collect();
        let letters: [char; 3] = letters.try_into().map_err(|_| bad())?;
        let (mut along, mut against) = ([0; 3], [false; 3]);
        for (axis, letter) in letters.into_iter().enumerate() {
            let letter = letter.to_ascii_uppercase();
            along[axis] = ENDS.iter().position(|ends| ends.contains(&letter)).ok_or_else(bad)?;
            against[axis] = ENDS[along[axis]][1] == letter;
        }
        let mut sorted = along;
        sorted.sort_unstable();
        match sorted {
            [0, 1, 2] => Ok(Self { along, against }),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Orientation {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Orientation> for String {
    fn from(orientation: Orientation) -> Self {
        orientation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use std::collections::BTreeSet;

    #[test]
    fn letters_of_axes() {
        let check = |affine: [[f64; 3]; 3], expected: &str| {
            let row = |r: usize| [affine[r][0], affine[r][1], affine[r][2], 0.0];
            let affine = [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]];
            let geometry = Geometry::from_world_from_voxel([2, 3, 4], &affine).unwrap();
            assert_eq!(Orientation::of(&geometry).to_string(), expected);
        };
        // As nibabel's aff2axcodes.
        check([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 4.0]], "RAS");
        check([[-2.0, 0.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, 4.0]], "LPS");
        check([[0.0, 0.0, 4.0], [2.0, 0.0, 0.0], [0.0, -3.0, 0.0]], "AIR");
        check([[1.9, 0.5, 0.1], [-0.5, 2.9, 0.3], [0.1, -0.4, -4.0]], "RAI");
    }

    /// An axis is nobody else's, however oblique the volume: two of its axes lead mostly to the right.
    #[test]
    fn each_axis_is_taken_once() {
        let (c, s) = (0.6f64, 0.8f64);
        let (one, two) = (1.0 / 3.0, 2.0 / 3.0);
        let tilted = [[two, two, one], [-two, one, two], [one, -two, two]];
        let half = [[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]];
        for axes in [tilted, half] {
            let word = Orientation::closest(&axes).to_string();
            assert!(word.parse::<Orientation>().is_ok(), "{word}");
        }
        assert_eq!(Orientation::closest(&half).to_string(), "PRS");
    }

    #[test]
    fn words_and_back() {
        let all: BTreeSet<String> = Orientation::all().map(|o| o.to_string()).collect();
        assert_eq!(all.len(), 48);
        for word in &all {
            assert_eq!(word.parse::<Orientation>().unwrap().to_string(), *word);
        }
        assert_eq!("lps".parse::<Orientation>().unwrap(), Orientation::LPS);
        assert_eq!(format!("{:>5}", Orientation::RAS), "  RAS");
        let json = serde_json::to_string(&Orientation::LPS).unwrap();
        assert_eq!(json, "\"LPS\"");
        assert_eq!(serde_json::from_str::<Orientation>(&json).unwrap(), Orientation::LPS);
        for bad in ["", "RA", "RASS", "RAR", "RLS", "XYZ", "R S", "RÄS"] {
            let message = bad.parse::<Orientation>().unwrap_err().to_string();
            assert!(message.contains("three letters"), "{message}");
        }
    }

    /// Every voxel keeps its place in space, from every orientation to every other.
    #[test]
    fn turned_volumes_stay_where_they_are() {
        let plain = Geometry::axis_aligned([2, 3, 4], [3.0, 1.5, 0.5]).unwrap();
        let number = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| 100 * z + 10 * y + x);
        let place = |grid: &Geometry, [z, y, x]: [usize; 3]| {
            let m = grid.world_from_voxel();
            [0, 1, 2].map(|r| {
                let step = |c: usize, n: usize| m[r][c] * n as f64;
                step(0, x) + step(1, y) + step(2, z) + m[r][3]
            })
        };
        for from in Orientation::all() {
            let first = plain.oriented(from).unwrap();
            let own = first.turn().apply(number.view());
            for to in Orientation::all() {
                let turned = first.oriented(to).unwrap();
                assert_eq!(Orientation::of(&turned), to);
                // The first volume's own file is the plain one, whatever came between.
                assert_eq!(turned.in_file(), &plain);
                let seen = turned.turn().apply(number.view());
                assert_eq!(from.turn_to(to).apply(own.view()), seen);
                for ((z, y, x), value) in seen.indexed_iter() {
                    let at = [value / 100, value / 10 % 10, value % 10];
                    assert_eq!(place(&turned, [z, y, x]), place(&plain, at), "{from} to {to}");
                }
            }
        }
    }
}
