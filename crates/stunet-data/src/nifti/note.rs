//! A note within a NIfTI file: text that is stored with the voxels and that other readers ignore.
//!
//! # Source
//! The NIfTI-1 standard: extensions lie between the header and the voxels, their lengths are
//! multiples of 16, and code 6 is a comment in plain ASCII.

use nifti::Extension;

/// Code of a comment.
const COMMENT: i32 = 6;
/// Longest extensions that are looked through, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 16;

/// The four bytes behind the header, and the extension with the note if there is one.
pub(super) fn encode(note: Option<&str>) -> Vec<u8> {
    let Some(note) = note else {
        return vec![0; 4];
    };
    // What is no ASCII has no place in a comment.
    let text: String = note.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let extension = Extension::from_str(COMMENT, &text);
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend(extension.size().to_le_bytes());
    bytes.extend(extension.code().to_le_bytes());
    bytes.extend(extension.data());
    bytes
}

/// The comments in the bytes between header and voxels.
///
/// Not [`nifti::ExtensionSequence`], which reserves whatever a length says, 2 GB for 16 bytes, and
/// refuses all extensions for one that is broken.
pub(super) fn decode(bytes: &[u8], little: bool) -> Vec<String> {
    let mut comments = Vec::new();
    let Some((&[1, ..], mut rest)) = bytes.split_first_chunk::<4>() else {
        return comments;
    };
    while let Some((size, tail)) = rest.split_first_chunk::<4>()
        && let Some((code, _)) = tail.split_first_chunk::<4>()
    {
        let number = |raw| if little { i32::from_le_bytes(raw) } else { i32::from_be_bytes(raw) };
        let Some(body) = usize::try_from(number(*size)).ok().and_then(|size| rest.get(8..size))
        else {
            break;
        };
        if number(*code) == COMMENT {
            let text = String::from_utf8_lossy(body);
            comments.push(text.trim_end_matches('\0').to_owned());
        }
        rest = &rest[8 + body.len()..];
    }
    comments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for length in [0, 1, 7, 8, 9, 500] {
            let note = "a".repeat(length);
            let bytes = encode(Some(&note));
            assert_eq!((bytes.len() - 4) % 16, 0, "{length}");
            assert_eq!(decode(&bytes, true), [note]);
        }
        assert_eq!(encode(None), [0; 4]);
        assert!(decode(&[0; 4], true).is_empty());
        assert_eq!(decode(&encode(Some("Straße")), true), ["Stra?e"]);
    }

    /// Files of both versions, packed and plain: the note is found, and the voxels are where they were.
    #[test]
    fn in_files() {
        use crate::geometry::Geometry;
        use crate::nifti::{read_labelmap, read_notes, write_bytes};
        let folder = tempfile::tempdir().unwrap();
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        for shape in [[3, 4, 5], [1, 2, 40_000]] {
            let geometry =
                Geometry::new(shape, [2.0, 1.5, 1.0], [3.0, 2.0, 1.0], identity).unwrap();
            let values = (0..shape.iter().product::<usize>()).map(|i| (i % 250) as u8).collect();
            let volume = ndarray::Array3::from_shape_vec(shape, values).unwrap();
            let read = |name: &str, note: Option<&str>| {
                let path = folder.path().join(name);
                write_bytes(&path, &volume, &geometry, note).unwrap();
                (read_notes(&path).unwrap(), read_labelmap(&path).unwrap())
            };
            for name in ["a.nii", "a.nii.gz"] {
                let (notes, labels) = read(name, Some("{\"a\": 1}"));
                assert_eq!(notes, ["{\"a\": 1}"], "{name} {shape:?}");
                let (none, without) = read(name, None);
                assert!(none.is_empty());
                assert!(labels.data == without.data && labels.geometry == without.geometry);
                assert!(labels.data.iter().eq(volume.mapv(u16::from).iter()));
            }
        }
    }

    #[test]
    fn what_others_wrote_or_broke() {
        let mut two = encode(Some("first"));
        two.extend(&encode(Some("second"))[4..]);
        assert_eq!(decode(&two, true), ["first", "second"]);
        let mut foreign = encode(Some("xml"));
        foreign[8] = 0;
        assert!(decode(&foreign, true).is_empty());
        for size in [-1i32, 0, 7, 8, 1 << 30, i32::MAX] {
            let mut bent = encode(Some("first"));
            bent[4..8].copy_from_slice(&size.to_le_bytes());
            assert!(decode(&bent, true).iter().all(String::is_empty), "{size}");
        }
        for end in 0..two.len() {
            decode(&two[..end], true);
        }
    }
}
