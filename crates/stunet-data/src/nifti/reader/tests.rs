//! The readers against nnU-Net 2.8.1's own: tables printed by `scripts/record-readers` (nibabel 5.4,
//! SimpleITK 2.5).

use super::*;
use crate::geometry::{Leniency, Orientation, Turn};
use crate::nifti::Opener;
use crate::plans::Plans;
use crate::preprocess::preprocess_scan;
use ndarray::{ArrayView3, s};
use std::path::{Path, PathBuf};
use stunet_testing::nifti_bytes::NiftiBytes;

const SIZE_XYZ: [i16; 3] = [11, 7, 5];
const SPACING_XYZ: [f32; 3] = [0.5, 1.0, 3.0];
const ORIGIN: [f32; 3] = [12.5, -107.25, 1030.75];

/// A file with axes as columns, every voxel another value.
fn file(axes: [[f32; 3]; 3]) -> NiftiBytes {
    let mut file = NiftiBytes::ramp(SIZE_XYZ);
    file.spacing_xyz = SPACING_XYZ;
    for (row, out) in file.affine.iter_mut().enumerate() {
        let [x, y, z] = axes[row];
        *out = [x * SPACING_XYZ[0], y * SPACING_XYZ[1], z * SPACING_XYZ[2], ORIGIN[row]];
    }
    file.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i + 1) as f32);
    file
}

fn written(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("in_0000.nii");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The file's axes in the order of the turned ones, capitals where they run backwards.
fn word(turn: Turn) -> String {
    let letter = |(axis, flipped): (usize, bool)| match flipped {
        true => ["Z", "Y", "X"][axis],
        false => ["z", "y", "x"][axis],
    };
    turn.axes().into_iter().zip(turn.flipped()).map(letter).collect()
}

/// The array that a word means.
fn seen<'a>(plain: ArrayView3<'a, u16>, word: &str) -> ArrayView3<'a, u16> {
    let axis = |letter: char| "zyx".find(letter.to_ascii_lowercase()).unwrap();
    let letters: Vec<char> = word.chars().collect();
    let mut view = plain.permuted_axes([0, 1, 2].map(|i| axis(letters[i])));
    for (axis, letter) in letters.iter().enumerate() {
        if letter.is_uppercase() {
            view.invert_axis(ndarray::Axis(axis));
        }
    }
    view
}

