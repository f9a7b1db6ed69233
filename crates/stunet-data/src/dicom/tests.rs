//! Series that are written here byte by byte: encodings, places, faults, damage.

mod damage;
mod encodings;
mod faults;
mod out;
mod seen;

use super::*;
use crate::image::Voxels;
use stunet_testing::dicom_bytes::{Elements, Form, Pieces, SECRET};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const ROWS: u16 = 3;
const COLUMNS: u16 = 4;

/// A slice before it is written.
#[derive(Clone)]
struct Slice {
    form: Form,
    syntax: &'static str,
    series: &'static str,
    instance: String,
    number: i32,
    description: &'static str,
    image_type: &'static str,
    position: Option<[f64; 3]>,
    along: [f64; 6],
    rows: u16,
    bits: [u16; 3],
    signed: bool,
    photometric: &'static str,
    scale: Option<(f64, f64)>,
    values: Vec<i32>,
    /// Instead of the values.
    packed: Option<Vec<u8>>,
    more: Elements,
}

impl Slice {
    /// A slice at a height, with values that tell it apart.
    fn at(index: usize) -> Self {
        let count = i32::from(ROWS * COLUMNS);
        Self {
            form: Form::Explicit,
            syntax: EXPLICIT,
            series: "1.2.3.4",
            instance: format!("1.2.3.4.{index}"),
            number: 3,
            description: "abdomen",
            image_type: "ORIGINAL\\PRIMARY\\AXIAL",
            position: Some([-10.0, 20.0, 100.0 + 2.5 * index as f64]),
            along: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            rows: ROWS,
            bits: [16, 16, 15],
            signed: true,
            photometric: "MONOCHROME2",
            scale: Some((1.0, -1024.0)),
            values: (0..count).map(|v| 100 * index as i32 + v).collect(),
            packed: None,
            more: Elements::default(),
        }
    }

    fn text(value: f64) -> String {
        format!("{value}")
    }

    fn texts(values: &[f64]) -> String {
        values.iter().map(|v| Self::text(*v)).collect::<Vec<_>>().join("\\")
    }

    fn elements(&self) -> Elements {
        let form = self.form;
        let mut ds = Elements::default()
            .text((8, 8), b"CS", self.image_type)
            .text((8, 0x16), b"UI", "1.2.840.10008.5.1.4.1.1.2")
            .text((8, 0x18), b"UI", &self.instance)
            .text((8, 0x60), b"CS", "CT")
            .text((8, 0x103e), b"LO", self.description)
            .text((0x10, 0x10), b"PN", SECRET)
            .text((0x20, 0xe), b"UI", self.series)
            .text((0x20, 0x11), b"IS", &self.number.to_string())
            .text((0x20, 0x13), b"IS", "7");
        ds.0.extend(self.more.0.clone());
        if let Some(position) = self.position {
            ds = ds.text((0x20, 0x32), b"DS", &Self::texts(&position));
        }
        ds = ds
            .text((0x20, 0x37), b"DS", &Self::texts(&self.along))
            .number((0x28, 2), 1, form)
            .text((0x28, 4), b"CS", self.photometric)
            .number((0x28, 0x10), self.rows, form)
            .number((0x28, 0x11), COLUMNS, form)
            .text((0x28, 0x30), b"DS", "0.75\\0.5")
            .number((0x28, 0x100), self.bits[0], form)
            .number((0x28, 0x101), self.bits[1], form)
            .number((0x28, 0x102), self.bits[2], form)
            .number((0x28, 0x103), self.signed.into(), form);
        if let Some((slope, intercept)) = self.scale {
            ds = ds.text((0x28, 0x1052), b"DS", &Self::text(intercept)).text(
                (0x28, 0x1053),
                b"DS",
                &Self::text(slope),
            );
        }
        ds
    }

