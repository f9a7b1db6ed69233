//! Files that ITK wrote (`formats/tests`), files that are written here, and damaged ones.

use super::*;
use crate::image::Voxels;
use crate::nifti::{Reader, read_labelmap, read_scan};
use std::path::Path;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/formats/tests").join(name)
}

/// What SimpleITK was given: see `scripts/formats-check`.
fn grid() -> Geometry {
    let (s, c) = 0.3_f64.sin_cos();
    let direction = [[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, -1.0]];
    Geometry::new([3, 4, 5], [3.0, 1.25, 0.5], [10.5, -20.25, 30.0], direction).unwrap()
}

const OF_ITK: [&str; 6] =
    ["itk.mha", "itk_raw.mha", "itk.mhd", "itk.nrrd", "itk_raw.nrrd", "itk.nhdr"];

#[test]
fn files_of_itk() {
    for name in OF_ITK {
        let scan = read_scan(&[fixture(name)]).unwrap();
        let Voxels::I16(values) = &scan.voxels else { panic!("{name}: expected whole numbers") };
        let expected: Vec<i16> = (0..60).map(|i| 7 * i - 100).collect();
        assert_eq!(values.iter().copied().collect::<Vec<_>>(), expected, "{name}");
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        let (found, wanted) = (&scan.geometry, grid());
        assert_eq!(found.shape(), wanted.shape(), "{name}");
        assert!(close(&found.spacing_mm(), &wanted.spacing_mm()), "{name}: {found:?}");
        assert!(close(&found.origin_mm(), &wanted.origin_mm()), "{name}: {found:?}");
        let (a, b) = (found.direction(), wanted.direction());
        assert!(close(a.as_flattened(), b.as_flattened()), "{name}: {found:?}");
        let (geometry, channels) = nifti::read_geometry(&fixture(name)).unwrap();
        assert_eq!((&geometry, channels), (found, 1));
        // A reader that turns turns these as well, and nibabel's take them for ITK's.
        let turned = Reader::NibabelReorient.read_scan(&[fixture(name)]).unwrap();
        assert!(turned.geometry.is_turned(), "{name}");
        assert_eq!(turned.geometry.in_file(), found, "{name}");
        if !matches!(name, "itk.mhd" | "itk.nhdr") {
            let bytes = std::fs::read(fixture(name)).unwrap();
            assert_eq!(Reader::default().read_scan_bytes(&[bytes]).unwrap(), scan, "{name}");
        }
        let scan = Reader::SimpleItkReorient.see(scan).unwrap();
        assert_eq!(scan, turned, "{name}");
    }
    assert_eq!(files_of(&fixture("itk.mhd")), [fixture("itk.mhd"), fixture("itk.raw")]);
    assert_eq!(files_of(&fixture("itk.nhdr")), [fixture("itk.nhdr"), fixture("itk.raw")]);
    assert_eq!(files_of(&fixture("itk.mha")), [fixture("itk.mha")]);
}

fn labels(most: u16) -> CompactLabelMap {
    let words = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (z * y * x) as u16 % 5 * (most / 5));
    CompactLabelMap { voxels: LabelVoxels::Words(words), geometry: grid() }
}

#[test]
fn labels_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    for ending in WRITTEN {
        for most in [5, 1000] {
            let path = folder.path().join(format!("labels_{most}{ending}"));
            let labels = labels(most);
            write_compact_labelmap(&path, &labels, most, Some("{\"a\": \"b\"}")).unwrap();
            let found = read_labelmap(&path).unwrap();
            assert_eq!(found.data, labels.voxels.to_words(), "{}", path.display());
            found.geometry.check_same_grid(&labels.geometry).unwrap();
            assert_eq!(read_notes(&path).unwrap(), ["{\"a\": \"b\"}"], "{}", path.display());
            assert_eq!(written_ending(&path), Some(ending));
            assert!(files_written(&path).iter().all(|file| file.exists()), "{ending}");
            assert_eq!(files_written(&path), files_of(&path), "{ending}");
        }
    }
    let bytes = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (60 * z + 5 * y + x) as u8);
    for ending in [".mha", ".nrrd", ".nii.gz"] {
        let path = folder.path().join(format!("bytes{ending}"));
        write_bytes(&path, &bytes, &grid(), None).unwrap();
        assert_eq!(read_labelmap(&path).unwrap().data, bytes.mapv(u16::from));
        assert!(read_notes(&path).unwrap().is_empty());
    }
    assert_eq!(ending_of_labels(Path::new("a/b_0000.mha")), ".mha");
    assert_eq!(ending_of_labels(Path::new("a/b_0000.nii")), ".nii.gz");
    assert_eq!(ending_of_labels(Path::new("a/b_0000.hdr")), ".nii.gz");
}

/// Asserts that a header with a change is refused with all of `words`; the voxels are those of ITK.
fn refused(name: &str, from: &str, to: &str, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture(name)).unwrap();
    let end = bytes.windows(2).rposition(|w| w == b"\n\n" || w == b"L\n").unwrap_or(0) + 2;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    assert!(head.contains(from), "no {from:?} in {head}");
    let path = folder.path().join(name);
    std::fs::write(&path, [head.replace(from, to).as_bytes(), &bytes[end..]].concat()).unwrap();
    let message = read_scan(&[&path]).unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
    assert!(message.ends_with(name), "{message}");
}

