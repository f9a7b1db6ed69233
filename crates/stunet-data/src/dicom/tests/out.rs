//! Labels that become DICOM objects, read back.

use super::seen::Seen;
use super::*;
use crate::geometry::{Geometry, Turn};
use crate::labels::{CompactLabelMap, LabelSet, LabelVoxels};
use ndarray::Array3;
use std::collections::BTreeMap;
use stunet_testing::dicom_bytes::Elements as Bytes;

type Point = [f64; 3];

/// Label values by where they are, to the hundredth of a millimetre.
type Places = BTreeMap<[i64; 3], u16>;

fn key(at: Point) -> [i64; 3] {
    at.map(|v| (v * 100.0).round() as i64)
}

fn names() -> LabelSet {
    LabelSet::from_names(["background", "liver", "kidney_left", "tumour of größe"]).unwrap()
}

fn along(origin: Point, steps: [(f64, Point); 3]) -> Point {
    std::array::from_fn(|i| origin[i] + steps.iter().map(|(n, axis)| n * axis[i]).sum::<f64>())
}

/// Labels of a grid by their places, by the grid's own affine (which is RAS).
fn places(labels: &CompactLabelMap) -> Places {
    let m = labels.geometry.world_from_voxel();
    let words = labels.voxels.to_words();
    let values = words.indexed_iter().filter(|(_, v)| **v > 0);
    let place = |((z, y, x), value): ((usize, usize, usize), &u16)| {
        let v = [x as f64, y as f64, z as f64, 1.0];
        let at = |r: usize| (0..4).map(|c| m[r][c] * v[c]).sum::<f64>();
        (key([-at(0), -at(1), at(2)]), *value)
    };
    values.map(place).collect()
}

/// Labels of a segmentation by their places, by what its frames say.
fn places_of_segmentation(seen: &Seen) -> Places {
    let shared = seen.item((0x5200, 0x9229));
    let [rx, ry, rz, cx, cy, cz] =
        shared.item((0x20, 0x9116)).numbers((0x20, 0x37)).try_into().unwrap();
    let spacing = shared.item((0x28, 0x9110)).numbers((0x28, 0x30));
    let (rows, columns) = (seen.number((0x28, 0x10)), seen.number((0x28, 0x11)));
    let (bits, pixels) = (seen.number((0x28, 0x100)), &seen.values[&(0x7fe0, 0x10)]);
    let frames = &seen.items[&(0x5200, 0x9230)];
    assert_eq!(seen.text((0x28, 8)), frames.len().to_string());
    let bytes = (frames.len() * rows * columns * bits).div_ceil(8);
    assert_eq!(pixels.len(), bytes.next_multiple_of(2));
    let values: BTreeMap<usize, u16> = seen.items[&(0x62, 2)]
        .iter()
        .filter(|segment| segment.text((0x62, 5)) != "Background")
        .map(|segment| {
            let value = segment.text((0x62, 6));
            (segment.number((0x62, 4)), value.strip_prefix("label ").unwrap().parse().unwrap())
        })
        .collect();
    let mut found = Places::new();
    for (index, frame) in frames.iter().enumerate() {
        let origin = frame.item((0x20, 0x9113)).numbers((0x20, 0x32)).try_into().unwrap();
        for row in 0..rows {
            for column in 0..columns {
                let voxel = (index * rows + row) * columns + column;
                let value = match bits {
                    1 if pixels[voxel / 8] >> (voxel % 8) & 1 == 0 => continue,
                    1 => values[&frame.item((0x62, 0xa)).number((0x62, 0xb))],
                    8 if pixels[voxel] == 0 => continue,
                    8 => values[&usize::from(pixels[voxel])],
                    _ => match u16::from_le_bytes([pixels[2 * voxel], pixels[2 * voxel + 1]]) {
                        0 => continue,
                        value => values[&usize::from(value)],
                    },
                };
                let at = along(
                    origin,
                    [
                        (column as f64 * spacing[1], [rx, ry, rz]),
                        (row as f64 * spacing[0], [cx, cy, cz]),
                        (0.0, [0.0; 3]),
                    ],
                );
                assert!(found.insert(key(at), value).is_none(), "two segments in a voxel");
            }
        }
    }
    found
}

