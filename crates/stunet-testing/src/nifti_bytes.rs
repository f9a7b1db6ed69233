//! NIfTI-1 files written byte by byte, so that tests can make wrong ones.
//!
//! Independent of the reader under test on purpose.

/// The fields of a single-file NIfTI-1 that tests bend; everything else is plain.
///
/// Here, as in the file, axes are x, y, z.
#[derive(Clone, Debug)]
pub struct NiftiBytes {
    /// Voxels along x, y, z, and channels when more than one.
    pub size_xyz: [i16; 3],
    /// Length of the fourth axis; 1 makes a 3-D file.
    pub channels: i16,
    /// `pixdim[1..4]`, in mm.
    pub spacing_xyz: [f32; 3],
    /// The rows of the sform.
    pub affine: [[f32; 4]; 3],
    /// Values in file order (x fastest), written as 32-bit floats.
    pub values: Vec<f32>,
}

impl NiftiBytes {
    /// A ramp of `size_xyz` voxels at 3 mm.
    #[must_use]
    pub fn ramp(size_xyz: [i16; 3]) -> Self {
        let count = size_xyz.iter().map(|&n| n as usize).product::<usize>();
        Self {
            size_xyz,
            channels: 1,
            spacing_xyz: [3.0; 3],
            affine: [[3.0, 0.0, 0.0, -20.0], [0.0, 3.0, 0.0, -30.0], [0.0, 0.0, 3.0, -40.0]],
            values: (0..count).map(|i| (i % 251) as f32 * 4.0 - 500.0).collect(),
        }
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = [0u8; 352];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &348i32.to_le_bytes());
        let rank = if self.channels > 1 { 4 } else { 3 };
        let [x, y, z] = self.size_xyz;
        for (i, n) in [rank, x, y, z, self.channels, 1, 1, 1].into_iter().enumerate() {
            put(40 + 2 * i, &n.to_le_bytes());
        }
        put(70, &16i16.to_le_bytes()); // float32
        put(72, &32i16.to_le_bytes());
        let [dx, dy, dz] = self.spacing_xyz;
        for (i, d) in [1.0, dx, dy, dz, 1.0, 1.0, 1.0, 1.0].into_iter().enumerate() {
            put(76 + 4 * i, &d.to_le_bytes());
        }
        put(108, &352f32.to_le_bytes());
        put(112, &1f32.to_le_bytes());
        put(123, &[2]); // mm
        put(254, &1i16.to_le_bytes()); // sform code
        for (row, values) in self.affine.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                put(280 + 16 * row + 4 * column, &value.to_le_bytes());
            }
        }
        put(344, b"n+1\0");
        let mut bytes = header.to_vec();
        bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }
}
