//! What is no regular volume is refused in one line that says where.

use super::*;

/// Asserts that a series is refused with all of `words`.
fn refused(edit: impl Fn(&mut Slice, usize), words: &[&str]) {
    let found = find_in_memory(&files(edit)).unwrap();
    let message = match found.choose(None) {
        Ok(series) => series.read(false).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

fn shift(slice: &mut Slice, by: [f64; 3]) {
    let at = slice.position.unwrap();
    slice.position = Some(std::array::from_fn(|i| at[i] + by[i]));
}

#[test]
fn irregular_series() {
    let raise = |from: usize, by: f64| {
        move |slice: &mut Slice, index: usize| {
            if index >= from {
                shift(slice, [0.0, 0.0, by]);
            }
        }
    };
    refused(
        raise(3, 2.5),
        &["series 3 (1.2.3.4)", "every 2.50 mm", "about 1 missing", "--allow uneven"],
    );
    refused(raise(2, 1.0), &["found for example 3.50 mm between image 7 at", "--allow uneven"]);
    refused(raise(3, 7.5), &["about 3 missing, the widest gap 10.00 mm", "too wide"]);
    refused(
        |slice, index| shift(slice, [0.0, index as f64, 0.0]),
        &["shifted by 21.8 degrees (gantry tilt)", "4.0 mm beside", "dcm2niix"],
    );
    refused(
        |slice, index| shift(slice, [0.0, f64::from(u8::from(index == 2)), 0.0]),
        &["found image 7 1.0 mm beside image 7"],
    );
    refused(
        |slice, index| {
            if index == 2 {
                slice.along = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0];
            }
        },
        &["images that run differently: the rows", "(0.00, 1.00, 0.00)"],
    );
    refused(
        |slice, index| {
            if index == 1 {
                slice.rows = 2;
                slice.values.truncate(8);
            }
        },
        &["images of one size", "3 × 4", "2 × 4"],
    );
    refused(
        |slice, index| {
            if index == 4 {
                slice.position = Slice::at(3).position;
            }
        },
        &["one image at each position", "found 1 position(s)", "(-10.00, 20.00, 107.50)"],
    );
    refused(|slice, _| slice.position = None, &["found none", "no position"]);
    refused(|slice, _| slice.photometric = "PALETTE COLOR", &["colour pictures"]);
    refused(|slice, _| slice.image_type = "ORIGINAL\\PRIMARY\\LOCALIZER", &["a localiser"]);
    refused(
        |slice, _| slice.along = [1.0, 0.0, 0.0, 0.9, 0.1, 0.0],
        &["cannot be read", "perpendicular"],
    );
    refused(|slice, _| slice.bits = [16, 17, 16], &["BitsStored: expected at most the 16 bits"]);
    refused(|slice, _| slice.bits[0] = 12, &["BitsAllocated: expected 8, 16 or 32 bits, found 12"]);
}

#[test]
fn uneven_slices_are_interpolated_if_that_is_wanted() {
    let with_gap = files(|slice, index| {
        if index >= 3 {
            shift(slice, [0.0, 0.0, 2.5]);
        }
    });
    let found = find_in_memory(&with_gap).unwrap();
    let series = found.choose(None).unwrap();
    let scan = series.read(true).unwrap();
    assert_eq!(scan.image.geometry, series.geometry(true).unwrap());
    assert_eq!(scan.image.geometry.shape(), [6, 3, 4]);
    assert_eq!(scan.image.geometry.spacing_mm()[0], 2.5);
    let Voxels::F32(values) = &scan.image.voxels else { panic!("expected single precision") };
    let first = |z: usize| values[[0, z, 0, 0]] + 1024.0;
    assert_eq!([0, 1, 2, 3, 4, 5].map(first), [0.0, 100.0, 200.0, 250.0, 300.0, 400.0]);
    assert!(scan.notes[0].contains("interpolated to 6 slices every 2.50 mm"), "{:?}", scan.notes);
    // Even ones stay as they are.
    let even = find_in_memory(&files(|_, _| {})).unwrap();
    assert_eq!(small(&even.choose(None).unwrap().read(true).unwrap()), expected());
}

#[test]
fn several_series() {
    let mut all = files(|_, _| {});
    all.extend(files(|slice, _| {
        (slice.series, slice.number, slice.description) = ("1.2.3.5", 12, "lung");
    }));
    all.push(Slice { series: "1.2.3.6", number: 1, ..Slice::at(0) }.file());
    all.push(b"no DICOM at all".to_vec());
    let found = find_in_memory(&all).unwrap();
    let numbers: Vec<_> = found.series.iter().map(|series| series.number().unwrap()).collect();
    assert_eq!((numbers, found.num_others), (vec!["1".into(), "3".into(), "12".into()], 1));
    let message = found.choose(None).unwrap_err().to_string();
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(
        lines,
        [
            "expected one volume, found 2; choose one of these with --series NUMBER or UID:",
            "  1: CT \"abdomen\", no volume: a single slice, 1.2.3.6",
            "  3: CT \"abdomen\", 5 slices, 1.2.3.4",
            "  12: CT \"lung\", 5 slices, 1.2.3.5",
        ]
    );
    assert_eq!(found.choose(Some("12")).unwrap().name(), "12_lung");
    assert_eq!(found.choose(Some("1.2.3.4")).unwrap().number().as_deref(), Some("3"));
    let message = found.choose(Some("4")).unwrap_err().to_string();
    assert!(
        message.starts_with("expected one series 4, found none of these:\n  1: CT"),
        "{message}"
    );
    let single = found.choose(Some("1")).unwrap();
    assert!(single.read(false).unwrap_err().to_string().contains("no volume: a single slice"));
}

#[test]
fn parts_of_a_series_copies_and_scouts() {
    // Two echoes of one series are two volumes.
    let echo = |number: &'static str, add: i32| {
        files(move |slice, _| {
            slice.more = Elements::default().text((0x18, 0x86), b"IS", number);
            slice.instance += number;
            slice.values.iter_mut().for_each(|v| *v += add);
        })
    };
    let all = [echo("1", 0), echo("2", 5)].concat();
    let found = find_in_memory(&all).unwrap();
    let message = found.choose(None).unwrap_err().to_string();
    assert!(message.contains("3.2: CT \"abdomen (EchoNumbers 2)\", 5 slices"), "{message}");
    let second = found.choose(Some("3.2")).unwrap();
    let values: Vec<i16> = expected().iter().map(|v| v + 5).collect();
    assert_eq!(
        (small(&second.read(false).unwrap()), second.name().as_str()),
        (values, "3_2_abdomen")
    );
    // Copies count once, and scouts not at all.
    let mut all = [files(|_, _| {}), files(|_, _| {})].concat();
    let scout = Slice {
        image_type: "ORIGINAL\\PRIMARY\\LOCALIZER",
        instance: "9".to_owned(),
        along: [1.0, 0.0, 0.0, 0.0, 0.0, -1.0],
        ..Slice::at(9)
    };
    all.push(scout.file());
    let scan = read(&all).unwrap();
    assert_eq!(small(&scan), expected());
    assert!(scan.notes[0].contains("5 image(s) that are there twice"), "{:?}", scan.notes);
    assert!(scan.notes[1].contains("1 image(s) that are no slices"), "{:?}", scan.notes);
    // Three planes are no volume.
    let planes = files(|slice, index| {
        let turns = [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]];
        slice.along = *turns.get(index % 3).unwrap_or(&[1.0, 0.0, 0.0, 0.0, 0.0, -1.0]);
    });
    let found = find_in_memory(&planes).unwrap();
    assert!(found.series[0].no_volume().unwrap().contains("several orientations"));
}
