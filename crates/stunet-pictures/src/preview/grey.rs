//! Intensities as greys.

use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use stunet_data::geometry::Geometry;
use stunet_data::image::{Image, RawImage, Voxels};

/// Which intensities are black and which are white.
///
/// # Units
/// Those of the image: Hounsfield units of a CT.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum GreyWindow {
    /// Soft tissue in CT, −160 to 240 HU, where values below −500 occur, which only CT has; else
    /// percentiles.
    #[default]
    Auto,
    /// Soft tissue in CT: −160 to 240 HU.
    Ct,
    /// From the first percentile of what is above the darkest value to the 99.5th.
    Percentiles,
    /// From one value to another.
    Range([f32; 2]),
}

/// Soft tissue: level 40, width 400.
const SOFT_TISSUE: [f32; 2] = [-160.0, 240.0];

/// A scan whose intensities are drawn: an [`Image`] or a [`RawImage`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct ScanView<'a> {
    pub(super) voxels: ScanVoxels<'a>,
    pub(super) geometry: &'a Geometry,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ScanVoxels<'a> {
    I16(&'a ndarray::Array4<i16>),
    F32(&'a ndarray::Array4<f32>),
}

impl<'a> From<&'a RawImage> for ScanView<'a> {
    fn from(image: &'a RawImage) -> Self {
        let voxels = match &image.voxels {
            Voxels::I16(data) => ScanVoxels::I16(data),
            Voxels::F32(data) => ScanVoxels::F32(data),
        };
        Self { voxels, geometry: &image.geometry }
    }
}

impl<'a> From<&'a Image> for ScanView<'a> {
    fn from(image: &'a Image) -> Self {
        Self { voxels: ScanVoxels::F32(&image.data), geometry: &image.geometry }
    }
}

impl<'a> ScanView<'a> {
    pub(super) fn num_channels(&self) -> usize {
        match self.voxels {
            ScanVoxels::I16(data) => data.dim().0,
            ScanVoxels::F32(data) => data.dim().0,
        }
    }

    pub(super) fn channel(&self, channel: usize) -> GreyView<'a> {
        match self.voxels {
            ScanVoxels::I16(data) => GreyView::I16(data.index_axis(Axis(0), channel)),
            ScanVoxels::F32(data) => GreyView::F32(data.index_axis(Axis(0), channel)),
        }
    }
}

/// A channel, in the type that it is stored in: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum GreyView<'a> {
    I16(ArrayView3<'a, i16>),
    F32(ArrayView3<'a, f32>),
}

impl<'a> GreyView<'a> {
    pub fn map(
        self,
        i16s: impl FnOnce(ArrayView3<'a, i16>) -> ArrayView3<'a, i16>,
        f32s: impl FnOnce(ArrayView3<'a, f32>) -> ArrayView3<'a, f32>,
    ) -> Self {
        match self {
            Self::I16(view) => Self::I16(i16s(view)),
            Self::F32(view) => Self::F32(f32s(view)),
        }
    }

    pub fn at(&self, index: [usize; 3]) -> f32 {
        match self {
            Self::I16(view) => f32::from(view[index]),
            Self::F32(view) => view[index],
        }
    }

    fn dim(&self) -> [usize; 3] {
        let (z, y, x) = match self {
            Self::I16(view) => view.dim(),
            Self::F32(view) => view.dim(),
        };
        [z, y, x]
    }

    /// Values at regular places, at most about a hundred thousand, ascending.
    fn sampled(&self) -> Vec<f32> {
        let [z, y, x] = self.dim();
        let step = ((z * y * x) as f64 / 1e5).cbrt().ceil().max(1.0) as usize;
        let mut values = Vec::new();
        for z in (0..z).step_by(step) {
            for y in (0..y).step_by(step) {
                values.extend((0..x).step_by(step).map(|x| self.at([z, y, x])));
            }
        }
        values.retain(|value| value.is_finite());
        values.sort_by(f32::total_cmp);
        values
    }

    /// The window as values, and what to call it.
    pub fn window(&self, wanted: GreyWindow) -> (Grey, String) {
        let sampled = self.sampled();
        let looks_like_ct = sampled.first().is_some_and(|lowest| *lowest < -500.0);
        let (ends, is_ct) = match wanted {
            GreyWindow::Range(ends) => (ends, looks_like_ct),
            GreyWindow::Ct => (SOFT_TISSUE, true),
            GreyWindow::Auto if looks_like_ct => (SOFT_TISSUE, true),
            _ => (percentiles(&sampled), false),
        };
        let unit = if is_ct { " HU" } else { "" };
        let [low, high] = ends.map(|value| number(f64::from(value)));
        (Grey { low: ends[0], high: ends[1], is_ct }, format!("{low} to {high}{unit}"))
    }

    /// The middle intensity from the front to the back and how much lies along each axis, in the
    /// patient's axes.
    pub fn profile(&self, grey: Grey) -> Profile {
        match self {
            Self::I16(view) => profile(*view, grey),
            Self::F32(view) => profile(*view, grey),
        }
    }
}

/// A number for people: as many digits as tell neighbours apart, with a minus as in print.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => 0,
        size if size >= 1.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}").replacen('-', "−", 1)
}

/// From the first percentile of what is brighter than the darkest value, which is often a ground of
/// zeros, to the 99.5th.
fn percentiles(sorted: &[f32]) -> [f32; 2] {
    let (Some(darkest), Some(brightest)) = (sorted.first(), sorted.last()) else {
        return [0.0, 1.0];
    };
    let shown = &sorted[sorted.partition_point(|value| value <= darkest)..];
    let at = |share: f64| shown.get((share * (shown.len().max(1) - 1) as f64).round() as usize);
    match (at(0.01), at(0.995)) {
        (Some(low), Some(high)) if low < high => [*low, *high],
        _ if darkest < brightest => [*darkest, *brightest],
        _ => [*darkest - 0.5, *darkest + 0.5],
    }
}

/// A window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grey {
    pub low: f32,
    pub high: f32,
    pub is_ct: bool,
}

