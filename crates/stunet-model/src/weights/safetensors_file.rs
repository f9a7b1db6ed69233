//! The one writer of safetensors files on this side: model folders, and checkpoints of training.
//!
//! A file is the length of its header, the header, and the values in the header's order. The header
//! tells names, types, shapes and places, and free metadata.

use safetensors::tensor::Dtype;
use serde_json::Value;
use std::io::{self, Write};

/// Values begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// The header of a file with these tensors, in this order, without gaps; metadata comes first.
///
/// # Panics
/// When values of a type are no whole bytes.
pub fn header<'a>(
    metadata: Value,
    tensors: impl IntoIterator<Item = (String, Dtype, &'a [usize])>,
) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    entries.insert("__metadata__".into(), metadata);
    let mut at = 0;
    for (name, dtype, shape) in tensors {
        assert!(dtype.bitsize().is_multiple_of(8), "{dtype:?} is no whole bytes");
        let end = at + shape.iter().product::<usize>() * (dtype.bitsize() / 8);
        let entry =
            serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, end] });
        entries.insert(name, entry);
        at = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // The length of the header itself takes eight bytes; the format pads with spaces.
    header.resize((header.len() + 8).next_multiple_of(ALIGNMENT) - 8, b' ');
    header
}

/// Writes what comes before the values.
///
/// # Errors
/// When it cannot be written.
pub fn begin(out: &mut (impl Write + ?Sized), header: &[u8]) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn a_reader_finds_what_was_announced() {
        let tensors = [("b", Dtype::F32, &[2usize, 3][..]), ("a", Dtype::F16, &[1])];
        let tensors = tensors.map(|(name, dtype, shape)| (name.to_owned(), dtype, shape));
        let header = header(serde_json::json!({ "format": "test" }), tensors);
        let mut file = Vec::new();
        begin(&mut file, &header).unwrap();
        assert_eq!(file.len() % ALIGNMENT, 0);
        file.extend(0..26);
        let read = SafeTensors::deserialize(&file).unwrap();
        let found = read.tensor("a").unwrap();
        assert_eq!(
            (found.dtype(), found.shape(), found.data()),
            (Dtype::F16, &[1][..], &[24, 25][..])
        );
        assert_eq!(read.tensor("b").unwrap().shape(), [2, 3]);
    }
}
