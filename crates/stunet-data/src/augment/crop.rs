//! Reading a part of a case; beyond its borders images are 0 and labels -1.

use ndarray::{Array, Array3, Array4, ArrayView, ArrayView3, ArrayView4, Axis, Dimension, Slice};

/// Label beyond the borders of a case.
pub(super) const OUTSIDE: i16 = -1;

/// A crop of a case that is read when, and as far as, it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Crop<'a> {
    /// Image of the whole case, `[C, Z, Y, X]`.
    pub image: ArrayView4<'a, f32>,
    /// Labels of the whole case, `[Z, Y, X]`.
    pub labels: ArrayView3<'a, i16>,
    /// First voxel of the crop, in voxels of the case; may lie outside.
    pub lower: [isize; 3],
}

impl Crop<'_> {
    /// Voxels from `lower` (in voxels of the crop), `size` of them.
    pub(super) fn image_box(&self, lower: [isize; 3], size: [usize; 3]) -> Array4<f32> {
        let [z, y, x] = size;
        let mut output = Array4::zeros([self.image.shape()[0], z, y, x]);
        copy_overlap(self.image, &mut output, self.in_case(lower));
        output
    }

    /// Labels from `lower` (in voxels of the crop), `size` of them.
    pub(super) fn labels_box(&self, lower: [isize; 3], size: [usize; 3]) -> Array3<i16> {
        let mut output = Array3::from_elem(size, OUTSIDE);
        copy_overlap(self.labels, &mut output, self.in_case(lower));
        output
    }

    /// The middle of the crop.
    pub(super) fn centre(
        &self,
        crop_size: [usize; 3],
        size: [usize; 3],
    ) -> (Array4<f32>, Array3<i16>) {
        let lower = std::array::from_fn(|axis| ((crop_size[axis] - size[axis]) / 2) as isize);
        (self.image_box(lower, size), self.labels_box(lower, size))
    }

    fn in_case(&self, lower: [isize; 3]) -> [isize; 3] {
        std::array::from_fn(|axis| self.lower[axis] + lower[axis])
    }
}

/// Copies what lies within both; `lower` is where the output begins in the input, on the last axes.
fn copy_overlap<T: Clone, D: Dimension>(
    mut input: ArrayView<'_, T, D>,
    output: &mut Array<T, D>,
    lower: [isize; 3],
) {
    let mut target = output.view_mut();
    let first = input.ndim() - 3;
    for (axis, lower) in lower.into_iter().enumerate() {
        let axis = Axis(first + axis);
        let (n, m) = (input.len_of(axis) as isize, target.len_of(axis) as isize);
        let (from, to) = (lower.clamp(0, n), (lower + m).clamp(0, n));
        input.slice_axis_inplace(axis, Slice::from(from..to));
        let start = (from - lower).clamp(0, m);
        target.slice_axis_inplace(axis, Slice::from(start..start + (to - from)));
    }
    target.assign(&input);
}
