//! Outlines of a label in space.

use super::derived::{Derived, Segment};
use super::elements::decimal;
use super::outline::{Point, outlines};
use rayon::prelude::*;

/// A closed polygon in a plane of the series.
pub(super) struct Contour {
    pub plane: usize,
    pub num_points: usize,
    /// x, y, z of each point in mm, LPS, as DICOM writes them.
    pub data: String,
}

/// The polygons of a label, plane by plane.
pub(super) fn contours(of: &Derived<'_>, segment: &Segment) -> Vec<Contour> {
    let [_, _, columns] = of.voxels.shape();
    let planes: Vec<Vec<Contour>> = segment
        .planes
        .par_iter()
        .map(|plane| {
            let mask = of.voxels.plane(*plane).mask(segment.value);
            let contour = |points: Vec<Point>| Contour {
                plane: *plane,
                num_points: points.len(),
                data: data(of, *plane, &points),
            };
            outlines(&mask, columns).into_iter().map(contour).collect()
        })
        .collect();
    planes.into_iter().flatten().collect()
}

fn data(of: &Derived<'_>, plane: usize, points: &[Point]) -> String {
    let source = of.source;
    let [_, dy, dx] = source.grid.spacing_mm();
    let [along_row, along_column] = source.along;
    let origin = source.planes[plane].position;
    // To the thousandth part of a voxel: the polygons keep ten times that from what they must not touch.
    let digits = (-(1e-3 * dx.min(dy)).log10()).ceil().clamp(2.0, 9.0) as usize;
    let mut text = String::with_capacity(points.len() * 30);
    for [column, row] in points {
        for axis in 0..3 {
            let value =
                origin[axis] + column * dx * along_row[axis] + row * dy * along_column[axis];
            if !text.is_empty() {
                text.push('\\');
            }
            text.push_str(&short(value, digits));
        }
    }
    text
}

/// A number with so many digits behind the point, without those that say nothing.
fn short(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    match text {
        "-0" => "0".to_owned(),
        text if text.len() > 16 => decimal(value),
        text => text.to_owned(),
    }
}