/// Labels of a structure set by their places: the centres of the grid's voxels in its polygons.
fn places_of_structures(seen: &Seen, grid: &Geometry) -> Places {
    let [_, dy, dx] = grid.spacing_mm();
    let (origin, direction) = (grid.origin_mm(), grid.direction());
    let axis = |column: usize| -> Point { direction.map(|row| row[column]) };
    let dot = |a: Point, b: Point| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let within = |at: Point| -> Point {
        let from = std::array::from_fn(|i| at[i] - origin[i]);
        let [dz, ..] = grid.spacing_mm();
        [dot(from, axis(0)) / dx, dot(from, axis(1)) / dy, dot(from, axis(2)) / dz]
    };
    let [_, rows, columns] = grid.shape();
    let mut found = Places::new();
    for region in &seen.items[&(0x3006, 0x39)] {
        let value: u16 = region.text((0x3006, 0x84)).parse().unwrap();
        for contour in region.items.get(&(0x3006, 0x40)).into_iter().flatten() {
            let numbers = contour.numbers((0x3006, 0x50));
            let points: Vec<Point> =
                numbers.chunks_exact(3).map(|p| within(p.try_into().unwrap())).collect();
            assert_eq!(contour.text((0x3006, 0x46)), points.len().to_string());
            assert!(points.iter().all(|p| (p[2] - points[0][2]).abs() < 0.01), "off its plane");
            for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                let (x, y) = (column as f64, row as f64);
                let crossings = (0..points.len()).filter(|i| {
                    let ([ax, ay, _], [bx, by, _]) = (points[*i], points[(i + 1) % points.len()]);
                    (ay > y) != (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax)
                });
                if crossings.count() % 2 == 1 {
                    let [dz, ..] = grid.spacing_mm();
                    let z = points[0][2].round() * dz;
                    let steps = [(x * dx, axis(0)), (y * dy, axis(1)), (z, axis(2))];
                    found.insert(key(along(origin, steps)), value);
                }
            }
        }
    }
    found
}

/// Labels of a grid, some planes of it empty.
fn labels_on(grid: &Geometry, wide: bool) -> CompactLabelMap {
    let [z, y, x] = grid.shape();
    let value = |(z, y, x): (usize, usize, usize)| match (7 * x + 5 * y + 3 * z) % 6 {
        _ if z == 1 => 0,
        v @ 1..=3 if v < 3 || z > 2 => v as u16,
        _ => 0,
    };
    let words = Array3::from_shape_fn((z, y, x), value);
    let voxels = match wide {
        true => LabelVoxels::Words(words),
        false => LabelVoxels::Bytes(words.mapv(|v| v as u8)),
    };
    CompactLabelMap { voxels, geometry: grid.clone() }
}

fn source_of(files: &[Vec<u8>], uneven: bool) -> Source {
    find_in_memory(files).unwrap().choose(None).unwrap().source(uneven).unwrap()
}

/// Each kind of object of these labels.
fn objects(labels: &CompactLabelMap, source: &Source) -> [Seen; 3] {
    let note = Some("what made it".to_owned());
    let derived =
        Derived::new(labels, &names(), source, DicomProvenance { model: None, note }).unwrap();
    let segmentation = |kind| Seen::of(&derived.segmentation_to_bytes(kind).unwrap());
    [
        segmentation(SegmentationKind::Binary),
        segmentation(SegmentationKind::Labelmap),
        Seen::of(&derived.structure_set_to_bytes().unwrap()),
    ]
}

