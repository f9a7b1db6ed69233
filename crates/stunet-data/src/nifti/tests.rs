//! Files written byte by byte, independently of the writer under test.

use super::*;
use ndarray::Array3;
use proptest::prelude::*;
use std::io::Write;

/// Fields of a file that the tests bend; axes x, y, z.
#[derive(Clone)]
struct File {
    version: u8,
    little: bool,
    dims: Vec<i64>,
    datatype: i16,
    pixdim: [f64; 4],
    scaling: [f64; 2],
    units: u8,
    codes: [i16; 2],
    quaternion: [f64; 3],
    offset: [f64; 3],
    sform: [[f64; 4]; 3],
    voxels: Vec<u8>,
}

/// 2 x 3 x 4 voxels of 3, 2 and 1.5 mm, values 0 to 23.
fn plain() -> File {
    File {
        version: 1,
        little: true,
        dims: vec![2, 3, 4],
        datatype: 2,
        pixdim: [1.0, 3.0, 2.0, 1.5],
        scaling: [1.0, 0.0],
        units: 2,
        codes: [0, 1],
        quaternion: [0.0; 3],
        offset: [0.0; 3],
        sform: [[3.0, 0.0, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 1.5, 30.0]],
        voxels: (0..24).collect(),
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let v2 = self.version == 2;
        let mut out = vec![0u8; if v2 { 544 } else { 352 }];
        let little = self.little;
        let mut put = |at: usize, raw: &[u8]| {
            let ordered: Vec<u8> =
                if little { raw.to_vec() } else { raw.iter().rev().copied().collect() };
            out[at..at + raw.len()].copy_from_slice(&ordered);
        };
        let int =
            |v: i64| if v2 { v.to_le_bytes().to_vec() } else { (v as i16).to_le_bytes().to_vec() };
        let real =
            |v: f64| if v2 { v.to_le_bytes().to_vec() } else { (v as f32).to_le_bytes().to_vec() };
        let code = |v: i16| {
            if v2 { i32::from(v).to_le_bytes().to_vec() } else { v.to_le_bytes().to_vec() }
        };
        let (i, r, c) = if v2 { (8, 8, 4) } else { (2, 4, 2) };
        put(0, &(if v2 { 540i32 } else { 348 }).to_le_bytes());
        let dim_at = if v2 { 16 } else { 40 };
        put(dim_at, &int(self.dims.len() as i64));
        for axis in 0..7 {
            put(dim_at + i * (axis + 1), &int(self.dims.get(axis).copied().unwrap_or(1)));
        }
        put(if v2 { 12 } else { 70 }, &self.datatype.to_le_bytes());
        for (k, v) in self.pixdim.iter().enumerate() {
            put(if v2 { 104 } else { 76 } + r * k, &real(*v));
        }
        if v2 {
            put(168, &544i64.to_le_bytes())
        } else {
            put(108, &352f32.to_le_bytes())
        }
        let (slope, forms) = if v2 { (176, 344) } else { (112, 252) };
        put(slope, &real(self.scaling[0]));
        put(slope + r, &real(self.scaling[1]));
        if v2 {
            put(500, &i32::from(self.units).to_le_bytes())
        } else {
            put(123, &[self.units])
        }
        put(forms, &code(self.codes[0]));
        put(forms + c, &code(self.codes[1]));
        let matrix = self.quaternion.iter().chain(&self.offset).chain(self.sform.as_flattened());
        for (k, v) in matrix.enumerate() {
            put(forms + 2 * c + r * k, &real(*v));
        }
        if v2 {
            out[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n")
        } else {
            out[344..348].copy_from_slice(b"n+1\0")
        }
        out.extend(&self.voxels);
        out
    }

    fn read(&self) -> Result<Image> {
        read_bytes(&self.bytes(), "case.nii")
    }
}

fn read_bytes(bytes: &[u8], name: &str) -> Result<Image> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_image(&[path])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn sheared_files_are_read_if_that_is_allowed() {
    use crate::geometry::Leniency;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheared.nii");
    let mut file = stunet_testing::nifti_bytes::NiftiBytes::ramp([5, 4, 3]);
    file.affine[0][1] += 0.05;
    std::fs::write(&path, file.bytes()).unwrap();
    let lenient = Leniency { sheared: true, ..Leniency::default() };
    for reader in Reader::ALL {
        let message = reader.read_scan(&[&path]).unwrap_err().to_string();
        assert!(message.contains("sheared") && message.contains("--allow sheared"), "{message}");
        let scan = reader.leniently(lenient).read_scan(&[&path]).unwrap();
        let d = scan.geometry.direction();
        let dot = |i: usize, j: usize| (0..3).map(|r| d[r][i] * d[r][j]).sum::<f64>();
        assert!(dot(0, 1).abs() < 1e-12 && dot(0, 2).abs() < 1e-12, "{reader:?} {d:?}");
        let (grid, _) = reader.leniently(lenient).read_geometry(&path).unwrap();
        assert_eq!(grid, scan.geometry, "{reader:?}");
    }
}

#[test]
fn axes_are_z_y_x_and_spacing_is_widened_from_f32() {
    let image = File { pixdim: [1.0, 3.0, 2.0, 0.9], ..plain() }.read().unwrap();
    assert_eq!(image.data.dim(), (1, 4, 3, 2));
    assert_eq!(image.data[[0, 3, 2, 1]], 23.0);
    assert_eq!(image.data[[0, 0, 1, 0]], 2.0);
    assert_eq!(image.geometry.spacing_mm(), [f64::from(0.9f32), 2.0, 3.0]);
}

macro_rules! type_check {
    ($code:expr, $type:ty, $values:expr) => {
        let values: [$type; 4] = $values;
        for little in [true, false] {
            for version in [1, 2] {
                let voxels = values
                    .iter()
                    .flat_map(|v| if little { v.to_le_bytes() } else { v.to_be_bytes() });
                let file = File {
                    version,
                    little,
                    datatype: $code,
                    dims: vec![2, 1, 2],
                    voxels: voxels.collect(),
                    ..plain()
                };
                let image = file.read().unwrap();
                let expected: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                assert_eq!(image.data.as_slice().unwrap(), expected, "{}", stringify!($type));
                assert_eq!(
                    image.geometry,
                    File { voxels: vec![0; 4], dims: vec![2, 1, 2], ..plain() }
                        .read()
                        .unwrap()
                        .geometry
                );
            }
        }
    };
}

#[test]
fn every_type_in_both_byte_orders_and_versions() {
    type_check!(2, u8, [0, 1, 200, 255]);
    type_check!(256, i8, [-128, -1, 0, 127]);
    type_check!(4, i16, [-32768, -1024, 0, 32767]);
    type_check!(512, u16, [0, 1, 40000, 65535]);
    type_check!(8, i32, [-2_000_000_000, -1, 0, 7]);
    type_check!(768, u32, [0, 1, 4_000_000_000, 7]);
    type_check!(1024, i64, [-5_000_000_000, -1, 0, 7]);
    type_check!(1280, u64, [0, 1, 5_000_000_000, 7]);
    type_check!(16, f32, [-1.5, 0.0, 1e-20, 3e30]);
    type_check!(64, f64, [-1.5, 0.0, 0.1, 3e30]);
}

/// Expected values were read with SimpleITK 2.5 (ITK 5.4).
#[test]
fn scaling_as_itk() {
    let check = |slope: f64, inter: f64, expected: [f32; 2]| {
        let image = File { scaling: [slope, inter], ..plain() }.read().unwrap();
        let found = [image.data[[0, 0, 0, 0]], image.data[[0, 0, 0, 1]]];
        assert_eq!(found, expected, "slope {slope}, intercept {inter}");
    };
    check(1.0, 0.0, [0.0, 1.0]);
    check(2.0, -1024.0, [-1024.0, -1022.0]);
    check(0.0, 0.0, [0.0, 1.0]);
    check(0.0, 5.0, [5.0, 6.0]);
    check(f64::NAN, f64::NAN, [0.0, 1.0]);
    check(f64::NAN, 5.0, [5.0, 6.0]);
    check(2.0, f64::INFINITY, [0.0, 2.0]);
    check(-1.0, 0.0, [0.0, -1.0]);
}

/// Spacing x, y, z, origin and the diagonal of the direction (LPS).
fn check_form(name: &str, file: &File, spacing: [f64; 3], origin: [f64; 3], diagonal: [f64; 3]) {
    let g = file.read().unwrap_or_else(|e| panic!("{name}: {e}")).geometry;
    let [z, y, x] = g.spacing_mm();
    assert_eq!([x, y, z], spacing, "{name}: spacing");
    assert_eq!(g.origin_mm(), origin, "{name}: origin");
    for (axis, expected) in diagonal.into_iter().enumerate() {
        assert!((g.direction()[axis][axis] - expected).abs() < 1e-6, "{name}: {:?}", g.direction());
    }
}

/// Expected values were read with SimpleITK 2.5 (ITK 5.4); 2.2 (ITK 5.3) has the same rules.
#[test]
fn orientation_as_itk() {
    let base = File { pixdim: [1.0, 2.0, 3.0, 4.0], offset: [10.0, 20.0, 30.0], ..plain() };
    let diagonal = |x: f64| [[x, 0.0, 0.0, 10.0], [0.0, 3.0, 0.0, 20.0], [0.0, 0.0, 4.0, 30.0]];
    let file = |codes, x| File { codes, sform: diagonal(x), ..base.clone() };
    let (spacing, origin) = ([2.0, 3.0, 4.0], [-10.0, -20.0, 30.0]);
    check_form("no code", &file([0, 0], 2.0), spacing, [0.0; 3], [1.0, 1.0, 1.0]);
    check_form("sform only", &file([0, 2], 2.0), spacing, origin, [-1.0, -1.0, 1.0]);
    check_form("qform only", &file([1, 0], -2.0), spacing, origin, [-1.0, -1.0, 1.0]);
    check_form("scanner sform", &file([2, 1], -2.0), spacing, origin, [1.0, -1.0, 1.0]);
    check_form("qform wins", &file([1, 2], -2.0), spacing, origin, [-1.0, -1.0, 1.0]);
    check_form("alike", &file([2, 2], 2.0), spacing, origin, [-1.0, -1.0, 1.0]);
    let pixdim_rules = File { pixdim: [1.0; 4], ..file([0, 2], 2.0) };
    check_form("sform of other lengths", &pixdim_rules, [1.0; 3], origin, [-1.0, -1.0, 1.0]);
    let negative = File { pixdim: [1.0, -2.0, 3.0, 4.0], ..file([0, 2], 2.0) };
    check_form("negative pixdim", &negative, spacing, origin, [1.0, -1.0, 1.0]);
    let negative = File { pixdim: [1.0, 2.0, -3.0, 4.0], ..file([0, 0], 2.0) };
    check_form("negative pixdim, no code", &negative, spacing, [0.0; 3], [1.0, -1.0, 1.0]);
    let flipped = File { pixdim: [-1.0, 2.0, 3.0, 4.0], ..file([1, 0], 2.0) };
    check_form("qfac", &flipped, spacing, origin, [-1.0, -1.0, -1.0]);
    let metres = File { units: 1, ..file([0, 1], 2.0) };
    let kilo = |v: [f64; 3]| v.map(|v| v * 1000.0);
    check_form("metres", &metres, kilo(spacing), kilo(origin), [-1.0, -1.0, 1.0]);
    let half_turn = File { quaternion: [0.0, 0.0, 1.0], ..file([1, 0], 2.0) };
    check_form("half turn about z", &half_turn, spacing, origin, [1.0, 1.0, 1.0]);
}

#[test]
fn a_sheared_sform_falls_back_to_the_qform_or_is_refused() {
    let sform = [[3.0, 0.5, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 1.5, 30.0]];
    let sheared = File { sform, codes: [1, 2], offset: [10.0, 20.0, 30.0], ..plain() };
    check_form("qform", &sheared, [3.0, 2.0, 1.5], [-10.0, -20.0, 30.0], [-1.0, -1.0, 1.0]);
    refused(&File { codes: [0, 2], ..sheared }.bytes(), "affine is sheared");
}

#[test]
fn channels_on_the_fourth_axis_and_in_several_files() {
    let four = File { dims: vec![2, 3, 2, 2], ..plain() }.read().unwrap();
    assert_eq!(four.data.dim(), (2, 2, 3, 2));
    assert_eq!(four.data[[1, 0, 0, 0]], 12.0);
    let folder = tempfile::tempdir().unwrap();
    let paths = ["case_0000.nii", "case_0001.nii.gz"].map(|n| folder.path().join(n));
    std::fs::write(&paths[0], plain().bytes()).unwrap();
    let other = File { voxels: (100..124).collect(), ..plain() };
    std::fs::write(&paths[1], gzip(&other.bytes())).unwrap();
    let image = read_image(&paths).unwrap();
    assert_eq!(image.data.dim(), (2, 4, 3, 2));
    assert_eq!(image.data[[1, 0, 0, 1]], 101.0);
    let moved = File { pixdim: [1.0, 3.0, 2.0, 1.6], ..other };
    std::fs::write(&paths[1], gzip(&moved.bytes())).unwrap();
    let message = read_image(&paths).unwrap_err().to_string();
    assert!(message.starts_with("spacing differs"), "{message}");
    assert!(message.ends_with("case_0001.nii.gz"), "{message}");
}

#[test]
fn a_header_and_its_voxels_in_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("case.hdr");
    let mut bytes = plain().bytes();
    bytes[344..348].copy_from_slice(b"ni1\0");
    bytes[108..112].copy_from_slice(&0f32.to_le_bytes());
    let voxels = folder.path().join("case.img");
    std::fs::write(&header, &bytes[..348]).unwrap();
    std::fs::write(&voxels, plain().voxels).unwrap();
    for named in [&header, &voxels] {
        assert_eq!(read_image(&[named]).unwrap(), plain().read().unwrap());
        assert_eq!(read_geometry(named).unwrap().1, 1);
    }
    assert!(has_header_beside(&voxels) && !has_header_beside(&header));
    let message = |named: &Path| read_image(&[named]).unwrap_err().to_string();
    std::fs::write(&voxels, &plain().voxels[1..]).unwrap();
    assert!(message(&header).ends_with("case.img"), "{}", message(&header));
    std::fs::remove_file(&voxels).unwrap();
    assert!(message(&header).starts_with("the file of voxels (.img)"), "{}", message(&header));
    assert!(message(&header).ends_with("case.hdr"), "{}", message(&header));
    assert!(message(&voxels).starts_with("the file of voxels (.img)"), "{}", message(&voxels));
    std::fs::rename(&header, &voxels).unwrap();
    assert!(message(&voxels).starts_with("the header (.hdr)"), "{}", message(&voxels));
    // Packed pairs, and those of which one is.
    let packed = ["case.hdr.gz", "case.img.gz"].map(|name| folder.path().join(name));
    std::fs::write(&packed[0], gzip(&bytes[..348])).unwrap();
    std::fs::write(&packed[1], gzip(&plain().voxels)).unwrap();
    std::fs::remove_file(&voxels).unwrap();
    for named in &packed {
        assert_eq!(read_image(&[named]).unwrap(), plain().read().unwrap());
    }
}

