//! The header of stored probabilities in NumPy's format.

use std::io::{Error, ErrorKind, Read, Result};
use stunet_data::array_file::Number;
use stunet_data::array_file::npy;

pub(super) use npy::header_of;

/// What the header says of an array of four axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub number: Number,
    /// `[C, z, y, x]`.
    pub shape: [usize; 4],
}

/// Reads the header; the values follow.
pub(super) fn header(from: &mut impl Read) -> Result<Header> {
    let found = npy::header(from)?;
    let bad = |expected: &str, found: String| {
        Error::new(ErrorKind::InvalidData, format!("expected {expected}, found {found}"))
    };
    if !found.number.is_float() {
        return Err(bad("floats ('<f4', '<f2', '<f8')", format!("{:?}", found.number)));
    }
    let shape = <[usize; 4]>::try_from(&found.shape[..])
        .map_err(|_| bad("four axes: class, z, y, x", format!("{:?}", found.shape)))?;
    Ok(Header { number: found.number, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn headers() {
        let shape = [3, 4, 5, 6];
        let expected = Header { number: Number::Single, shape };
        assert_eq!(header(&mut &header_of(&shape)[..]).unwrap(), expected);
        let half = "{'shape': (3, 4, 5, 6), 'fortran_order': False, 'descr': '<f2'}";
        let expected = Header { number: Number::Half, shape };
        assert_eq!(header(&mut &file(half)[..]).unwrap(), expected);
        let refused = |text: &str, words: &str| {
            let message = header(&mut &file(text)[..]).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        refused(&half.replace("False", "True"), "C's order");
        refused(&half.replace("<f2", "<i4"), "floats");
        refused(&half.replace("<f2", ">f2"), "little-endian numbers");
        refused(&half.replace(", 6", ""), "four axes");
        refused(&half.replace('6', "0"), "axes of a volume");
        refused(&half.replace('6', "9223372036854775807"), "axes of a volume");
        refused("", "numbers");
        assert!(header(&mut &b"\x93NUMPX\x01\x00aaaa"[..]).is_err());
        assert!(header(&mut &b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..]).is_err());
        assert!(header(&mut &b"\x93NU"[..]).is_err());
    }
}