#[test]
fn headers_that_are_refused() {
    let mha = |from: &str, to: &str, words: &[&str]| refused("itk_raw.mha", from, to, words);
    mha("DimSize = 5 4 3", "DimSize = 5 4", &["DimSize: expected 3 number(s), found 5 4"]);
    mha("DimSize = 5 4 3", "DimSize = 5 4 0", &["at least one voxel"]);
    mha("DimSize = 5 4 3", "DimSize = 5 4 300", &["truncated: expected 12000 bytes"]);
    mha("DimSize = 5 4 3", "DimSize = 99999999 99999999 99999999", &["fits into memory"]);
    mha("NDims = 3", "NDims = 2", &["NDims: expected 3, found 2"]);
    mha("MET_SHORT", "MET_STRING", &["ElementType", "MET_STRING"]);
    mha("ElementSpacing = 0.5", "ElementSpacing = 0", &["spacing must be finite"]);
    mha("LOCAL", "../../etc/passwd", &["one file beside the header"]);
    mha("LOCAL", "LIST", &["one file beside the header"]);
    mha("LOCAL", "absent.raw", &["file of voxels", "missing"]);
    mha("Offset = 10.5", "Offset = nan", &["TransformMatrix must be finite"]);
    mha("CompressedData = False", "CompressedData = True", &["damaged"]);
    mha("CenterOfRotation = 0 0 0\n", "CenterOfRotation\n", &["expected KEY = VALUE"]);
    let nrrd = |from: &str, to: &str, words: &[&str]| refused("itk_raw.nrrd", from, to, words);
    nrrd("NRRD000", "NRRX000", &["NRRD0001 to NRRD0005"]);
    nrrd("dimension: 3", "dimension: 4", &["dimension: expected 3"]);
    nrrd("sizes: 5 4 3", "sizes: 5 4 300", &["truncated: expected 12000 bytes"]);
    nrrd("sizes: 5 4 3", "sizes: 5 4 x", &["at least one voxel"]);
    nrrd("type: short", "type: block", &["type", "found block"]);
    nrrd("encoding: raw", "encoding: bzip2", &["expected raw or gzip, found bzip2"]);
    nrrd("encoding: raw", "encoding: gzip", &["damaged"]);
    nrrd("endian: little", "endian: middle", &["little or big"]);
    nrrd("kinds: domain domain domain", "kinds: domain domain vector", &["three axes of space"]);
    nrrd("left-posterior-superior", "scanner-xyz", &["space", "scanner-xyz"]);
    nrrd("space: left-posterior-superior\n", "", &["space directions", "a space by its name"]);
    nrrd("space origin: (", "space origin: (1,", &["a vector of 3 numbers"]);
    nrrd("encoding: raw", "encoding: raw\nbyte skip: 7", &["byte skip: expected 0, found 7"]);
    nrrd("encoding: raw", "encoding: raw\ndata file: ../x.raw", &["one file beside the header"]);
}

#[test]
fn other_spaces_and_byte_orders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nrrd");
    let mut bytes = b"NRRD0004\r\ntype: unsigned short\r\ndimension: 3\r\nsizes: 1 1 2\r\n\
        space: RAS\r\nspace directions: (2,0,0) (0,3,0) (0,0,4)\r\nendian: big\r\n\
        encoding: raw\r\nspace origin: (1,2,3)\r\n\r\n"
        .to_vec();
    bytes.extend([0, 1, 2, 0]);
    std::fs::write(&path, bytes).unwrap();
    let found = read_labelmap(&path).unwrap();
    assert_eq!(found.data.iter().copied().collect::<Vec<_>>(), [1, 512]);
    assert_eq!(found.geometry.world_from_voxel()[0], [2.0, 0.0, 0.0, 1.0]);
    assert_eq!(found.geometry.origin_mm(), [-1.0, -2.0, 3.0]);
    let plain = b"NRRD0001\ntype: uchar\ndimension: 3\nsizes: 2 1 1\nspacings: 1 2 3\n\
        encoding: raw\n\n\x07\x08";
    std::fs::write(&path, plain).unwrap();
    let found = read_labelmap(&path).unwrap();
    assert_eq!(found.geometry, Geometry::axis_aligned([1, 1, 2], [3.0, 2.0, 1.0]).unwrap());
}

/// A header with every byte changed, and a file cut off anywhere: no panic.
#[test]
fn damage() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["itk_raw.mha", "itk.nrrd", "itk.mha"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let path = folder.path().join(name);
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read_scan(&[&path]).is_err(), "{name} {length}");
        }
        for at in 0..whole.len() {
            for value in [0, b'9', b'\n', 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                std::fs::write(&path, &changed).unwrap();
                let _ = (read_scan(&[&path]), read_notes(&path), files_of(&path));
            }
        }
    }
}
