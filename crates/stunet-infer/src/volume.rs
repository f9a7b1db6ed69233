//! A preprocessed volume that frees its planes behind the windows.

use ndarray::{Array3, Array4, ArrayView4, ArrayViewMut4, CowArray, Ix3, s};
use std::ops::Range;

/// Bytes of a layer: more than an allocator keeps for itself when it is freed.
const LAYER_BYTES: usize = 40 << 20;

/// The planes of every channel in layers, each an allocation of its own; or a view of someone
/// else's array.
///
/// ```
/// use ndarray::Array4;
/// use stunet_infer::volume::Volume;
/// let image = Array4::<f32>::zeros((1, 40, 50, 60));
/// assert_eq!(Volume::from(image.view()).shape(), [1, 40, 50, 60]);
/// ```
#[derive(Clone, Debug)]
pub struct Volume<'a> {
    shape: [usize; 4],
    layers: Vec<Layer<'a>>,
}

#[derive(Clone, Debug)]
struct Layer<'a> {
    channel: usize,
    planes: Range<usize>,
    /// `[planes, Y, X]`.
    voxels: CowArray<'a, f32, Ix3>,
}

impl Volume<'_> {
    /// `[C, Z, Y, X]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Copies a box of voxels of every channel into `target`.
    ///
    /// # Shapes
    /// `voxels` are ranges of `[z, y, x]`, `target` is `[C, z, y, x]` of their lengths.
    ///
    /// # Panics
    /// When the box reaches beyond the volume, or into planes that were given up.
    pub fn copy(&self, voxels: &[Range<usize>; 3], mut target: ArrayViewMut4<'_, f32>) {
        let [planes, rows, columns] = voxels;
        let mut copied = 0;
        for layer in &self.layers {
            let from = planes.start.max(layer.planes.start);
            let to = planes.end.min(layer.planes.end);
            if from >= to {
                continue;
            }
            let (first, base) = (layer.planes.start, planes.start);
            let source =
                layer.voxels.slice(s![from - first..to - first, rows.clone(), columns.clone()]);
            target.slice_mut(s![layer.channel, from - base..to - base, .., ..]).assign(&source);
            copied += to - from;
        }
        assert_eq!(copied, planes.len() * self.shape[0], "planes that are still held");
    }

    /// Frees the layers that end at plane `z` or below it.
    pub fn give_up_below(&mut self, z: usize) {
        self.layers.retain(|layer| layer.planes.end > z);
    }

    /// Planes of a layer of an owned volume of these planes `[y, x]`.
    fn planes_per_layer([height, width]: [usize; 2]) -> usize {
        LAYER_BYTES.div_ceil((height * width * size_of::<f32>()).max(1))
    }

    /// Share of the planes of an owned volume that is held when all below `z` may go.
    pub(crate) fn share_held([depth, height, width]: [usize; 3], z: usize) -> f64 {
        let thickness = Self::planes_per_layer([height, width]);
        (depth - z.min(depth) / thickness * thickness) as f64 / depth as f64
    }
}

impl<'a> From<ArrayView4<'a, f32>> for Volume<'a> {
    fn from(image: ArrayView4<'a, f32>) -> Self {
        let (channels, depth, height, width) = image.dim();
        let layer = |channel| Layer {
            channel,
            planes: 0..depth,
            voxels: image.index_axis_move(ndarray::Axis(0), channel).into(),
        };
        let layers = (0..channels).map(layer).collect();
        Self { shape: [channels, depth, height, width], layers }
    }
}

impl From<Array4<f32>> for Volume<'_> {
    fn from(image: Array4<f32>) -> Self {
        let (_, _, height, width) = image.dim();
        Self::in_layers(image, Self::planes_per_layer([height, width]))
    }
}