#[test]
fn a_single_file_whose_header_says_two() {
    let mut bytes = plain().bytes();
    bytes[344..348].copy_from_slice(b"ni1\0");
    assert_eq!(read_bytes(&bytes, "case.nii").unwrap(), plain().read().unwrap());
    assert_eq!(read_bytes(&gzip(&bytes), "case.nii.gz").unwrap(), plain().read().unwrap());
    bytes[108..112].fill(0);
    assert_eq!(read_bytes(&bytes, "case.nii").unwrap(), plain().read().unwrap());
}

#[test]
fn planes_come_back_as_planes() {
    let plane = File { dims: vec![4, 6], ..plain() };
    let image = plane.read().unwrap();
    let [dz, dy, dx] = image.geometry.spacing_mm();
    assert_eq!((image.data.dim(), [dx, dy, dz]), ((1, 1, 6, 4), [3.0, 2.0, 2997.0]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plane.nii");
    let labels = Array3::from_shape_fn((1, 6, 4), |(_, y, x)| (y + x) as u16);
    write_labelmap(&path, &LabelMap::new(labels.clone(), image.geometry.clone()).unwrap(), 3)
        .unwrap();
    let written = std::fs::read(&path).unwrap();
    assert_eq!(written[40..48], [2, 0, 4, 0, 6, 0, 1, 0]);
    // The place in space is the file's own, the missing axis included.
    assert_eq!(written[280..328], plane.bytes()[280..328]);
    let back = read_labelmap(&path).unwrap();
    assert_eq!((back.data, back.geometry), (labels, image.geometry));
    // One slice of three dimensions is another thing.
    let slice = File { dims: vec![4, 6, 1], ..plain() }.read().unwrap();
    assert!(!slice.geometry.is_plane() && slice.geometry.spacing_mm()[0] == 1.5);
}

fn refused(bytes: &[u8], expected: &str) {
    for (name, bytes) in [("case.nii", bytes.to_vec()), ("case.nii.gz", gzip(bytes))] {
        let message = read_bytes(&bytes, name).unwrap_err().to_string();
        assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
        assert!(message.ends_with(name), "the path comes last: {message:?}");
        assert_eq!(message.lines().count(), 1, "{message:?}");
    }
}

#[test]
fn bad_files_are_refused_in_one_line() {
    let good = plain().bytes();
    refused(&good[..good.len() - 1], "file is truncated");
    refused(&good[..352], "file is truncated");
    refused(&good[..200], "not a NIfTI file");
    refused(b"", "not a NIfTI file");
    refused(b"PK\x03\x04 a zip file, for instance", "not a NIfTI file");
    let mut analyze = good.clone();
    analyze[344..348].fill(0);
    refused(&analyze, "Analyze 7.5 has none");
    refused(&File { dims: vec![6], ..plain() }.bytes(), "expected 2 to 7 dimensions");
    let mut tensor = good.clone();
    tensor[68..70].copy_from_slice(&1005i16.to_le_bytes());
    refused(&tensor, "found symmetric matrices (1005)");
    refused(&File { dims: vec![0, 3, 4], ..plain() }.bytes(), "bad dimensions");
    refused(&File { dims: vec![-2, 3, 4], ..plain() }.bytes(), "bad dimensions");
    refused(&File { dims: vec![2, 3, 2, 1, 1, 2], ..plain() }.bytes(), "bad dimensions");
    refused(&File { dims: vec![30000, 30000, 30000], ..plain() }.bytes(), "file is truncated");
    let huge = File { version: 2, dims: vec![1 << 40, 1 << 40, 1 << 40], ..plain() };
    refused(&huge.bytes(), "bad dimensions");
    refused(&File { datatype: 32, ..plain() }.bytes(), "complex");
    refused(&File { datatype: 128, ..plain() }.bytes(), "colours");
    refused(&File { datatype: 3, ..plain() }.bytes(), "code 3");
    refused(&File { pixdim: [1.0, 3.0, 0.0, 1.5], ..plain() }.bytes(), "spacing must be");
    refused(&File { pixdim: [1.0, 3.0, f64::NAN, 1.5], ..plain() }.bytes(), "spacing must be");
    refused(&File { sform: [[0.0; 4]; 3], ..plain() }.bytes(), "affine is singular");
    let flat = [[3.0, 3.0, 0.0, 0.0], [0.0; 4], [0.0, 0.0, 1.0, 0.0]];
    refused(&File { sform: flat, ..plain() }.bytes(), "affine is singular");
    refused(&File { sform: [[f64::NAN; 4]; 3], ..plain() }.bytes(), "finite");
    for (bad, count) in [(f32::NAN, 1), (f32::INFINITY, 1), (f32::NEG_INFINITY, 1)] {
        let mut voxels: Vec<u8> = (0..24).flat_map(|v| (v as f32).to_le_bytes()).collect();
        voxels[4 * 11..4 * 12].copy_from_slice(&bad.to_le_bytes());
        let file = File { datatype: 16, voxels, ..plain() };
        refused(&file.bytes(), &format!("found {count} NaN or infinite"));
        refused(&file.bytes(), "channel 0, z 1, y 2, x 1");
    }
}

#[test]
fn damaged_compression_is_told_apart() {
    let whole = gzip(&plain().bytes());
    let message = |bytes: &[u8]| read_bytes(bytes, "case.nii.gz").unwrap_err().to_string();
    assert!(message(&whole[..whole.len() / 2]).starts_with("gzip stream"));
    assert!(message(&whole[..whole.len() - 4]).starts_with("gzip stream"));
    let mut wrong_sum = whole.clone();
    let at = whole.len() - 6;
    wrong_sum[at] ^= 0xff;
    assert!(message(&wrong_sum).starts_with("gzip stream"));
    // Several members, and padding behind the last, are fine.
    let bytes = plain().bytes();
    let mut members = [gzip(&bytes[..300]), gzip(&bytes[300..])].concat();
    assert!(read_bytes(&members, "case.nii.gz").is_ok());
    members.extend([0; 64]);
    assert!(read_bytes(&members, "case.nii.gz").is_ok());
}

#[test]
fn a_missing_file_and_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.nii.gz");
    let error = read_image(&[&absent]).unwrap_err().to_string();
    assert!(error.starts_with("no such file"), "{error}");
    assert!(read_image(&[folder.path()]).is_err());
}

#[test]
fn memory_has_what_a_file_has() {
    use crate::labels::{CompactLabelMap, LabelVoxels};
    let folder = tempfile::tempdir().unwrap();
    let geometry = Geometry::axis_aligned([2, 3, 4], [1.0, 2.0, 3.0]).unwrap();
    let voxels = Array3::from_shape_fn([2, 3, 4], |(z, y, x)| (z * 12 + y * 4 + x) as u8);
    let labels = CompactLabelMap { voxels: LabelVoxels::Bytes(voxels), geometry };
    for (name, compressed) in [("a.nii.gz", true), ("a.nii", false)] {
        for most in [23, 300] {
            let file = folder.path().join(name);
            write_compact_labelmap(&file, &labels, most, Some("a note")).unwrap();
            let bytes = labelmap_to_bytes(&labels, most, Some("a note"), compressed).unwrap();
            assert_eq!(bytes, std::fs::read(&file).unwrap(), "{name} {most}");
            let found = read_labelmap_bytes(&bytes, None).unwrap();
            assert_eq!(found, read_labelmap(&file).unwrap());
        }
    }
    assert!(read_labelmap_bytes(b"no labelmap", None).is_err());
}

#[test]
fn labels_must_be_whole_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.nii");
    std::fs::write(&path, File { scaling: [0.5, 0.0], ..plain() }.bytes()).unwrap();
    assert!(read_labelmap(&path).unwrap_err().to_string().contains("whole numbers"));
    std::fs::write(&path, plain().bytes()).unwrap();
    assert_eq!(read_labelmap(&path).unwrap().data[[3, 2, 1]], 23);
}

