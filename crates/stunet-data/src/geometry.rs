//! The voxel grid in space: the only file, besides the readers, that uses the order x, y, z.

mod axes;
mod body;
mod leniency;
mod orientation;
mod turn;

pub(crate) use axes::{Axes, Matrix, column_length, orthonormal, right_angled, skew};
pub use body::BodySide;
pub use leniency::Leniency;
pub use orientation::Orientation;
pub(crate) use orientation::columns;
pub use turn::Turn;

use crate::error::{DataError, Result, invalid};
use serde::{Deserialize, Serialize};

/// An affine map in homogeneous rows.
pub type Affine = [[f64; 4]; 4];

/// Grid of a volume: shape, spacing, origin and axis directions.
///
/// # Shapes
/// Shape and spacing are `[z, y, x]`, as everywhere in this project.
///
/// A file of two dimensions is a plane: one slice, whose spacing along z stands for the missing axis
/// (see [`Geometry::into_plane`]).
///
/// # Units
/// Millimetres. Origin and direction are in the frame ITK and DICOM use (LPS: x to the left, y to
/// the back, z up), components in the order x, y, z; column `j` of the direction is the unit vector
/// of voxel axis `j`, again in the order x, y, z.
///
/// ```
/// use stunet_data::geometry::Geometry;
/// let g = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5])?;
/// assert_eq!(g.spacing_mm(), [3.0, 1.0, 0.5]);
/// // One step along x moves 0.5 mm to the left, which is -0.5 in NIfTI's world.
/// assert_eq!(g.world_from_voxel()[0][0], -0.5);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawGeometry", into = "RawGeometry")]
pub struct Geometry {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    origin_mm: [f64; 3],
    direction: [[f64; 3]; 3],
    /// Of a plane only: how thick its file says it is.
    thickness_mm: Option<f64>,
    /// The file's own grid, where a reader turned it.
    in_file: Option<Box<InFile>>,
}

/// A file's own grid, and how it was turned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InFile {
    geometry: Geometry,
    turn: Turn,
}