fn rotation(angles: [f64; 3]) -> [[f64; 3]; 3] {
    let [(sa, ca), (sb, cb), (sc, cc)] = angles.map(f64::sin_cos);
    [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
}

/// All 48 orientations after a rotation, as float32.
fn orientations(angles: [f64; 3]) -> Vec<[[f32; 3]; 3]> {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let signs = (0..8).map(|bits| [0, 1, 2].map(|b| if bits >> b & 1 == 0 { 1.0 } else { -1.0 }));
    let rotation = rotation(angles);
    let turned = |order: [usize; 3], signs: [f64; 3]| {
        let column = |row: usize, axis: usize| rotation[row][order[axis]] * signs[axis];
        std::array::from_fn(|row| std::array::from_fn(|axis| column(row, axis) as f32))
    };
    signs.flat_map(|signs| orders.map(|order| turned(order, signs))).collect()
}

const ANGLES: [[f64; 3]; 3] = [[0.0; 3], [0.3, -0.5, 0.8], [1.0, 0.7, -2.0]];

/// Both turning readers of nnU-Net make the same of all of them.
const TURNS: [&str; 3] = [
    "\
    zyx yzx zxy yxz xzy xyz zyX yzX zXy yXz Xzy Xyz zYx Yzx zxY Yxz \
    xzY xYz zYX YzX zXY YXz XzY XYz Zyx yZx Zxy yxZ xZy xyZ ZyX yZX \
    ZXy yXZ XZy XyZ ZYx YZx ZxY YxZ xZY xYZ ZYX YZX ZXY YXZ XZY XYZ",
    "\
    yZx zYx xZy xYz zXy yXz yZX zYX XZy XYz zxy yxz YZx zyx xZY xyz \
    zXY YXz YZX zyX XZY Xyz zxY Yxz yzx ZYx xzy xYZ ZXy yXZ yzX ZYX \
    Xzy XYZ Zxy yxZ Yzx Zyx xzY xyZ ZXY YXZ YzX ZyX XzY XyZ ZxY YxZ",
    "\
    XYZ XZY YXZ ZXY YZX ZYX xYZ xZY YxZ ZxY YZx ZYx XyZ XZy yXZ ZXy \
    yZX ZyX xyZ xZy yxZ Zxy yZx Zyx XYz XzY YXz zXY YzX zYX xYz xzY \
    Yxz zxY Yzx zYx Xyz Xzy yXz zXy yzX zyX xyz xzy yxz zxy yzx zyx",
];

#[test]
fn all_orientations_are_turned_as_nnunet_turns_them() {
    let folder = tempfile::tempdir().unwrap();
    for (angles, turns) in ANGLES.into_iter().zip(TURNS) {
        let turns: Vec<_> = turns.split_whitespace().collect();
        assert_eq!(turns.len(), 48);
        for (axes, expected) in orientations(angles).into_iter().zip(turns) {
            let path = written(folder.path(), &file(axes).bytes());
            let plain = super::super::read_labelmap(&path).unwrap();
            for reader in [Reader::NibabelReorient, Reader::SimpleItkReorient] {
                let labels = reader.read_labelmap(&path).unwrap();
                let what = format!("{reader:?}, {axes:?}");
                assert_eq!(word(labels.geometry.turn()), expected, "{what}");
                assert_eq!(labels.data.view(), seen(plain.data.view(), expected), "{what}");
                // Where the voxels lie has not changed: written back, nothing differs.
                let back = in_file(&labels);
                assert_eq!(back.data, plain.data, "{what}");
                back.geometry.check_same_grid(&plain.geometry).unwrap();
                check_prediction(reader, &path, &plain);
            }
            for reader in [Reader::Nibabel, Reader::SimpleItk] {
                check_opener(reader, &path, (&plain, expected));
            }
            let as_it_is = Reader::Nibabel.read_labelmap(&path).unwrap();
            assert_eq!(as_it_is.data, plain.data);
            assert_eq!(as_it_is.geometry.turn(), Turn::NONE);
            as_it_is.geometry.check_same_grid(&plain.geometry).unwrap();
        }
    }
}

/// What a reader that does not turn gives is turned afterwards: to RAS as nnU-Net turns it, to other
/// axes from there.
fn check_opener(reader: Reader, path: &Path, (plain, to_ras): (&LabelMap, &str)) {
    let opened = |to| Opener { orientation: Some(to), ..reader.leniently(Leniency::default()) };
    let opener = opened(Orientation::RAS);
    let labels = opener.read_labelmap(path).unwrap();
    assert_eq!(word(labels.geometry.turn()), to_ras, "{reader:?}");
    assert_eq!(labels.data.view(), seen(plain.data.view(), to_ras), "{reader:?}");
    assert_eq!(opener.read_geometry(path).unwrap().0, labels.geometry);
    let turned = opener.turned_to(&labels.geometry);
    assert_eq!(turned, (to_ras != "zyx").then_some(Orientation::RAS));
    let back = in_file(&labels);
    assert_eq!(back.data, plain.data, "{reader:?}");
    back.geometry.check_same_grid(&plain.geometry).unwrap();
    let other: Orientation = "ILP".parse().unwrap();
    let opener = opened(other);
    let scan = opener.read_scan(&[path]).unwrap().into_image();
    let from_ras = Orientation::RAS.turn_to(other).apply(labels.data.view());
    assert!(scan.data.iter().zip(from_ras).all(|(a, b)| *a == f32::from(*b)), "{reader:?}");
    let in_memory = std::fs::read(path).unwrap();
    assert_eq!(opener.read_scan_bytes(&[in_memory]).unwrap().into_image(), scan);
    let elsewhere = super::super::read_scan(&[path]).unwrap();
    assert_eq!(opener.see(elsewhere).unwrap().into_image().data, scan.data);
}

/// Through preprocessing and back, under plans that transpose and keep the resolution.
fn check_prediction(reader: Reader, path: &Path, plain: &LabelMap) {
    let mut scan = reader.read_scan(&[path]).unwrap();
    let crate::image::Voxels::F32(voxels) = &mut scan.voxels else { panic!("floats were written") };
    // Something to crop, in the turned frame.
    voxels.slice_mut(s![.., 0, .., ..]).fill(0.0);
    let spacing = scan.geometry.spacing_mm();
    let transpose = [1, 2, 0];
    let mut plans = Plans {
        reader,
        transpose_forward: transpose,
        spacing_mm: transpose.map(|axis| spacing[axis]),
        ..Plans::totalsegmentator()
    };
    plans.channels[0].scheme = crate::plans::Normalization::None;
    let prepared = preprocess_scan(&scan, &plans).unwrap();
    let labels = prepared.image.index_axis(ndarray::Axis(0), 0).mapv(|v| v.round() as u16);
    let restored = prepared.trace.paste(labels.view());
    assert_eq!(restored.geometry.shape(), plain.geometry.shape());
    restored.geometry.check_same_grid(&plain.geometry).unwrap();
    let kept = restored.data.iter().zip(&plain.data).filter(|(a, b)| a == b).count();
    let cropped = restored.data.iter().filter(|v| **v == 0).count();
    assert_eq!(kept + cropped, plain.data.len());
    assert_eq!(cropped, plain.data.len() / scan.geometry.shape()[0]);
}

/// A header's contradiction, orientation, reader; then the turn, the spacing the network sees, and the
/// affine nnU-Net writes.
type Recorded = (&'static str, &'static str, Reader, &'static str, [f64; 3], [[f64; 4]; 3]);

#[rustfmt::skip]
const HEADERS: &[Recorded] = &[
    ("qform", "RAS", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[0.37, -0.516417, -1.292834, 1.0], [0.298209, 0.8, 0.196417, 2.0], [-0.155472, 0.305472, -2.7, 3.0]]),
    ("qform", "RAS", Reader::NibabelReorient, "Zyx", [3.0, 1.0, 0.5], [[0.37, -0.516417, -1.292834, 1.0], [0.298209, 0.8, 0.196417, 2.0], [-0.155472, 0.305472, -2.7, 3.0]]),
    ("qform", "LAI", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[0.37, -0.516417, -1.292834, 1.0], [0.298209, 0.8, 0.196417, 2.0], [-0.155472, 0.305472, -2.7, 3.0]]),
    ("qform", "LAI", Reader::NibabelReorient, "Zyx", [3.0, 1.0, 0.5], [[0.37, -0.516417, -1.292834, 1.0], [0.298209, 0.8, 0.196417, 2.0], [-0.155472, 0.305472, -2.7, 3.0]]),
    ("neither", "RAS", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 2.5], [0.0, 1.0, 0.0, -3.0], [0.0, 0.0, 3.0, -6.0]]),
    ("neither", "RAS", Reader::NibabelReorient, "zyX", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 2.5], [0.0, 1.0, 0.0, -3.0], [0.0, 0.0, 3.0, -6.0]]),
    ("neither", "LAI", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 2.5], [0.0, 1.0, 0.0, -3.0], [0.0, 0.0, 3.0, -6.0]]),
    ("neither", "LAI", Reader::NibabelReorient, "zyX", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 2.5], [0.0, 1.0, 0.0, -3.0], [0.0, 0.0, 3.0, -6.0]]),
    ("both", "RAS", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("both", "RAS", Reader::NibabelReorient, "zyx", [3.0, 1.0, 0.5], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("both", "LAI", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("both", "LAI", Reader::NibabelReorient, "ZyX", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("pixdim", "RAS", Reader::Nibabel, "zyx", [3.0, 1.0, 0.6000000238418579], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("pixdim", "RAS", Reader::NibabelReorient, "zyx", [3.0, 1.0, 0.6000000238418579], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("pixdim", "LAI", Reader::Nibabel, "zyx", [3.0, 1.0, 0.6000000238418579], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("pixdim", "LAI", Reader::NibabelReorient, "ZyX", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("metres", "RAS", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("metres", "RAS", Reader::NibabelReorient, "zyx", [3.0, 1.0, 0.5], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("metres", "LAI", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("metres", "LAI", Reader::NibabelReorient, "ZyX", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("negative", "RAS", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("negative", "RAS", Reader::NibabelReorient, "zyx", [3.0, 1.0, 0.5], [[0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, 3.0, 1030.75]]),
    ("negative", "LAI", Reader::Nibabel, "zyx", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
    ("negative", "LAI", Reader::NibabelReorient, "ZyX", [3.0, 1.0, 0.5], [[-0.5, 0.0, 0.0, 12.5], [0.0, 1.0, 0.0, -107.25], [0.0, 0.0, -3.0, 1030.75]]),
];

fn put(bytes: &mut [u8], at: usize, values: &[f32]) {
    for (i, value) in values.iter().enumerate() {
        bytes[at + 4 * i..at + 4 * i + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// Bends a header.
fn bend(bytes: &mut [u8], how: &str) {
    match how {
        "qform" | "both" => {
            bytes[252] = 1;
            bytes[254] = if how == "both" { 2 } else { 0 };
            put(bytes, 76, &[-1.0]);
            put(bytes, 256, &[0.1, 0.2, 0.3, 1.0, 2.0, 3.0]);
        }
        "neither" => bytes[254] = 0,
        "pixdim" => put(bytes, 80, &[0.6]),
        "metres" => bytes[123] = 1,
        "negative" => put(bytes, 80, &[-0.5]),
        "zero" => put(bytes, 80, &[0.0]),
        "four" => (bytes[40], bytes[48]) = (4, 1),
        "intercept" => put(bytes, 112, &[0.0, 5.0]),
        "sheared" => put(bytes, 284, &[0.3]),
        "singular" => put(bytes, 280, &[0.0]),
        "infinite" => put(bytes, 292, &[f32::INFINITY]),
        _ => unreachable!("{how}"),
    }
}

fn bent(folder: &Path, axes: &str, how: &str) -> PathBuf {
    let signs = if axes == "RAS" { [1.0, 1.0, 1.0] } else { [-1.0, 1.0, -1.0] };
    let mut diagonal = [[0.0; 3]; 3];
    (0..3).for_each(|i| diagonal[i][i] = signs[i]);
    let mut bytes = file(diagonal).bytes();
    bend(&mut bytes, how);
    written(folder, &bytes)
}

#[test]
fn contradictions_in_headers_are_read_as_nibabel_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    for (how, axes, reader, turn, spacing, affine) in HEADERS {
        let path = bent(folder.path(), axes, how);
        let what = format!("{how}, {axes}, {reader:?}");
        let (geometry, channels) = reader.read_geometry(&path).unwrap();
        assert_eq!(channels, 1);
        assert_eq!(word(geometry.turn()), *turn, "{what}");
        assert_eq!(geometry.spacing_mm(), *spacing, "{what}");
        let found = geometry.in_file().world_from_voxel();
        for (found, expected) in found.iter().flatten().zip(affine.iter().flatten()) {
            assert!((found - expected).abs() <= 2e-6, "{what}: {found} instead of {expected}");
        }
        assert_eq!(reader.read_labelmap(&path).unwrap().geometry, geometry);
    }
}

#[test]
fn what_nibabel_or_itk_would_not_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |how: &str, words: &str| {
        let path = bent(folder.path(), "RAS", how);
        for reader in [Reader::Nibabel, Reader::NibabelReorient] {
            let message = reader.read_geometry(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{how}: {message}");
            assert!(message.ends_with("in_0000.nii"), "{message}");
        }
    };
    check("zero", "spacing");
    check("four", "three dimensions");
    check("intercept", "slope");
    check("sheared", "shear");
    check("singular", "singular");
    check("infinite", "finite");
    assert!(Reader::default().read_geometry(&bent(folder.path(), "RAS", "four")).is_ok());
}

#[test]
fn channels_of_one_case_are_turned_alike() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["RAS", "LAI"].map(|axes| {
        let path = bent(folder.path(), axes, "metres");
        let named = folder.path().join(format!("{axes}.nii"));
        std::fs::rename(path, &named).unwrap();
        named
    });
    // Stored the other way around, but not the same place: both files begin at one corner.
    let error = Reader::NibabelReorient.read_scan(&paths).unwrap_err();
    assert!(error.to_string().starts_with("origin differs"), "{error}");
    let error = Reader::Nibabel.read_scan(&paths).unwrap_err();
    assert!(error.to_string().starts_with("direction differs"), "{error}");
    let scan = Reader::NibabelReorient.read_scan(&[&paths[1], &paths[1]]).unwrap();
    let one = Reader::NibabelReorient.read_labelmap(&paths[1]).unwrap();
    let crate::image::Voxels::F32(voxels) = scan.voxels else { panic!("floats were written") };
    for channel in voxels.outer_iter() {
        assert_eq!(channel.mapv(|v| v as u16), one.data);
    }
}

#[test]
fn names() {
    for reader in Reader::ALL {
        assert_eq!(Reader::from_name("plans", "k", reader.name()).unwrap(), reader);
        assert_eq!(serde_json::to_value(reader).unwrap(), reader.name());
    }
    let message = Reader::from_name("plans", "k", "Tiff3DIO").unwrap_err().to_string();
    assert!(message.contains("NibabelIOWithReorient") && message.contains("Tiff3DIO"), "{message}");
}

#[test]
fn bytes_are_read_as_the_file_is() {
    let folder = tempfile::tempdir().unwrap();
    // Axes that every reader but the plain ones turns.
    let bytes = file([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]).bytes();
    let path = written(folder.path(), &bytes);
    for reader in Reader::ALL {
        let expected = reader.read_scan(&[&path]).unwrap();
        let found = reader.read_scan_bytes(&[&bytes]).unwrap();
        assert_eq!(found.geometry, expected.geometry, "{reader:?}");
        assert_eq!(found.into_image().data, expected.into_image().data, "{reader:?}");
        let channels = reader.read_scan_bytes(&[&bytes, &bytes]).unwrap();
        assert_eq!(channels.num_channels(), 2);
    }
    let error =
        |files: &[&[u8]]| Reader::SimpleItk.read_scan_bytes(files).err().unwrap().to_string();
    assert!(error(&[&bytes, &bytes[..400]]).contains("file 2 in memory"));
    let mut other = file([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    other.spacing_xyz = [2.0; 3];
    let message = error(&[&bytes, &other.bytes()]);
    assert!(message.contains("file 2 in memory"), "{message}");
    assert!(Reader::SimpleItk.read_scan_bytes::<&[u8]>(&[]).is_err());
}
