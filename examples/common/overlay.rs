//! Three slices of a CT with coloured labels, as a PNG.
#![allow(clippy::disallowed_methods, reason = "an example may write as it likes")]

use ndarray::{ArrayView2, ArrayView3, Axis};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use stunet::data::{geometry::Geometry, image::Image, labels::LabelMap};

/// Soft tissue: what is darker is black, what is brighter white.
const WINDOW_HU: [f32; 2] = [-180.0, 280.0];
const GAP: usize = 6;

/// Writes one row of an axial, a coronal and a sagittal slice per labelmap, all at the places where
/// the first one shows most structures.
///
/// As radiologists look at them: from the feet and from the front, the patient's right is left.
pub fn write(path: &Path, image: &Image, labelmaps: &[&LabelMap]) -> anyhow::Result<()> {
    let at = busiest(labelmaps[0].data.view());
    let mut rows = Vec::new();
    for labels in labelmaps {
        let panels: Vec<Picture> =
            (0..3).map(|axis| panel(image, labels, axis, at[axis])).collect();
        rows.push(Picture::beside(&panels));
    }
    let whole = Picture::below(&rows);
    let mut encoder = png::Encoder::new(
        BufWriter::new(File::create(path)?),
        u32::try_from(whole.width)?,
        u32::try_from(whole.height())?,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(whole.pixels.as_flattened())?;
    Ok(())
}

/// Colour of a label: any two neighbours in number are far apart in hue.
pub fn colour(label: u16) -> [f32; 3] {
    let hue = (f32::from(label) * 0.381_966).fract() * 6.0;
    let (rising, falling) = (hue.fract(), 1.0 - hue.fract());
    match hue as u8 {
        0 => [1.0, rising, 0.1],
        1 => [falling, 1.0, 0.1],
        2 => [0.1, 1.0, rising],
        3 => [0.1, falling, 1.0],
        4 => [rising, 0.1, 1.0],
        _ => [1.0, 0.1, falling],
    }
}

/// For each axis, the slice with most structures, and of those with most labelled voxels.
fn busiest(labels: ArrayView3<'_, u16>) -> [usize; 3] {
    std::array::from_fn(|axis| {
        let score = |slice: ArrayView2<'_, u16>| {
            let found: BTreeSet<u16> = slice.iter().copied().filter(|label| *label > 0).collect();
            (found.len(), slice.iter().filter(|label| **label > 0).count())
        };
        let slices = labels.axis_iter(Axis(axis)).map(score).enumerate();
        slices.max_by_key(|(_, score)| *score).map_or(0, |(index, _)| index)
    })
}

/// One slice across an array axis, its rows and columns turned to where they lie in the patient.
fn panel(image: &Image, labels: &LabelMap, axis: usize, index: usize) -> Picture {
    let [row_axis, column_axis] = match axis {
        0 => [1, 2],
        1 => [0, 2],
        _ => [0, 1],
    };
    let values = image.data.index_axis(Axis(0), 0);
    let mut values = values.index_axis(Axis(axis), index);
    let mut labels = labels.data.index_axis(Axis(axis), index);
    let mut mm = [row_axis, column_axis].map(|a| image.geometry.spacing_mm()[a]);
    let mut towards = [row_axis, column_axis].map(|a| direction(&image.geometry, a));
    // Left to right and front to back go along rows where they can; height goes down the picture.
    if towards[0].0 < towards[1].0 {
        values.swap_axes(0, 1);
        labels.swap_axes(0, 1);
        mm.swap(0, 1);
        towards.swap(0, 1);
    }
    for (i, (component, sign)) in towards.into_iter().enumerate() {
        // Heights are drawn from the top.
        if (component == 2) == (sign > 0.0) {
            values.invert_axis(Axis(i));
            labels.invert_axis(Axis(i));
        }
    }
    Picture::of(values, labels, mm)
}

/// Which of left (0), back (1), up (2) a voxel axis follows most, and whether it does so forwards.
fn direction(geometry: &Geometry, array_axis: usize) -> (usize, f64) {
    let column = 2 - array_axis;
    let along = geometry.direction().map(|row| row[column]);
    let component = (0..3).max_by(|a, b| along[*a].abs().total_cmp(&along[*b].abs())).unwrap_or(0);
    (component, along[component])
}

struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// A slice with pixels as tall as they are wide.
    fn of(values: ArrayView2<'_, f32>, labels: ArrayView2<'_, u16>, mm: [f64; 2]) -> Self {
        let pixel_mm = 1.5;
        let (rows, columns) = values.dim();
        let height = (rows as f64 * mm[0] / pixel_mm).ceil().max(1.0) as usize;
        let width = (columns as f64 * mm[1] / pixel_mm).ceil().max(1.0) as usize;
        let mut pixels = Vec::with_capacity(height * width);
        for i in 0..height {
            for j in 0..width {
                let at = [i * rows / height, j * columns / width];
                let [dark, bright] = WINDOW_HU;
                let grey = ((values[at] - dark) / (bright - dark)).clamp(0.0, 1.0);
                let tint = match labels[at] {
                    0 => [grey; 3],
                    label => colour(label).map(|c| 0.58 * grey + 0.42 * c),
                };
                pixels.push(tint.map(|v| (v * 255.0).round() as u8));
            }
        }
        Self { width, pixels }
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width.max(1)
    }

    fn beside(pictures: &[Self]) -> Self {
        let height = pictures.iter().map(Self::height).max().unwrap_or(0);
        let width = pictures.iter().map(|p| p.width + GAP).sum::<usize>().saturating_sub(GAP);
        let mut whole = Self { width, pixels: vec![[0; 3]; width * height] };
        let mut left = 0;
        for picture in pictures {
            whole.place(picture, [0, left]);
            left += picture.width + GAP;
        }
        whole
    }

    fn below(pictures: &[Self]) -> Self {
        let width = pictures.iter().map(|p| p.width).max().unwrap_or(0);
        let height = pictures.iter().map(|p| p.height() + GAP).sum::<usize>().saturating_sub(GAP);
        let mut whole = Self { width, pixels: vec![[0; 3]; width * height] };
        let mut top = 0;
        for picture in pictures {
            whole.place(picture, [top, 0]);
            top += picture.height() + GAP;
        }
        whole
    }

    fn place(&mut self, picture: &Self, [top, left]: [usize; 2]) {
        for (i, row) in picture.pixels.chunks_exact(picture.width).enumerate() {
            let start = (top + i) * self.width + left;
            self.pixels[start..start + picture.width].copy_from_slice(row);
        }
    }
}