#[test]
fn nothing_is_left_when_writing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let labels = LabelMap::new(
        Array3::zeros((5, 7, 11)),
        Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5]).unwrap(),
    )
    .unwrap();
    let absent = folder.path().join("absent/out.nii.gz");
    assert!(write_labelmap(&absent, &labels, 104).is_err());
    assert!(write_labelmap(&folder.path().join("out.png"), &labels, 104).is_err());
    let taken = folder.path().join("out.nii.gz");
    std::fs::create_dir(&taken).unwrap();
    assert!(write_labelmap(&taken, &labels, 104).is_err());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn labels_are_u8_until_they_need_u16_and_long_axes_make_version_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.nii");
    let code = |shape: [usize; 3], label: u16, known: u16| {
        let mut data = Array3::zeros(shape);
        data[[0, 0, 0]] = label;
        let geometry = Geometry::axis_aligned(shape, [3.0, 1.0, 0.5]).unwrap();
        let labels = LabelMap::new(data, geometry).unwrap();
        write_labelmap(&path, &labels, known).unwrap();
        assert_eq!(read_labelmap(&path).unwrap(), labels);
        std::fs::read(&path).unwrap()
    };
    assert_eq!(code([2, 3, 4], 104, 104)[70], 2);
    assert_eq!(code([2, 3, 4], 3, 300)[70..72], 512u16.to_le_bytes());
    assert_eq!(code([2, 3, 4], 256, 104)[70..72], 512u16.to_le_bytes());
    assert_eq!(code([1, 2, 40_000], 1, 1)[..4], 540i32.to_le_bytes());
}