#[test]
fn every_voxel_comes_back_in_every_orientation() {
    let (s, c) = 0.6_f64.sin_cos();
    let mut frames = vec![[[c, s, 0.0], [0.0, 0.0, -1.0], [-s, c, 0.0]]];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for bits in 0..8 {
            let unit = |i: usize| {
                let mut axis = [0.0; 3];
                axis[order[i]] = if bits >> i & 1 == 1 { -1.0 } else { 1.0 };
                axis
            };
            frames.push([unit(0), unit(1), unit(2)]);
        }
    }
    assert_eq!(frames.len(), 49);
    for [row, column, stacked] in frames {
        let files = files(|slice, index| {
            slice.along = [row, column].concat().try_into().unwrap();
            let steps = [(2.5 * index as f64, stacked), (0.0, row), (0.0, row)];
            slice.position = Some(along([-10.0, 20.0, 100.0], steps));
        });
        let source = source_of(&files, false);
        let labels = labels_on(source.geometry(), false);
        let expected = places(&labels);
        let [binary, labelmap, structures] = objects(&labels, &source);
        assert_eq!(places_of_segmentation(&binary), expected);
        assert_eq!(places_of_segmentation(&labelmap), expected);
        assert_eq!(places_of_structures(&structures, source.geometry()), expected);
    }
}

#[test]
fn labels_may_run_otherwise_than_their_series() {
    let source = source_of(&files(|_, _| {}), false);
    let labels = labels_on(source.geometry(), true);
    for (axes, flipped) in [([2, 0, 1], [true, false, true]), ([0, 1, 2], [false, true, false])] {
        // As a converter to NIfTI does it: other axes, and nothing known of a turn.
        let turn = Turn::new(axes, flipped).unwrap();
        let grid =
            labels.geometry.turned(turn, turn.reorder(labels.geometry.spacing_mm())).unwrap();
        let grid =
            Geometry::new(grid.shape(), grid.spacing_mm(), grid.origin_mm(), grid.direction());
        let LabelVoxels::Words(words) = &labels.voxels else {
            unreachable!("words were asked for")
        };
        let words = turn.apply(words.view()).to_owned();
        let turned = CompactLabelMap { voxels: LabelVoxels::Words(words), geometry: grid.unwrap() };
        assert_eq!(places(&turned), places(&labels));
        let [binary, labelmap, _] = objects(&turned, &source);
        assert_eq!(places_of_segmentation(&binary), places(&labels));
        assert_eq!(places_of_segmentation(&labelmap), places(&labels));
    }
    let other = Geometry::axis_aligned([5, 3, 4], [2.5, 0.75, 0.5]).unwrap();
    let other = labels_on(&other, false);
    let refused = Derived::new(&other, &names(), &source, DicomProvenance::default());
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("that of the DICOM series"), "{message}");
}

#[test]
fn frames_refer_to_their_images() {
    let source = source_of(&files(|_, _| {}), false);
    let labels = labels_on(source.geometry(), false);
    let [binary, labelmap, structures] = objects(&labels, &source);
    assert_eq!(binary.text((8, 0x16)), "1.2.840.10008.5.1.4.1.1.66.4");
    assert_eq!(labelmap.text((8, 0x16)), "1.2.840.10008.5.1.4.1.1.66.7");
    let seen = |frame: &Seen| {
        let derivation = frame.item((8, 0x9124)).item((8, 0x2112));
        let instance = derivation.text((8, 0x1155));
        (frame.item((0x20, 0x9111)).longs((0x20, 0x9157)), instance)
    };
    // The plane that has no label is left out; segments come one after the other.
    let frames: Vec<_> = binary.items[&(0x5200, 0x9230)].iter().map(seen).collect();
    let places = |segment: u32, planes: &[(u32, usize)]| -> Vec<(Vec<u32>, String)> {
        let frame = |(place, z): &(u32, usize)| (vec![segment, *place], format!("1.2.3.4.{z}"));
        planes.iter().map(frame).collect()
    };
    let all = [(1, 0), (2, 2), (3, 3), (4, 4)];
    assert_eq!(frames, [places(1, &all), places(2, &all), places(3, &all[2..])].concat());
    let frames: Vec<_> = labelmap.items[&(0x5200, 0x9230)].iter().map(seen).collect();
    let expected = all.map(|(place, z)| (vec![place], format!("1.2.3.4.{z}")));
    assert_eq!(frames, expected);
    for object in [&binary, &labelmap] {
        let series = object.item((8, 0x1115));
        assert_eq!(series.text((0x20, 0xe)), "1.2.3.4");
        assert_eq!(series.items[&(8, 0x114a)].len(), 5);
    }
    let contour = &structures.items[&(0x3006, 0x39)][0].items[&(0x3006, 0x40)][0];
    assert_eq!(contour.item((0x3006, 0x16)).text((8, 0x1155)), "1.2.3.4.0");
    assert_eq!(contour.text((0x3006, 0x42)), "CLOSED_PLANAR");
}