impl Geometry {
    /// A grid from its parts.
    ///
    /// # Errors
    /// When the shape is empty, the spacing is not positive, or the direction is singular.
    pub fn new(
        shape: [usize; 3],
        spacing_mm: [f64; 3],
        origin_mm: [f64; 3],
        direction: [[f64; 3]; 3],
    ) -> Result<Self> {
        if shape.contains(&0) {
            return Err(DataError::BadDimensions {
                expected: "at least one voxel along every axis",
                found: shape.iter().rev().map(|&n| n as i64).collect(),
            });
        }
        if spacing_mm.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(DataError::BadSpacing { found: spacing_mm });
        }
        if origin_mm.iter().any(|v| !v.is_finite()) {
            return Err(DataError::NonFiniteGeometry { what: "origin" });
        }
        if direction.iter().flatten().any(|v| !v.is_finite()) {
            return Err(DataError::NonFiniteGeometry { what: "direction" });
        }
        let determinant = determinant(&direction);
        if determinant.abs() < 1e-6 {
            return Err(DataError::SingularAffine { determinant });
        }
        Ok(Self { shape, spacing_mm, origin_mm, direction, thickness_mm: None, in_file: None })
    }

    /// The same grid as that of an image of two dimensions, in its place in space.
    ///
    /// The spacing along z becomes 999 times the larger of the others: a network of three dimensions
    /// sees the plane go on for ever. `thickness_mm` only goes through to the file that is written.
    ///
    /// # Errors
    /// When there is more than one slice or the thickness is not positive.
    ///
    /// # Source
    /// nnU-Net 2.8, `SimpleITKIO.read_images`.
    ///
    /// # Deviations
    /// ITK forgets where a plane lies in space. Here it stays there, for viewers that show it over
    /// its image.
    pub fn into_plane(self, thickness_mm: f64) -> Result<Self> {
        let [slices, ..] = self.shape;
        let [_, dy, dx] = self.spacing_mm;
        if slices != 1 {
            return Err(DataError::BadDimensions {
                expected: "one slice in an image of two dimensions",
                found: self.shape.iter().rev().map(|&n| n as i64).collect(),
            });
        }
        if !(thickness_mm.is_finite() && thickness_mm > 0.0) {
            return Err(DataError::BadSpacing { found: [thickness_mm, dy, dx] });
        }
        let spacing_mm = [OF_A_MISSING_AXIS * dy.max(dx), dy, dx];
        Ok(Self { spacing_mm, thickness_mm: Some(thickness_mm), ..self })
    }

    /// True for the grid of an image of two dimensions.
    pub fn is_plane(&self) -> bool {
        self.thickness_mm.is_some()
    }

    /// A grid along ITK's axes with its first voxel at the origin.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn axis_aligned(shape: [usize; 3], spacing_mm: [f64; 3]) -> Result<Self> {
        Self::new(shape, spacing_mm, [0.0; 3], IDENTITY)
    }

    /// A grid from NIfTI's affine (RAS millimetres from voxel indices x, y, z).
    ///
    /// # Errors
    /// When the affine is singular or not finite, or the shape is empty.
    pub fn from_world_from_voxel(shape: [usize; 3], world_from_voxel: &Affine) -> Result<Self> {
        let mut spacing_xyz = [0.0; 3];
        let mut direction = [[0.0; 3]; 3];
        for axis in 0..3 {
            let column: [f64; 3] = std::array::from_fn(|row| world_from_voxel[row][axis]);
            let length = column.iter().map(|v| v * v).sum::<f64>().sqrt();
            if length == 0.0 {
                return Err(DataError::SingularAffine { determinant: 0.0 });
            }
            spacing_xyz[axis] = length;
            for row in 0..3 {
                direction[row][axis] = LPS_FROM_RAS[row] * column[row] / length;
            }
        }
        let [x, y, z] = spacing_xyz;
        let origin = std::array::from_fn(|row| LPS_FROM_RAS[row] * world_from_voxel[row][3]);
        Self::new(shape, [z, y, x], origin, direction)
    }

    /// NIfTI's affine: millimetres to the right, front and top (RAS) from voxel indices x, y, z.
    pub fn world_from_voxel(&self) -> Affine {
        let [dz, dy, dx] = self.voxel_size_mm();
        let row = |r: usize| {
            let [x, y, z] = self.direction[r];
            [x * dx, y * dy, z * dz, self.origin_mm[r]].map(|v| LPS_FROM_RAS[r] * v)
        };
        [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
    }

    /// The grid after its axes were turned; the file's own is remembered, also where it was turned
    /// before.
    ///
    /// # Units
    /// `spacing_mm` is the turned grid's, which readers do not all take from the same entry of a
    /// header.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn turned(&self, turn: Turn, spacing_mm: [f64; 3]) -> Result<Self> {
        let shape = turn.reorder(self.shape);
        let mut origin = self.origin_mm;
        let mut direction = [[0.0; 3]; 3];
        for (axis, &size) in shape.iter().enumerate() {
            // Columns of the direction are in the order x, y, z.
            let (from, to) = (2 - turn.axes()[axis], 2 - axis);
            let sign = if turn.flipped()[axis] { -1.0 } else { 1.0 };
            for (turned, own) in direction.iter_mut().zip(&self.direction) {
                turned[to] = sign * own[from];
            }
            if turn.flipped()[axis] {
                let steps = (size - 1) as f64 * self.spacing_mm[turn.axes()[axis]];
                (0..3).for_each(|row| origin[row] += steps * self.direction[row][from]);
            }
        }
        let turned = Self::new(shape, spacing_mm, origin, direction)?;
        let in_file = match &self.in_file {
            None => InFile { geometry: self.clone(), turn },
            // Turned before: both turns are one.
            Some(file) => {
                InFile { geometry: file.geometry.clone(), turn: file.turn.followed_by(turn) }
            }
        };
        Ok(Self { in_file: Some(Box::new(in_file)), ..turned })
    }

    /// The file's own grid: this one, unless a reader turned it.
    pub fn in_file(&self) -> &Self {
        self.in_file.as_ref().map_or(self, |file| &file.geometry)
    }

    /// Whether a reader that turns axes has seen it, even where there was nothing to turn.
    pub fn is_turned(&self) -> bool {
        self.in_file.is_some()
    }

    /// How the file's axes became this grid's.
    pub fn turn(&self) -> Turn {
        self.in_file.as_ref().map_or(Turn::NONE, |file| file.turn)
    }

    /// Number of voxels, `[z, y, x]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Distance between voxel centres, `[z, y, x]` in mm; along z of a plane see
    /// [`Geometry::into_plane`].
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.spacing_mm
    }

    /// Lengths of a voxel, `[z, y, x]` in mm: the spacing, or the thickness of a plane.
    pub fn voxel_size_mm(&self) -> [f64; 3] {
        let [dz, dy, dx] = self.spacing_mm;
        [self.thickness_mm.unwrap_or(dz), dy, dx]
    }

    /// Centre of the first voxel, x, y, z in mm, LPS.
    pub fn origin_mm(&self) -> [f64; 3] {
        self.origin_mm
    }

    /// Unit vectors of the voxel axes x, y, z as columns, LPS.
    pub fn direction(&self) -> [[f64; 3]; 3] {
        self.direction
    }

    /// Volume of one voxel in mm³.
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.voxel_size_mm().iter().product::<f64>() * determinant(&self.direction).abs()
    }

    /// Checks that another volume lies on the same grid within a tolerance: the centres of all voxels
    /// in mm, instead of the hundredth of a voxel that [`Geometry::check_same_grid`] allows.
    ///
    /// # Errors
    /// Names the first property that differs.
    pub fn check_same_grid_within(&self, other: &Self, leniency: &Leniency) -> Result<()> {
        let Err(differs) = self.check_same_grid(other) else { return Ok(()) };
        let alike = self.is_plane() == other.is_plane() && self.shape == other.shape;
        match (leniency.tolerance_mm, alike) {
            (Some(most), true) if self.farthest_mm(other) <= most => Ok(()),
            (_, true) => Err(DataError::NearlyTheSame {
                source: Box::new(differs),
                apart_mm: self.farthest_mm(other),
            }),
            _ => Err(differs),
        }
    }

    /// The largest distance between the centres of two voxels of one index, in mm: at a corner, as
    /// grids are straight.
    fn farthest_mm(&self, other: &Self) -> f64 {
        let (a, b) = (self.world_from_voxel(), other.world_from_voxel());
        let [z, y, x] = self.shape.map(|n| (n - 1) as f64);
        let distance = |corner: usize| {
            let at = |bit: usize, length: f64| if corner >> bit & 1 == 1 { length } else { 0.0 };
            let v = [at(0, x), at(1, y), at(2, z), 1.0];
            let off = |r: usize| (0..4).map(|c| (a[r][c] - b[r][c]) * v[c]).sum::<f64>();
            (0..3).map(|r| off(r).powi(2)).sum::<f64>().sqrt()
        };
        (0..8).map(distance).fold(0.0, f64::max)
    }

    /// Checks that another volume lies on the same grid; files store 32-bit numbers, so a
    /// hundredth of a voxel is allowed.
    ///
    /// # Errors
    /// Names the first property that differs.
    pub fn check_same_grid(&self, other: &Self) -> Result<()> {
        let differs =
            |what, expected: String, found: String| DataError::Mismatch { what, expected, found };
        let show = |v: &dyn std::fmt::Debug| format!("{v:?}");
        let lengths = |v: [f64; 3]| format!("{:?}", v.map(rounded));
        if self.is_plane() != other.is_plane() {
            let axes = |g: &Self| if g.is_plane() { "2" } else { "3" }.to_owned();
            return Err(differs("number of dimensions", axes(self), axes(other)));
        }
        if self.shape != other.shape {
            return Err(differs("shape", show(&self.shape), show(&other.shape)));
        }
        let smallest = self.spacing_mm.iter().copied().fold(f64::MAX, f64::min);
        if !close(&self.spacing_mm, &other.spacing_mm, 1e-3 * smallest) {
            return Err(differs("spacing", lengths(self.spacing_mm), lengths(other.spacing_mm)));
        }
        if !close(&self.origin_mm, &other.origin_mm, 1e-2 * smallest) {
            return Err(differs("origin", lengths(self.origin_mm), lengths(other.origin_mm)));
        }
        let (a, b) = (self.direction.as_flattened(), other.direction.as_flattened());
        if !close(a, b, 1e-3) {
            let rows = |v: [[f64; 3]; 3]| format!("{:?}", v.map(|row| row.map(rounded)));
            return Err(differs("direction", rows(self.direction), rows(other.direction)));
        }
        Ok(())
    }
}

