//! Shape and checksum of arrays in nnU-Net's preprocessed files (`.b2nd`, `.npy`), to be held against
//! those that another program computes.
//!
//!     cargo run --release -p stunet-data --example array_checksums -- liver_001.b2nd liver_001_seg.b2nd
#![allow(clippy::disallowed_macros)]

use stunet_data::array_file::ArrayFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args_os().skip(1) {
        let file = ArrayFile::open(path.as_ref())?;
        let (shape, number) = (file.shape(), file.number());
        let crc32 = match number.is_float() {
            true => checksum(&file.read::<f32>([0; 4], shape)?),
            false => checksum(&file.read::<i16>([0; 4], shape)?),
        };
        println!("{} {shape:?} {number:?} {crc32:08x}", path.display());
    }
    Ok(())
}

fn checksum<T: bytemuck::Pod>(array: &ndarray::Array4<T>) -> u32 {
    let values = array.as_slice().unwrap_or_default();
    crc32fast::hash(bytemuck::cast_slice(values))
}
