//! Reading a part of a case; beyond its borders images are 0 and labels -1.

use ndarray::{
    Array3, Array4, ArrayView, ArrayView3, ArrayView4, ArrayViewMut, ArrayViewMut3, Axis,
    Dimension, Slice,
};

/// Label beyond the borders of a case.
pub(super) const OUTSIDE: i16 = -1;

/// A crop of a case that is read when, and as far as, it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Crop<'a> {
    /// Image of the whole case, `[C, Z, Y, X]`, or of the part of it that is needed.
    pub image: ArrayView4<'a, f32>,
    /// Labels of the same voxels, `[Z, Y, X]`.
    pub labels: ArrayView3<'a, i16>,
    /// First voxel of the crop, in voxels of the image; may lie outside.
    pub lower: [isize; 3],
}

impl Crop<'_> {
    /// Copies one channel from voxel `first` of the crop on; beyond the case the output stays as it
    /// is.
    pub(super) fn read_channel(
        &self,
        channel: usize,
        first: [usize; 3],
        output: ArrayViewMut3<'_, f32>,
    ) {
        copy_overlap(self.image.index_axis(Axis(0), channel), output, self.in_case(first));
    }

    /// Copies labels from voxel `first` of the crop on; beyond the case the output stays as it is.
    pub(super) fn read_labels(&self, first: [usize; 3], output: ArrayViewMut3<'_, i16>) {
        copy_overlap(self.labels, output, self.in_case(first));
    }

    /// The middle of the crop.
    pub(super) fn centre(
        &self,
        crop_size: [usize; 3],
        size: [usize; 3],
    ) -> (Array4<f32>, Array3<i16>) {
        let first = middle(crop_size, size);
        let [z, y, x] = size;
        let mut image = Array4::zeros([self.image.shape()[0], z, y, x]);
        for (channel, output) in image.outer_iter_mut().enumerate() {
            self.read_channel(channel, first, output);
        }
        let mut labels = Array3::from_elem(size, OUTSIDE);
        self.read_labels(first, labels.view_mut());
        (image, labels)
    }

    fn in_case(&self, first: [usize; 3]) -> [isize; 3] {
        std::array::from_fn(|axis| self.lower[axis] + first[axis] as isize)
    }
}

/// Where the middle of a crop begins.
pub(super) fn middle(crop_size: [usize; 3], size: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|axis| (crop_size[axis] - size[axis]) / 2)
}

/// Copies what lies within both; `lower` is where the output begins in the input.
fn copy_overlap<T: Clone, D: Dimension>(
    mut input: ArrayView<'_, T, D>,
    mut output: ArrayViewMut<'_, T, D>,
    lower: [isize; 3],
) {
    for (axis, lower) in lower.into_iter().enumerate() {
        let axis = Axis(axis);
        let (n, m) = (input.len_of(axis) as isize, output.len_of(axis) as isize);
        let (from, to) = (lower.clamp(0, n), (lower + m).clamp(0, n));
        input.slice_axis_inplace(axis, Slice::from(from..to));
        let start = (from - lower).clamp(0, m);
        output.slice_axis_inplace(axis, Slice::from(start..start + (to - from)));
    }
    output.assign(&input);
}
