//! Texts within a NIfTI file that are stored with the voxels: a note, which other readers ignore, and
//! the names of labels.
//!
//! # Source
//! The NIfTI-1 standard: extensions lie between the header and the voxels, their lengths are
//! multiples of 16, and code 6 is a comment in plain ASCII. The table of labels is that of
//! TotalSegmentator 2.18 (`nifti_ext_header.py`), which takes it from Caret: XML under code 0, in the
//! first extension.

use crate::labels::{Appearance, LabelSet};
use nifti::Extension;
use std::fmt::Write;

/// Code of a comment.
const COMMENT: i32 = 6;
/// Code of what has none of its own: TotalSegmentator's table of labels.
const UNKNOWN: i32 = 0;
/// Longest extensions that are looked through, in bytes: a note of ten thousand files.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// What a file says besides its voxels.
#[derive(Clone, Copy, Default)]
pub(super) struct Said<'a> {
    pub note: Option<&'a str>,
    pub names: Option<&'a LabelSet>,
}

/// The four bytes behind the header, and the extensions that there are.
pub(super) fn encode(said: Said<'_>) -> Vec<u8> {
    let names = said.names.map(|names| Extension::from_str(UNKNOWN, &label_table(names)));
    // What is no ASCII has no place in a comment.
    let plain = |c: char| if c.is_ascii() { c } else { '?' };
    let note = said.note.map(|note| note.chars().map(plain).collect::<String>());
    let note = note.map(|note| Extension::from_str(COMMENT, &note));
    let extensions: Vec<_> = names.into_iter().chain(note).collect();
    let mut bytes = vec![u8::from(!extensions.is_empty()), 0, 0, 0];
    for extension in extensions {
        bytes.extend(extension.size().to_le_bytes());
        bytes.extend(extension.code().to_le_bytes());
        bytes.extend(extension.data());
    }
    bytes
}

/// The names of labels as TotalSegmentator writes and reads them, each in its colour.
fn label_table(names: &LabelSet) -> String {
    let mut xml = concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?> <CaretExtension>  ",
        "<Date><![CDATA[2013-07-14T05:45:09]]></Date>   ",
        "<VolumeInformation Index=\"0\">   <LabelTable>\n"
    )
    .to_owned();
    for (value, name) in names.painted().into_iter().filter(|(value, _)| *value > 0) {
        let [red, green, blue] =
            Appearance::of(name, value).rgb.map(|v| f64::from(v) / f64::from(u8::MAX));
        // The mark that ends a text is cut in two.
        let name = name.replace("]]>", "]]]]><![CDATA[>");
        let _ = writeln!(
            xml,
            "<Label Key=\"{value}\" Red=\"{red}\" Green=\"{green}\" Blue=\"{blue}\" \
             Alpha=\"1\"><![CDATA[{name}]]></Label>"
        );
    }
    xml.push_str(concat!(
        "\n  </LabelTable>  <StudyMetaDataLinkSet>  </StudyMetaDataLinkSet>  ",
        "<VolumeType><![CDATA[Label]]></VolumeType>   ",
        "</VolumeInformation></CaretExtension>\n"
    ));
    xml
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

    fn encode(note: Option<&str>) -> Vec<u8> {
        super::encode(Said { note, names: None })
    }

    #[test]
    fn names_come_first_and_hide_no_note() {
        let names = LabelSet::from_names(["background", "liver", "a]]>b & größe"]).unwrap();
        let bytes = super::encode(Said { note: Some("{}"), names: Some(&names) });
        assert_eq!(decode(&bytes, true), ["{}"]);
        let number = |at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((bytes[0], number(8)), (1, 0));
        let xml = std::str::from_utf8(&bytes[12..4 + number(4) as usize]).unwrap();
        let xml = xml.trim_end_matches('\0');
        let label = "<Label Key=\"1\" Red=\"0.8666666666666667\" Green=\"0.5098039215686274\" \
                     Blue=\"0.396078431372549\" Alpha=\"1\"><![CDATA[liver]]></Label>\n";
        assert!(xml.contains(label), "{xml}");
        assert!(xml.contains("<![CDATA[a]]]]><![CDATA[>b & größe]]>"), "{xml}");
        assert!(xml.ends_with("</CaretExtension>\n"), "{xml}");
    }

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