    fn cells(&self) -> Vec<u8> {
        let [allocated, stored, high] = self.bits;
        let cell = |v: &i32| {
            let mask = if stored == 32 { u32::MAX } else { (1 << stored) - 1 };
            let cell = (*v as u32 & mask) << (high + 1 - stored);
            let bytes = usize::from(allocated / 8);
            match self.form {
                Form::Big => cell.to_be_bytes()[4 - bytes..].to_vec(),
                _ => cell.to_le_bytes()[..bytes].to_vec(),
            }
        };
        self.values.iter().flat_map(cell).collect()
    }

    fn file(&self) -> Vec<u8> {
        let pixels = match &self.packed {
            Some(packed) => Pieces::Each { table: Vec::new(), pieces: vec![packed.clone()] },
            None => Pieces::Whole(self.cells()),
        };
        let (mut file, mut body) = self.elements().parts(self.form, self.syntax, &pixels);
        if self.syntax == DEFLATED {
            let level = flate2::Compression::new(6);
            let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), level);
            std::io::Write::write_all(&mut deflate, &body).unwrap();
            body = deflate.finish().unwrap();
        }
        file.extend(body);
        file
    }
}

/// A series of five slices, each after an edit; the files are in no order.
fn files(edit: impl Fn(&mut Slice, usize)) -> Vec<Vec<u8>> {
    let file = |index: usize| {
        let mut slice = Slice::at(index);
        edit(&mut slice, index);
        slice.file()
    };
    [3, 0, 4, 1, 2].map(file).to_vec()
}

fn read(files: &[Vec<u8>]) -> Result<Scan> {
    find_in_memory(files)?.choose(None)?.read(false)
}

fn small(scan: &Scan) -> Vec<i16> {
    match &scan.image.voxels {
        Voxels::I16(values) => values.iter().copied().collect(),
        Voxels::F32(_) => panic!("expected small whole numbers"),
    }
}

/// Values of five slices as they are written.
fn expected() -> Vec<i16> {
    (0..5).flat_map(|z| (0..12).map(move |v| 100 * z + v - 1024)).collect()
}