/// What the larger spacing of a plane is multiplied by for the axis it does not have.
const OF_A_MISSING_AXIS: f64 = 999.0;
/// Signs that turn RAS into LPS and back.
const LPS_FROM_RAS: [f64; 3] = [-1.0, -1.0, 1.0];
const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// A number for people: finer than anything that makes grids differ.
fn rounded(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

pub(crate) fn determinant(m: &[[f64; 3]; 3]) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

#[derive(Serialize, Deserialize)]
struct RawGeometry {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    origin_mm: [f64; 3],
    direction: [[f64; 3]; 3],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thickness_mm: Option<f64>,
    in_file: Option<Box<InFile>>,
}

impl TryFrom<RawGeometry> for Geometry {
    type Error = DataError;

    fn try_from(raw: RawGeometry) -> Result<Self> {
        let plain = Self::new(raw.shape, raw.spacing_mm, raw.origin_mm, raw.direction)?;
        if let Some(file) = &raw.in_file {
            let expected = file.turn.reorder(file.geometry.shape);
            if file.geometry.in_file.is_some() || plain.shape != expected {
                let expected = format!("a file whose turned shape is {:?}", plain.shape);
                return Err(invalid("geometry", "in_file", expected, format_args!("{file:?}")));
            }
        }
        let grid = Self { in_file: raw.in_file, ..plain };
        match raw.thickness_mm {
            Some(thickness) => grid.into_plane(thickness),
            None => Ok(grid),
        }
    }
}

impl From<Geometry> for RawGeometry {
    fn from(g: Geometry) -> Self {
        Self {
            shape: g.shape,
            spacing_mm: g.spacing_mm,
            origin_mm: g.origin_mm,
            direction: g.direction,
            thickness_mm: g.thickness_mm,
            in_file: g.in_file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affine_round_trip() {
        // Voxel x runs up, y to the left, z to the back; all spacings differ.
        let affine = [
            [0.0, -1.5, 0.0, 12.0],
            [0.0, 0.0, -3.0, -7.0],
            [0.5, 0.0, 0.0, 30.0],
            [0.0, 0.0, 0.0, 1.0],
        ];
        let g = Geometry::from_world_from_voxel([5, 7, 11], &affine).unwrap();
        assert_eq!(g.spacing_mm(), [3.0, 1.5, 0.5]);
        assert_eq!(g.origin_mm(), [-12.0, 7.0, 30.0]);
        assert_eq!(g.world_from_voxel(), affine);
        assert_eq!(g.voxel_volume_mm3(), 2.25);
        let json = serde_json::to_string(&g).unwrap();
        assert_eq!(serde_json::from_str::<Geometry>(&json).unwrap(), g);
    }

    #[test]
    fn turned_grids_place_voxels_where_they_were() {
        let affine =
            [[0.0, -1.5, 0.1, 12.0], [0.2, 0.0, -3.0, -7.0], [0.5, 0.1, 0.0, 30.0], [0.0; 4]];
        let g = Geometry::from_world_from_voxel([5, 7, 11], &affine).unwrap();
        let turn = Turn::new([2, 0, 1], [true, false, true]).unwrap();
        let turned = g.turned(turn, turn.reorder(g.spacing_mm())).unwrap();
        assert_eq!(turned.shape(), [11, 5, 7]);
        assert_eq!((turned.in_file(), turned.turn()), (&g, turn));
        assert_eq!((g.in_file(), g.turn()), (&g, Turn::NONE));
        let at = |g: &Geometry, [z, y, x]: [usize; 3]| -> [f64; 3] {
            let m = g.world_from_voxel();
            std::array::from_fn(|r| {
                m[r][0] * x as f64 + m[r][1] * y as f64 + m[r][2] * z as f64 + m[r][3]
            })
        };
        for voxel in [[0, 0, 0], [10, 0, 0], [3, 2, 1], [10, 4, 6]] {
            // Turned z is the file's x backwards, turned x its y backwards.
            let [a, b, c] = voxel;
            let (found, expected) = (at(&turned, voxel), at(&g, [b, 6 - c, 10 - a]));
            assert!(close(&found, &expected, 1e-9), "{found:?} {expected:?}");
        }
        let json = serde_json::to_value(&turned).unwrap();
        assert_eq!(serde_json::from_value::<Geometry>(json.clone()).unwrap(), turned);
        let refused = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut json = json.clone();
            edit(&mut json);
            serde_json::from_value::<Geometry>(json).unwrap_err()
        };
        refused(&|j| j["in_file"]["turn"]["axes"] = serde_json::json!([0, 0, 1]));
        refused(&|j| j["in_file"]["turn"]["axes"] = serde_json::json!([0, 1, 7]));
        refused(&|j| j["in_file"]["geometry"]["shape"] = serde_json::json!([5, 7, 12]));
        refused(&|j| {
            let inner = j["in_file"].clone();
            j["in_file"]["geometry"]["in_file"] = inner;
        });
    }

    fn refused(shape: [usize; 3], spacing: [f64; 3], direction: [[f64; 3]; 3]) -> String {
        Geometry::new(shape, spacing, [0.0; 3], direction).unwrap_err().to_string()
    }

    #[test]
    fn bad_grids_are_refused() {
        assert!(refused([0, 1, 1], [1.0; 3], IDENTITY).contains("dimensions"));
        assert!(refused([1; 3], [0.0, 1.0, 1.0], IDENTITY).contains("spacing"));
        assert!(refused([1; 3], [f64::NAN, 1.0, 1.0], IDENTITY).contains("spacing"));
        assert!(refused([1; 3], [1.0; 3], [[1.0; 3]; 3]).contains("singular"));
        assert!(refused([1; 3], [1.0; 3], [[f64::NAN; 3]; 3]).contains("finite"));
    }

    #[test]
    fn planes() {
        let grid = |shape| Geometry::axis_aligned(shape, [4.0, 3.0, 2.0]).unwrap();
        let plane = grid([1, 6, 5]).into_plane(4.0).unwrap();
        assert_eq!(
            (plane.spacing_mm(), plane.voxel_size_mm()),
            ([2997.0, 3.0, 2.0], [4.0, 3.0, 2.0])
        );
        assert_eq!(plane.world_from_voxel(), grid([1, 6, 5]).world_from_voxel());
        assert_eq!(plane.voxel_volume_mm3(), 24.0);
        let json = serde_json::to_string(&plane).unwrap();
        assert_eq!(serde_json::from_str::<Geometry>(&json).unwrap(), plane);
        let message = plane.check_same_grid(&grid([1, 6, 5])).unwrap_err().to_string();
        assert!(message.contains("dimensions differs: expected 2, found 3"), "{message}");
        assert!(grid([2, 6, 5]).into_plane(4.0).is_err());
        assert!(grid([1, 6, 5]).into_plane(0.0).is_err());
    }

    #[test]
    fn grids_that_nearly_agree() {
        let g = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5]).unwrap();
        let off =
            |by: f64| Geometry::new([5, 7, 11], [3.0, 1.0, 0.5], [by, 0.0, 0.0], IDENTITY).unwrap();
        let within = |other: &Geometry, mm: f64| {
            let leniency = Leniency { tolerance_mm: Some(mm), sheared: false };
            g.check_same_grid_within(other, &leniency).map_err(|e| e.to_string())
        };
        within(&off(0.25), 0.3).unwrap();
        let message = within(&off(0.32), 0.3).unwrap_err();
        assert!(message.starts_with("origin differs") && message.contains("0.320 mm"), "{message}");
        assert!(message.contains("--geometry-tolerance 0.4mm"), "{message}");
        let strict = g.check_same_grid_within(&off(0.02), &Leniency::default());
        assert!(strict.unwrap_err().to_string().contains("--geometry-tolerance 0.1mm"));
        g.check_same_grid_within(&off(0.004), &Leniency::default()).unwrap();
        // A spacing that differs moves the last voxel most: ten steps of 0.02 mm.
        let wider = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.52]).unwrap();
        within(&wider, 0.21).unwrap();
        assert!(within(&wider, 0.19).unwrap_err().contains("0.200 mm"));
        let other = Geometry::axis_aligned([5, 7, 12], [3.0, 1.0, 0.5]).unwrap();
        assert!(within(&other, 100.0).unwrap_err().starts_with("shape differs"));
    }

    #[test]
    fn sheared_axes_are_turned_to_the_closest_right_angles() {
        // Columns of lengths 1, 2 and 3; the second leans towards the first by 0.05.
        let axes = [[1.0, 0.1, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]];
        let of = || Axes { axes, origin: [1.0, 2.0, 3.0], what: "axes" };
        let message = Geometry::from_axes([2, 3, 4], of(), false).unwrap_err().to_string();
        assert!(message.contains("--allow sheared"), "{message}");
        let g = Geometry::from_axes([2, 3, 4], of(), true).unwrap();
        let length = 4.01_f64.sqrt();
        assert!(close(&g.spacing_mm(), &[3.0, length, 1.0], 1e-12), "{g:?}");
        // Both axes of the plane give way by half of the angle: the polar decomposition, as NumPy has it.
        let half = (0.1_f64 / 2.0).atan() / 2.0;
        let (s, c) = half.sin_cos();
        let expected = [c, s, 0.0, -s, c, 0.0, 0.0, 0.0, 1.0];
        assert!(close(g.direction().as_flattened(), &expected, 1e-12), "{g:?}");
        let flat = [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]];
        let flat = Axes { axes: flat, origin: [0.0; 3], what: "axes" };
        assert!(Geometry::from_axes([2, 3, 4], flat, true).is_err());
    }

    #[test]
    fn same_grid_names_the_difference() {
        let g = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5]).unwrap();
        let other = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.6]).unwrap();
        let message = g.check_same_grid(&other).unwrap_err().to_string();
        assert!(message.starts_with("spacing differs"), "{message}");
        g.check_same_grid(&g).unwrap();
    }
}