#[test]
fn segments_have_names_codes_and_colours() {
    let source = source_of(&files(|_, _| {}), false);
    let [binary, labelmap, structures] = objects(&labels_on(source.geometry(), false), &source);
    let segments = &binary.items[&(0x62, 2)];
    assert_eq!(segments.iter().map(|s| s.number((0x62, 4))).collect::<Vec<_>>(), [1, 2, 3]);
    let numbers = labelmap.items[&(0x62, 2)].iter().map(|s| s.number((0x62, 4)));
    assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2, 3]);
    let kidney = &segments[1];
    assert_eq!(kidney.text((0x62, 5)), "kidney_left");
    let kind = kidney.item((0x62, 0xf));
    assert_eq!((kind.text((8, 0x100)), kind.text((8, 0x102))), ("64033007".into(), "SCT".into()));
    assert_eq!(kind.item((0x62, 0x11)).text((8, 0x104)), "Left");
    assert_eq!(kidney.words((0x62, 0xd)).len(), 3);
    assert_eq!(kidney.text((0x62, 8)), "AUTOMATIC");
    // A name that nobody knows has a code of ours, and its own letters.
    let other = segments[2].item((0x62, 0xf));
    assert_eq!(
        (other.text((8, 0x102)).as_str(), segments[2].text((0x62, 5)).as_str()),
        ("99STUNET", "tumour of größe")
    );
    let regions = &structures.items[&(0x3006, 0x20)];
    assert_eq!(regions[1].text((0x3006, 0x26)), "kidney_left");
    let observation = &structures.items[&(0x3006, 0x80)][1];
    assert_eq!(observation.text((0x3006, 0xa4)), "ORGAN");
    assert_eq!(observation.item((0x3006, 0x86)).text((8, 0x100)), "64033007");
    assert_eq!(structures.items[&(0x3006, 0x39)][1].text((0x3006, 0x2a)), "212\\126\\151");
}

/// The object belongs to the same patient; nothing else says who that is.
#[test]
fn patient_and_study_go_from_file_to_file() {
    let latin = |value: &[u8]| {
        Bytes::default()
            .raw((8, 5), b"CS", b"ISO_IR 100".to_vec())
            .raw((0x10, 0x20), b"LO", value.to_vec())
            .text((0x20, 0xd), b"UI", "1.2.3")
            .text((0x20, 0x52), b"UI", "1.2.3.9")
    };
    let files = files(|slice, _| slice.more = latin(b"M\xfcller"));
    let source = source_of(&files, false);
    let labels = labels_on(source.geometry(), false);
    for seen in objects(&labels, &source) {
        assert_eq!(seen.text((0x10, 0x10)), SECRET);
        assert_eq!(seen.values[&(0x10, 0x20)], b"M\xfcller");
        assert_eq!(
            (seen.text((8, 5)), seen.text((0x20, 0x52))),
            ("ISO_IR 100".into(), "1.2.3.9".into())
        );
        assert_eq!(seen.text((0x20, 0xd)), "1.2.3");
        assert_ne!(seen.text((0x20, 0xe)), "1.2.3.4");
        // What the standard wants to be there, and the source does not have.
        assert_eq!(seen.text((0x10, 0x30)), "");
        // Our own letters are those of the source's character set.
        for segment in seen.items.get(&(0x62, 2)).into_iter().flatten() {
            assert!(segment.values[&(0x62, 5)].is_ascii());
        }
    }
    assert!(!format!("{source:?}").contains("Secret"));
}