impl Grey {
    /// From 0, black, to 1, white.
    pub fn of(self, value: f32) -> f32 {
        let grey = (value - self.low) / (self.high - self.low);
        // NaN is black.
        if grey > 0.0 { grey.min(1.0) } else { 0.0 }
    }

    /// What of a value counts for the view through the body: attenuation in CT, else the grey.
    fn through(self, value: f32) -> f32 {
        match self.is_ct {
            true => ((value + 1000.0) / 2500.0).clamp(0.0, 1.0),
            false => self.of(value),
        }
    }

    /// What is no air, and no background of MR.
    fn is_content(self, value: f32) -> bool {
        match self.is_ct {
            true => value > -250.0,
            false => self.of(value) > 0.12,
        }
    }
}

/// What one pass over the voxels knows of a scan.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Mean from the front to the back, rows down and columns to the left of the patient, 0 to 1.
    pub front: ndarray::Array2<f32>,
    /// Voxels of content of each plane across an axis.
    pub content: [Vec<u64>; 3],
}

fn profile<T: Copy + Into<f32> + Sync>(view: ArrayView3<'_, T>, grey: Grey) -> Profile {
    let (down, back, left) = view.dim();
    // Sums of whole numbers are the same in any order.
    let planes: Vec<(Vec<u32>, Vec<u64>, Vec<u64>)> = view
        .axis_iter(Axis(0))
        .into_par_iter()
        .map(|plane| {
            let (mut sums, mut backs, mut lefts) = (vec![0u32; left], vec![0; back], vec![0; left]);
            for (row, count) in plane.axis_iter(Axis(0)).zip(&mut backs) {
                for ((value, sum), count_left) in row.iter().zip(&mut sums).zip(&mut lefts) {
                    let value: f32 = (*value).into();
                    *sum += (grey.through(value) * 1000.0) as u32;
                    let content = u64::from(grey.is_content(value));
                    *count += content;
                    *count_left += content;
                }
            }
            (sums, backs, lefts)
        })
        .collect();
    let mut content = [Vec::with_capacity(down), vec![0; back], vec![0; left]];
    let mut front = ndarray::Array2::zeros((down, left));
    for (mut row, (sums, backs, lefts)) in front.outer_iter_mut().zip(planes) {
        content[0].push(backs.iter().sum());
        for (all, count) in content[1].iter_mut().zip(backs) {
            *all += count;
        }
        for (all, count) in content[2].iter_mut().zip(lefts) {
            *all += count;
        }
        for (mean, sum) in row.iter_mut().zip(sums) {
            *mean = sum as f32 / (1000 * back) as f32;
        }
    }
    Profile { front, content }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn windows() {
        let check = |values: &[f32], wanted, expected: &str| {
            let volume = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| {
                values[(z * 30 + y * 6 + x) % values.len()]
            });
            assert_eq!(GreyView::F32(volume.view()).window(wanted).1, expected, "{values:?}");
        };
        check(&[-1000.0, 0.0, 40.0], GreyWindow::Auto, "−160 to 240 HU");
        check(&[0.0, 100.0, 300.0], GreyWindow::Ct, "−160 to 240 HU");
        check(&[0.0, 0.0, 100.0, 300.0], GreyWindow::Auto, "100 to 300");
        check(&[0.0, 0.25, 0.5], GreyWindow::Percentiles, "0.250 to 0.500");
        check(&[7.0], GreyWindow::Auto, "6.5 to 7.5");
        check(&[f32::NAN], GreyWindow::Auto, "0 to 1");
        check(&[-1000.0, 9.0], GreyWindow::Range([-1350.0, 150.0]), "−1350 to 150 HU");
    }

    #[test]
    fn the_view_through_is_the_mean_and_content_is_counted() {
        let volume = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| match (z, y, x) {
            (1, 0, 2) => 1500.0,
            (1, _, 2) => 0.0,
            _ => -1000.0f32,
        });
        let grey = GreyView::F32(volume.view());
        let profile = grey.profile(grey.window(GreyWindow::Auto).0);
        assert_eq!(profile.front.dim(), (2, 4));
        assert!((profile.front[[1, 2]] - (1.0 + 0.4 + 0.4) / 3.0).abs() < 1e-3);
        assert_eq!(profile.front[[0, 2]], 0.0);
        assert_eq!(profile.content, [vec![0, 3], vec![1, 1, 1], vec![0, 0, 3, 0]]);
    }
}