impl Volume<'_> {
    /// Divides an array; beyond it one layer of `thickness` planes is held meanwhile.
    pub(crate) fn in_layers(image: Array4<f32>, thickness: usize) -> Self {
        let (channels, depth, height, width) = image.dim();
        let image = match image.is_standard_layout() {
            true => image,
            false => image.as_standard_layout().into_owned(),
        };
        let (mut rest, begin) = image.into_raw_vec_and_offset();
        if let Some(begin) = begin.filter(|begin| *begin > 0) {
            rest.drain(..begin);
        }
        let mut layers = Vec::new();
        for channel in (0..channels).rev() {
            for from in (0..depth).step_by(thickness).rev() {
                let planes = from..(from + thickness).min(depth);
                let voxels = match rest.len() > planes.len() * height * width {
                    true => rest.split_off((channel * depth + from) * height * width),
                    false => std::mem::take(&mut rest),
                };
                rest.shrink_to_fit();
                let voxels = Array3::from_shape_vec((planes.len(), height, width), voxels)
                    .expect("planes of a channel follow one another");
                layers.push(Layer { channel, planes, voxels: voxels.into() });
            }
        }
        Self { shape: [channels, depth, height, width], layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(shape: [usize; 4]) -> Array4<f32> {
        let numbers = (0..shape.iter().product::<usize>()).map(|i| i as f32);
        Array4::from_shape_vec(shape, numbers.collect()).unwrap()
    }

    #[test]
    fn an_owned_volume_is_given_up_layer_by_layer() {
        // Two layers and a half of each channel.
        let thickness = Volume::planes_per_layer([256, 512]);
        let shape = [2, thickness * 5 / 2, 256, 512];
        let image = numbered(shape);
        let mut volume = Volume::from(image.clone());
        assert_eq!((volume.shape(), volume.layers.len()), (shape, 6));
        let voxels = [thickness - 3..shape[1] - 1, 7..31, 400..512];
        let [z, y, x] = voxels.clone();
        let mut cut = Array4::zeros((2, z.len(), y.len(), x.len()));
        volume.copy(&voxels, cut.view_mut());
        assert_eq!(cut, image.slice(s![.., z, y, x]));

        volume.give_up_below(thickness - 1);
        assert_eq!(volume.layers.len(), 6);
        volume.give_up_below(thickness);
        assert_eq!(volume.layers.len(), 4);
        let [depth, height, width] = [shape[1], shape[2], shape[3]];
        let held = Volume::share_held([depth, height, width], thickness + 1);
        assert!((held - 0.6).abs() < 0.02, "{held}");
        let above = [thickness..thickness + 2, 0..1, 0..1];
        let mut two = Array4::zeros((2, 2, 1, 1));
        volume.copy(&above, two.view_mut());
        assert_eq!(two, image.slice(s![.., thickness..thickness + 2, ..1, ..1]));
    }

    #[test]
    #[should_panic(expected = "planes that are still held")]
    fn what_was_given_up_is_not_read() {
        let mut volume = Volume::from(numbered([1, 4, 3, 2]));
        volume.give_up_below(4);
        volume.copy(&[0..1, 0..1, 0..1], Array4::zeros((1, 1, 1, 1)).view_mut());
    }

    proptest! {
        #[test]
        fn owned_and_viewed_are_the_same(
            shape in [1usize..4, 1..9, 1..9, 1..9],
            thickness in 1usize..5,
            transposed: bool,
            at in prop::array::uniform6(0f64..1.0),
        ) {
            let image = numbered(shape);
            let image = if transposed { image.permuted_axes([0, 3, 1, 2]) } else { image };
            let size = image.dim();
            let voxels: [_; 3] = std::array::from_fn(|axis| {
                let length = [size.1, size.2, size.3][axis] as f64;
                let from = (at[axis] * length) as usize;
                from..from + ((length - from as f64) * at[3 + axis]) as usize
            });
            let cut = |volume: &Volume<'_>| {
                let [z, y, x] = &voxels;
                let mut cut = Array4::zeros((size.0, z.len(), y.len(), x.len()));
                volume.copy(&voxels, cut.view_mut());
                cut
            };
            let [z, y, x] = voxels.clone();
            let expected = image.slice(s![.., z, y, x]).to_owned();
            prop_assert_eq!(&cut(&Volume::from(image.view())), &expected);
            prop_assert_eq!(&cut(&Volume::in_layers(image, thickness)), &expected);
        }
    }
}