#[test]
fn slices_in_their_order_with_the_grid_of_itk() {
    let scan = read(&files(|_, _| {})).unwrap();
    assert_eq!(small(&scan), expected());
    let grid = &scan.image.geometry;
    assert_eq!(grid.shape(), [5, 3, 4]);
    assert_eq!(grid.spacing_mm(), [2.5, 0.75, 0.5]);
    assert_eq!(grid.origin_mm(), [-10.0, 20.0, 100.0]);
    assert_eq!(grid.direction(), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    assert!(scan.notes.is_empty());
}

#[test]
fn oblique_slices() {
    let (s, c) = 0.6_f64.sin_cos();
    let along = [c, s, 0.0, 0.0, 0.0, -1.0];
    // The normal of these axes.
    let normal = [-s, c, 0.0];
    let scan = read(&files(|slice, index| {
        slice.along = along;
        // From far to near: the first slice lies highest.
        slice.position = Some(normal.map(|n| 50.0 - n * 3.0 * index as f64));
    }));
    let scan = scan.unwrap();
    let grid = &scan.image.geometry;
    let close = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(close(grid.spacing_mm(), [3.0, 0.75, 0.5]), "{grid:?}");
    assert!(close(grid.origin_mm(), normal.map(|n| 50.0 - 12.0 * n)), "{grid:?}");
    let direction = grid.direction();
    assert!((0..3).all(|r| close(direction[r], [along[r], along[3 + r], normal[r]])), "{grid:?}");
    // Rising along the normal: the last file is the first slice.
    assert_eq!(small(&scan)[0], 400 - 1024);
}

#[test]
fn bits_signs_and_scales() {
    let values = |edit: &dyn Fn(&mut Slice, usize)| read(&files(edit)).unwrap();
    let scan = values(&|slice, _| {
        slice.bits = [16, 12, 11];
        slice.values = (-6..6).map(|v| v * 300).collect();
        slice.scale = None;
    });
    assert_eq!(small(&scan)[..12], (-6..6).map(|v| v * 300).collect::<Vec<i16>>());
    let scan = values(&|slice, _| {
        slice.bits = [8, 8, 7];
        slice.signed = false;
        slice.values = (0..12).map(|v| v * 20).collect();
        slice.photometric = "MONOCHROME1";
    });
    assert_eq!(small(&scan)[..3], [-1024, -1004, -984]);
    // What is no small whole number becomes single precision, computed as ITK does.
    let scan = values(&|slice, index| slice.scale = Some((0.1 + index as f64, 0.5)));
    let Voxels::F32(found) = &scan.image.voxels else { panic!("expected single precision") };
    assert_eq!(found[[0, 3, 1, 2]], (306.0 * 3.1 + 0.5) as f32);
    let scan = values(&|slice, _| {
        slice.bits = [16, 16, 15];
        slice.signed = false;
        slice.values[11] = 65535;
    });
    let Voxels::F32(found) = &scan.image.voxels else { panic!("expected single precision") };
    assert_eq!((found[[0, 0, 2, 3]], found[[0, 4, 0, 1]]), (65535.0 - 1024.0, 401.0 - 1024.0));
    let scan = values(&|slice, _| {
        slice.bits = [32, 32, 31];
        slice.values[0] = -70_000;
        slice.scale = Some((0.0, 0.0));
    });
    let Voxels::F32(found) = &scan.image.voxels else { panic!("expected single precision") };
    assert_eq!(found[[0, 0, 0, 0]], -70_000.0);
}

/// Places of a folder, of an archive, and what else lies there.
#[test]
fn folders_and_archives() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("a/b")).unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(at("series.zip")).unwrap());
    for (index, file) in files(|_, _| {}).iter().enumerate() {
        let name = if index % 2 == 0 { format!("a/IM{index}") } else { format!("a/b/{index}.dcm") };
        std::fs::write(at(&name), file).unwrap();
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, file).unwrap();
    }
    zip.finish().unwrap();
    std::fs::write(at("a/notes.txt"), b"no DICOM").unwrap();
    std::fs::write(at("a/.hidden"), b"no DICOM").unwrap();
    let found = find(&at("a")).unwrap();
    assert_eq!((found.series.len(), found.num_others), (1, 1));
    let series = found.choose(None).unwrap();
    assert_eq!((series.uid(), series.num_slices(), series.modality()), ("1.2.3.4", 5, "CT"));
    assert_eq!((series.name().as_str(), series.files().len()), ("3_abdomen", 5));
    assert_eq!(small(&series.read(false).unwrap()), expected());
    let found = find(&at("series.zip")).unwrap();
    let series = found.choose(Some("3")).unwrap();
    assert_eq!(series.files(), [at("series.zip")]);
    assert_eq!(small(&series.read(false).unwrap()), expected());
    assert!(is_dicom(&at("series.zip")) && is_dicom(&at("a/IM0")));
    assert!(!is_dicom(&at("a")) && !is_dicom(&at("a/notes.txt")));
    let message = find(&at("a/notes.txt")).unwrap().choose(None).unwrap_err().to_string();
    assert!(message.contains("found none"), "{message}");
    assert!(find(&at("absent")).unwrap_err().to_string().contains("no such file"));
}

/// Nothing that is said, listed or shown for debugging names the patient.
#[test]
fn nobody_is_named() {
    let found = find_in_memory(&files(|slice, index| {
        slice.description = "abdomen\u{1b}[31m";
        slice.position = Some([0.0, 0.0, if index == 4 { 50.0 } else { index as f64 }]);
    }));
    let found = found.unwrap();
    let series = found.choose(None).unwrap();
    let error = series.read(true).unwrap_err();
    let all = format!("{found:?} {} {error} {error:?} {}", found.lines(), series.name());
    assert!(!all.contains("Secret") && !all.contains('\u{1b}'), "{all}");
    assert!(all.contains("gap is too wide"), "{all}");
}
