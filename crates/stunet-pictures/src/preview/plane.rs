//! One plane as a picture: greys, labels as a light fill and an outline.

use super::axes::PatientAxis;
use super::grey::{Grey, GreyView};
use super::survey::LabelView;
use crate::canvas::{Canvas, Colour, mixed};

/// Subpixels of a pixel along each side.
const FINE: usize = 2;
/// Subpixels that an outline is wide, on the inside of its label.
const OUTLINE: usize = 2;
/// How much of a label's colour lies over the image.
const FILL: f32 = 0.26;
const EDGE: f32 = 0.95;

/// A part of a plane, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PlaneView {
    pub axis: PatientAxis,
    /// Index of the plane.
    pub index: usize,
    /// First voxel and number of voxels along the axes that run down and to the right.
    pub rows: [usize; 2],
    pub columns: [usize; 2],
    /// Pixels of the picture.
    pub size: [usize; 2],
    /// Upper left corner on the canvas.
    pub at: [usize; 2],
}

/// What is drawn of a volume.
#[derive(Clone, Copy)]
pub(super) struct Layers<'a, 'c> {
    pub voxels: GreyView<'a>,
    pub grey: Grey,
    /// Labels over it, and their colours by value.
    pub labels: Option<(LabelView<'a>, &'c [Colour])>,
}

impl PlaneView {
    /// Where a subpixel lies along rows or columns: voxels from the middle of the first.
    fn place(first_and_count: [usize; 2], subpixel: usize, subpixels: usize) -> f32 {
        let [first, count] = first_and_count;
        first as f32 + (subpixel as f32 + 0.5) / subpixels as f32 * count as f32 - 0.5
    }

    fn voxel(&self, row: usize, column: usize) -> [usize; 3] {
        let mut voxel = [0; 3];
        let [down, right] = self.axis.others();
        voxel[self.axis as usize] = self.index;
        voxel[down as usize] = row;
        voxel[right as usize] = column;
        voxel
    }

    /// Draws it.
    pub fn draw(&self, canvas: &mut Canvas, layers: &Layers<'_, '_>) {
        let fine = self.size.map(|pixels| pixels * FINE);
        let labels = layers.labels.map(|(view, colours)| (self.labels(view, fine), colours));
        let columns: Vec<_> = (0..fine[1])
            .map(|i| Lerp::at(Self::place(self.columns, i, fine[1]), self.columns))
            .collect();
        let mut sums = vec![[0f32; 3]; self.size[1]];
        for i in 0..fine[0] {
            let row = Lerp::at(Self::place(self.rows, i, fine[0]), self.rows);
            for (j, column) in columns.iter().enumerate() {
                let value = self.interpolated(layers.voxels, row, *column);
                let grey = (layers.grey.of(value) * 255.0).round() as u8;
                let colour = match &labels {
                    Some((labels, colours)) => labels.over([grey; 3], [i, j], colours),
                    None => [grey; 3],
                };
                for (sum, value) in sums[j / FINE].iter_mut().zip(colour) {
                    *sum += f32::from(value);
                }
            }
            if i % FINE == FINE - 1 {
                for (x, sum) in sums.iter_mut().enumerate() {
                    let mean = sum.map(|v| (v / (FINE * FINE) as f32).round() as u8);
                    canvas.set_pixel(self.at[0] + x, self.at[1] + i / FINE, mean);
                    *sum = [0.0; 3];
                }
            }
        }
    }

    fn interpolated(&self, voxels: GreyView<'_>, row: Lerp, column: Lerp) -> f32 {
        let at = |i: usize, j: usize| voxels.at(self.voxel(i, j));
        let along = |i: usize| mix(at(i, column.low), at(i, column.high), column.share);
        mix(along(row.low), along(row.high), row.share)
    }

    fn labels(&self, view: LabelView<'_>, [height, width]: [usize; 2]) -> FineLabels {
        let nearest = |i: usize, count: usize, range: [usize; 2]| {
            let place = Self::place(range, i, count).round().max(0.0) as usize;
            place.clamp(range[0], range[0] + range[1] - 1)
        };
        let columns: Vec<_> = (0..width).map(|j| nearest(j, width, self.columns)).collect();
        let mut values = Vec::with_capacity(height * width);
        for i in 0..height {
            let row = nearest(i, height, self.rows);
            values.extend(columns.iter().map(|column| view.at(self.voxel(row, *column))));
        }
        FineLabels { width, height, values }
    }
}

