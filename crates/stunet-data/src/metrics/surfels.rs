//! Where the surface of a mask passes between voxels, and how large it is there.

/// Pieces of surface for each of the 256 ways in which eight voxels can be in or out: the areas of
/// their shadows on the planes across z, y and x, in eighths of the voxel's face.
///
/// # Source
/// The table of DeepMind's surface-distance (`lookup_tables.py`, Apache License 2.0), made by
/// marching cubes; the signs of its normals do not matter to an area.
const SURFELS: &str = include_str!("surfels.txt");

/// The corners between voxels at which a mask has a surface.
pub(super) struct Surfels {
    /// Whether the surface passes, `[z, y, x]` of the corners.
    pub is_border: Vec<bool>,
    /// Area in mm² (length in mm, in a plane) where it does, in the order of the corners.
    pub areas: Vec<f64>,
}

/// Shape of the grid of corners: one more than voxels along every axis, but in a plane.
pub(super) fn corners([z, y, x]: [usize; 3], plane: bool) -> [usize; 3] {
    [if plane { z } else { z + 1 }, y + 1, x + 1]
}

impl Surfels {
    /// Of a mask whose surroundings are empty.
    pub fn of(mask: &[bool], shape: [usize; 3], spacing_mm: [f64; 3], plane: bool) -> Self {
        let codes = codes(mask, shape, plane);
        let (areas, full) = match plane {
            true => (contours(spacing_mm), 0b1111),
            false => (areas(spacing_mm), 0b1111_1111),
        };
        let passes = |code: u8| code != 0 && code != full;
        Self {
            is_border: codes.iter().map(|code| passes(*code)).collect(),
            areas: codes.iter().filter(|c| passes(**c)).map(|c| areas[usize::from(*c)]).collect(),
        }
    }
}

/// Which of the voxels around each corner are in the mask, the first in the highest bit.
fn codes(mask: &[bool], shape: [usize; 3], plane: bool) -> Vec<u8> {
    let [_, height, width] = shape;
    let [depth, rows, columns] = corners(shape, plane);
    let mut codes = vec![0u8; depth * rows * columns];
    for (row, voxels) in mask.chunks_exact(width.max(1)).enumerate() {
        let (z, y) = (row / height, row % height);
        // A row of voxels lies around the corners of two rows in each of two planes.
        for (dz, dy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            if plane && dz == 1 {
                continue;
            }
            let corners = &mut codes[((z + dz) * rows + y + dy) * columns..][..columns];
            let bits = 4 * dz + 2 * dy;
            for (x, inside) in voxels.iter().enumerate() {
                corners[x] |= u8::from(*inside) << bits;
                corners[x + 1] |= u8::from(*inside) << (bits + 1);
            }
        }
    }
    codes
}

/// Area in mm² for every code.
fn areas([dz, dy, dx]: [f64; 3]) -> [f64; 256] {
    let faces = [dy * dx, dz * dx, dz * dy];
    let mut areas = [0.0; 256];
    for (area, line) in areas.iter_mut().zip(SURFELS.lines()) {
        for word in line.split(' ') {
            let parts = word.bytes().zip(faces).map(|(n, face)| f64::from(n - b'0') / 8.0 * face);
            *area += parts.map(|part| part * part).sum::<f64>().sqrt();
        }
    }
    areas
}

/// Length in mm for every code of four voxels of a plane.
fn contours([_, dy, dx]: [f64; 3]) -> [f64; 256] {
    let across = 0.5 * (dy * dy + dx * dx).sqrt();
    let mut lengths = [0.0; 256];
    for (code, length) in lengths.iter_mut().enumerate().take(16) {
        *length = match code {
            0 | 15 => 0.0,
            0b0011 | 0b1100 => dx,
            0b0101 | 0b1010 => dy,
            0b0110 | 0b1001 => 2.0 * across,
            _ => across,
        };
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum of the areas of a box of `shape` voxels.
    fn area(shape: [usize; 3], mm: [f64; 3], plane: bool) -> (usize, f64) {
        let surfels = Surfels::of(&vec![true; shape.iter().product()], shape, mm, plane);
        let count = surfels.is_border.iter().filter(|b| **b).count();
        assert_eq!(count, surfels.areas.len());
        (count, surfels.areas.iter().sum())
    }

    #[test]
    fn a_voxel_is_an_octahedron_and_a_box_has_flat_faces() {
        let (count, found) = area([1, 1, 1], [1.0; 3], false);
        // Eight triangles over half the edges: √3 / 8 each.
        assert!(count == 8 && (found - 3f64.sqrt()).abs() < 1e-15, "{found}");
        // One more slice along x adds strips of flat faces, and its four edges.
        let mm = [3.0, 1.0, 0.5];
        let faces = area([9, 9, 9], mm, false).1 - area([9, 9, 8], mm, false).1;
        let flat = 2.0 * (8.0 * 3.0 * 0.5) + 2.0 * (8.0 * 1.0 * 0.5);
        let edges = 4.0 * 0.5 * (0.25 * (3.0f64 * 3.0 + 1.0)).sqrt();
        assert!((faces - flat - edges).abs() < 1e-12, "{faces} for {}", flat + edges);
    }

    #[test]
    fn contours_of_a_plane() {
        let (count, found) = area([1, 1, 1], [1.0, 3.0, 4.0], true);
        assert_eq!((count, found), (4, 4.0 * 2.5));
        let (_, found) = area([1, 4, 6], [1.0, 3.0, 4.0], true);
        assert_eq!(found, 2.0 * 5.0 * 4.0 + 2.0 * 3.0 * 3.0 + 4.0 * 2.5);
    }
}
