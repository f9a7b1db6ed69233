//! Windows cut out of the volume: one by one on the host, or out of a layer that lies on a device.

use crate::network::upload;
use crate::volume::Volume;
use crate::windows::Windows;
use burn::tensor::{Device, Tensor, s};
use ndarray::Array4;
use std::ops::Range;

/// A volume, and the windows of a tile of it.
pub(crate) struct Cutter<'a, 'v> {
    pub image: &'a Volume<'v>,
    pub windows: &'a Windows,
    /// Rows and columns of the padded volume that windows of the tile reach.
    pub reach: [Range<usize>; 2],
}

impl Cutter<'_, '_> {
    /// One window, mirrored.
    ///
    /// # Shapes
    /// `[Cin, z, y, x]`.
    pub fn window(&self, start: [usize; 3], flips: [bool; 3]) -> Array4<f32> {
        self.windows.cut(self.image, start, flips)
    }

    /// Size of a layer: the planes of a window with all rows and columns that windows reach.
    fn layer_size(&self) -> [usize; 3] {
        let [rows, columns] = &self.reach;
        [self.windows.window_shape()[0], rows.len(), columns.len()]
    }

    /// The layer of the windows that start at plane `z`.
    fn layer(&self, z: usize) -> Array4<f32> {
        let [rows, columns] = &self.reach;
        self.windows.cut_box(self.image, [z, rows.start, columns.start], self.layer_size())
    }
}

/// The layer of the present windows on a device, which is uploaded once for all of them.
pub(crate) struct DeviceLayer {
    device: Device,
    /// Most bytes of a tensor there.
    most_at_once: u64,
    /// The plane at which its windows start, and the layer, `[1, Cin, z, rows, columns]`.
    held: Option<(usize, Tensor<5>)>,
}

impl DeviceLayer {
    pub fn new(device: Device, most_at_once: u64) -> Self {
        Self { device, most_at_once, held: None }
    }

    /// Where the layer lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One window, mirrored, `[1, Cin, z, y, x]`.
    pub fn window(
        &mut self,
        cutter: &Cutter<'_, '_>,
        start: [usize; 3],
        flips: [bool; 3],
    ) -> Tensor<5> {
        let voxels = cutter.layer_size().iter().product::<usize>() * cutter.image.shape()[0];
        if (voxels * size_of::<f32>()) as u64 > self.most_at_once {
            return upload(cutter.window(start, flips), &self.device);
        }
        let layer = match self.held.take() {
            Some((z, layer)) if z == start[0] => layer,
            _ => upload(cutter.layer(start[0]), &self.device),
        };
        self.held = Some((start[0], layer.clone()));
        let [_, height, width] = cutter.windows.window_shape();
        let [rows, columns] = &cutter.reach;
        let (y, x) = (start[1] - rows.start, start[2] - columns.start);
        let window = layer.slice(s![.., .., .., y..y + height, x..x + width]);
        let mirrored = (0..3).filter(|axis| flips[*axis]);
        mirrored.fold(window, |window, axis| window.flip([axis as isize + 2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Windows are the same, whether they are cut here or there.
        #[test]
        fn windows_of_a_layer_are_those_of_the_volume(
            channels in 1usize..3,
            shape in [1usize..12, 1..12, 1..12],
            flips in any::<[bool; 3]>(),
            room in any::<bool>(),
        ) {
            let values = |(c, z, y, x): (usize, usize, usize, usize)| {
                (((c * 13 + z) * 13 + y) * 13 + x) as f32
            };
            let image = Array4::from_shape_fn((channels, shape[0], shape[1], shape[2]), values);
            let image = Volume::from(image);
            let windows = Windows::new(shape, [4, 5, 6], 0.5).unwrap();
            let [_, ys, xs] = windows.starts();
            let reach = [ys[0]..ys[ys.len() - 1] + 5, xs[0]..xs[xs.len() - 1] + 6];
            let cutter = Cutter { image: &image, windows: &windows, reach };
            let most = if room { u64::MAX } else { 0 };
            let mut layer = DeviceLayer::new(Device::flex(), most);
            for start in windows.iter() {
                let found = layer.window(&cutter, start, flips).into_data();
                let expected = cutter.window(start, flips);
                prop_assert_eq!(found.try_to_vec::<f32>().unwrap(), expected.into_raw_vec_and_offset().0);
            }
        }
    }
}