#[test]
fn the_same_labels_make_the_same_object() {
    let source = source_of(&files(|_, _| {}), false);
    let labels = labels_on(source.geometry(), false);
    let bytes = |labels: &CompactLabelMap, note: &str| {
        let provenance = DicomProvenance {
            model: Some("0123456789abcdef0123".to_owned()),
            note: Some(note.to_owned()),
        };
        let derived = Derived::new(labels, &names(), &source, provenance).unwrap();
        derived.segmentation_to_bytes(SegmentationKind::Binary).unwrap()
    };
    let first = bytes(&labels, "a");
    assert_eq!(first, bytes(&labels, "a"));
    let uid = |bytes: &[u8]| Seen::of(bytes).text((8, 0x18));
    assert_ne!(uid(&first), uid(&bytes(&labels, "b")));
    let mut other = labels.clone();
    let LabelVoxels::Bytes(values) = &mut other.voxels else {
        unreachable!("bytes were asked for")
    };
    values[[0, 0, 0]] = 1;
    assert_ne!(uid(&first), uid(&bytes(&other, "a")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dcm");
    std::fs::write(&path, &first).unwrap();
    assert_eq!(read_note(&path).unwrap().as_deref(), Some("a"));
    std::fs::write(&path, Slice::at(0).file()).unwrap();
    assert_eq!(read_note(&path).unwrap(), None);
    std::fs::write(&path, b"no DICOM").unwrap();
    assert!(read_note(&path).is_err());
    // Cut anywhere, it has no note or is told to be broken.
    for length in (0..first.len()).step_by(7) {
        std::fs::write(&path, &first[..length]).unwrap();
        let _ = read_note(&path);
    }
    // It is no scan.
    let found = find_in_memory(&[first]).unwrap();
    assert!(found.series[0].no_volume().is_some());
}

#[test]
fn labels_that_are_nowhere() {
    let source = source_of(&files(|_, _| {}), false);
    let grid = source.geometry().clone();
    let voxels = LabelVoxels::zeros(grid.shape(), 3);
    let [binary, labelmap, structures] =
        objects(&CompactLabelMap { voxels, geometry: grid.clone() }, &source);
    assert!(places_of_segmentation(&binary).is_empty());
    assert!(places_of_segmentation(&labelmap).is_empty());
    assert!(places_of_structures(&structures, &grid).is_empty());
    assert_eq!((binary.text((0x28, 8)), labelmap.text((0x28, 8))), ("1".into(), "1".into()));
    assert_eq!(structures.items[&(0x3006, 0x20)].len(), 1);
}

#[test]
fn uneven_slices() {
    let files = files(|slice, index| {
        let height = [0.0, 2.5, 5.0, 8.5, 11.0][index];
        slice.position = Some([-10.0, 20.0, height]);
    });
    assert!(find_in_memory(&files).unwrap().choose(None).unwrap().source(false).is_err());
    let source = source_of(&files, true);
    let labels = labels_on(source.geometry(), false);
    let [binary, labelmap, structures] = objects(&labels, &source);
    assert_eq!(places_of_segmentation(&binary), places(&labels));
    assert_eq!(places_of_segmentation(&labelmap), places(&labels));
    assert_eq!(places_of_structures(&structures, source.geometry()), places(&labels));
    let images = |frame: &Seen| frame.item((8, 0x9124)).items[&(8, 0x2112)].len();
    // Between images there are two.
    let counts: Vec<usize> = labelmap.items[&(0x5200, 0x9230)].iter().map(images).collect();
    assert_eq!(counts, [1, 1, 2, 2]);
}

#[test]
fn values_of_two_bytes() {
    let source = source_of(&files(|_, _| {}), false);
    let mut labels = labels_on(source.geometry(), true);
    let LabelVoxels::Words(values) = &mut labels.voxels else {
        unreachable!("words were asked for")
    };
    values[[4, 2, 3]] = 700;
    let [binary, labelmap, _] = objects(&labels, &source);
    assert_eq!(labelmap.number((0x28, 0x100)), 16);
    assert_eq!(places_of_segmentation(&binary), places(&labels));
    assert_eq!(places_of_segmentation(&labelmap), places(&labels));
    assert_eq!(binary.items[&(0x62, 2)][3].text((0x62, 5)), "label_700");
}