/// A place between two voxels.
#[derive(Clone, Copy)]
struct Lerp {
    low: usize,
    high: usize,
    share: f32,
}

impl Lerp {
    fn at(place: f32, [first, count]: [usize; 2]) -> Self {
        let place = place.clamp(first as f32, (first + count - 1) as f32);
        let low = place as usize;
        Self { low, high: (low + 1).min(first + count - 1), share: place.fract() }
    }
}

fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}

/// Labels of subpixels.
struct FineLabels {
    width: usize,
    height: usize,
    values: Vec<u16>,
}

impl FineLabels {
    /// The colour of a subpixel, where the image below has one.
    fn over(&self, below: Colour, [i, j]: [usize; 2], colours: &[Colour]) -> Colour {
        let value = self.values[i * self.width + j];
        if value == 0 {
            return below;
        }
        let differs = |i: usize, j: usize| self.values[i * self.width + j] != value;
        let (up, left) = (i.saturating_sub(OUTLINE), j.saturating_sub(OUTLINE));
        let down = (i + OUTLINE).min(self.height - 1);
        let right = (j + OUTLINE).min(self.width - 1);
        let edge = differs(up, j) || differs(down, j) || differs(i, left) || differs(i, right);
        let colour = colours.get(usize::from(value)).copied().unwrap_or([255; 3]);
        mixed(below, colour, if edge { EDGE } else { FILL })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    fn view(
        axis: PatientAxis,
        index: usize,
        rows: usize,
        columns: usize,
        size: [usize; 2],
    ) -> PlaneView {
        PlaneView { axis, index, rows: [0, rows], columns: [0, columns], size, at: [0, 0] }
    }

    #[test]
    fn voxels_are_where_they_belong() {
        // One bright voxel in each plane's upper right quarter.
        let mut volume = Array3::from_elem((6, 8, 10), -160i16);
        volume[[1, 2, 7]] = 240;
        let grey = GreyView::I16(volume.view());
        let window = grey.window(super::super::GreyWindow::Ct).0;
        let layers = Layers { voxels: grey, grey: window, labels: None };
        let sizes = [
            (PatientAxis::Down, 1, 8, 10),
            (PatientAxis::Back, 2, 6, 10),
            (PatientAxis::Left, 7, 6, 8),
        ];
        let places = [(7, 2), (7, 1), (2, 1)];
        for ((axis, index, rows, columns), (x, y)) in sizes.into_iter().zip(places) {
            let mut canvas = Canvas::new(columns * 10, rows * 10, [9; 3]);
            view(axis, index, rows, columns, [rows * 10, columns * 10]).draw(&mut canvas, &layers);
            assert!(canvas.pixel(x * 10 + 5, y * 10 + 5)[0] > 200, "{axis:?}");
            assert_eq!(canvas.pixel(x * 10 + 5 - 25, y * 10 + 5), [0; 3], "{axis:?}");
        }
    }

    #[test]
    fn labels_have_an_outline_and_a_light_fill() {
        let volume = Array3::from_elem((1, 20, 20), 40i16);
        let labels = Array3::from_shape_fn((1, 20, 20), |(_, y, x)| {
            u8::from((5..15).contains(&y) && (5..15).contains(&x)) * 2
        });
        let grey = GreyView::I16(volume.view());
        let window = grey.window(super::super::GreyWindow::Ct).0;
        let colours = [[0; 3], [0; 3], [255, 0, 0]];
        let labels = Some((LabelView::Bytes(labels.view()), &colours[..]));
        let layers = Layers { voxels: grey, grey: window, labels };
        let mut canvas = Canvas::new(80, 80, [9; 3]);
        view(PatientAxis::Down, 0, 20, 20, [80, 80]).draw(&mut canvas, &layers);
        assert_eq!(canvas.pixel(10, 10), [128; 3]);
        let edge = canvas.pixel(20, 40);
        assert!(edge[0] > 240 && edge[1] < 20, "{edge:?}");
        let fill = canvas.pixel(40, 40);
        assert!(fill[0] > 140 && fill[1] > 80 && fill[1] < 110, "{fill:?}");
    }
}