/// A unit quaternion's rotation, columns permuted and flipped by `axes`.
fn rotated(angles: [f64; 3]) -> [[f64; 3]; 3] {
    let [(sa, ca), (sb, cb), (sc, cc)] = angles.map(f64::sin_cos);
    [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    let shape = prop::array::uniform3(1usize..7);
    let spacing = prop::array::uniform3(0.2f64..6.0);
    let origin = prop::array::uniform3(-500.0f64..500.0);
    let angles = prop::array::uniform3(-3.2f64..3.2);
    (shape, spacing, origin, angles, any::<bool>()).prop_map(|(shape, s, o, angles, mirrored)| {
        let mut direction = rotated(angles);
        if mirrored {
            direction.iter_mut().for_each(|row| row[2] = -row[2]);
        }
        // Files store single precision.
        let [s, o] = [s, o].map(|v| v.map(|v| f64::from(v as f32)));
        Geometry::new(shape, s, o, direction).unwrap()
    })
}

fn assert_same_affine(a: &Geometry, b: &Geometry) {
    assert_eq!(a.shape(), b.shape());
    assert_eq!(a.spacing_mm(), b.spacing_mm());
    assert_eq!(a.origin_mm(), b.origin_mm());
    let (a, b) = (a.world_from_voxel(), b.world_from_voxel());
    for (a, b) in a.as_flattened().iter().zip(b.as_flattened()) {
        assert!((a - b).abs() <= 1e-5, "{a} {b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn reading_what_was_written_gives_it_back(
        geometry in any_geometry(),
        channels in 1usize..4,
        seed in any::<u32>(),
        compressed in any::<bool>(),
    ) {
        let [z, y, x] = geometry.shape();
        let value = |i: usize| (seed.wrapping_mul(i as u32 + 1) % 4001) as f32 - 1000.0;
        let count = channels * z * y * x;
        let data = Array4::from_shape_vec((channels, z, y, x), (0..count).map(value).collect());
        let image = Image::new(data.unwrap(), geometry.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if compressed { "a.nii.gz" } else { "a.nii" });
        write_image(&path, &image).unwrap();
        let found = read_image(&[&path]).unwrap();
        prop_assert_eq!(&found.data, &image.data);
        assert_same_affine(&found.geometry, &geometry);
        // Once through a file, nothing changes any more.
        let first = std::fs::read(&path).unwrap();
        write_image(&path, &found).unwrap();
        prop_assert_eq!(read_image(&[&path]).unwrap().data, found.data);
        // The qform says the same as the sform, as far as it can: near half turns the fourth
        // component of the quaternion, which is not stored, loses most of its digits.
        if !compressed {
            let mut bytes = first;
            bytes[254..256].fill(0);
            let by_qform = read_bytes(&bytes, "q.nii").unwrap().geometry;
            for (a, b) in by_qform.direction().as_flattened().iter()
                .zip(geometry.direction().as_flattened()) {
                prop_assert!((a - b).abs() < 1e-3, "{} {}", a, b);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_and_what_it_reads_it_can_write(
        edits in prop::collection::vec((0usize..376, any::<u8>()), 1..12),
        version in 1u8..3,
        little in any::<bool>(),
        cut in 0usize..4,
    ) {
        let mut bytes = File { version, little, ..plain() }.bytes();
        for (at, value) in edits {
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        if let Ok(image) = read_bytes(&bytes, "fuzzed.nii") {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("again.nii");
            write_image(&path, &image).unwrap();
            let again = read_image(&[&path]);
            // Geometry may leave the range of single precision on the way, voxels may not change.
            if let Ok(again) = again {
                prop_assert_eq!(again.data, image.data);
            }
        }
    }

    #[test]
    fn no_compressed_bytes_make_the_reader_panic(
        edits in prop::collection::vec((0usize..200, any::<u8>()), 1..6),
    ) {
        let mut bytes = gzip(&plain().bytes());
        let length = bytes.len();
        for (at, value) in edits {
            bytes[at % length] = value;
        }
        let _ = read_bytes(&bytes, "fuzzed.nii.gz");
    }
}

/// What is written is what another reader, the crate `nifti`, finds.
#[test]
fn headers_as_the_nifti_crate_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.nii");
    let turned = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]];
    let geometry = Geometry::new([2, 3, 4], [2.0, 1.5, 0.5], [30.0, 20.0, 10.0], turned).unwrap();
    let labels = LabelMap::new(Array3::from_elem((2, 3, 4), 300), geometry).unwrap();
    write_compact_labelmap(&path, &labels.into(), 0, Some("made by hand")).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let header = nifti::NiftiHeader::from_reader(&bytes[..]).unwrap();
    assert_eq!(header.dim().unwrap(), [4, 3, 2]);
    assert_eq!(header.data_type().unwrap(), nifti::NiftiType::Uint16);
    assert_eq!((header.bitpix, header.vox_offset), (16, 384.0));
    assert_eq!(header.xyzt_units().unwrap(), (nifti::Unit::Mm, nifti::Unit::Unknown));
    let scanner = nifti::XForm::ScannerAnat;
    assert_eq!((header.qform().unwrap(), header.sform().unwrap()), (scanner, scanner));
    assert_eq!(header.pixdim[1..4], [0.5, 1.5, 2.0]);
    let rows = [header.srow_x, header.srow_y, header.srow_z];
    let image = read_image(&[&path]).unwrap();
    let affine = image.geometry.world_from_voxel();
    assert!((0..12).all(|i| f64::from(rows[i / 4][i % 4]) == affine[i / 4][i % 4]), "{rows:?}");
}
