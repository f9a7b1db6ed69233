//! One series in every encoding.

use super::*;

#[test]
fn encodings_of_elements() {
    for (form, syntax) in [
        (Form::Implicit, "1.2.840.10008.1.2"),
        (Form::Big, "1.2.840.10008.1.2.2"),
        (Form::Explicit, DEFLATED),
    ] {
        let files = files(|slice, _| (slice.form, slice.syntax) = (form, syntax));
        assert_eq!(small(&read(&files).unwrap()), expected(), "{syntax}");
    }
    // Files of old that begin with their elements.
    let bare = files(|slice, _| {
        (slice.form, slice.syntax) = (Form::Implicit, "1.2.840.10008.1.2");
    });
    let bare: Vec<Vec<u8>> = bare
        .iter()
        .map(|file| {
            let at = file.windows(8).position(|w| w == [8, 0, 8, 0, 22, 0, 0, 0]).unwrap();
            file[at..].to_vec()
        })
        .collect();
    assert_eq!(small(&read(&bare).unwrap()), expected());
    // Words of two samples in big endian.
    let files = files(|slice, _| {
        (slice.form, slice.syntax) = (Form::Big, "1.2.840.10008.1.2.2");
        slice.bits = [16, 16, 15];
        let pair = |pair: &[i32]| pair[1] << 8 | pair[0];
        let bytes: Vec<i32> = (10..22).collect();
        slice.values = bytes.chunks(2).map(pair).collect();
    });
    let mut eight = files.clone();
    for file in &mut eight {
        for (tag, value) in [([0, 0x28, 1, 0], 8), ([0, 0x28, 1, 1], 8), ([0, 0x28, 1, 2], 7)] {
            let at = file.windows(4).position(|w| w == tag).unwrap();
            file[at + 9] = value;
        }
        let at = file.windows(4).position(|w| w == [0, 0x28, 1, 3]).unwrap();
        file[at + 9] = 0;
    }
    let found = read(&eight).unwrap();
    assert_eq!(small(&found)[..12], (10..22).map(|v| v - 1024).collect::<Vec<i16>>());
}

/// Run lengths of a frame of words: every byte a literal, or all of a plane one run.
fn rle(values: &[i32]) -> Vec<u8> {
    let planes = [8, 0].map(|shift| values.iter().map(|v| (v >> shift) as u8).collect::<Vec<_>>());
    let mut body = Vec::new();
    let mut table = vec![2u32];
    for plane in planes {
        table.push(64 + body.len() as u32);
        match plane.iter().all(|byte| *byte == plane[0]) {
            true => body.extend([(1 - plane.len() as i8) as u8, plane[0]]),
            false => {
                body.push(plane.len() as u8 - 1);
                body.extend(plane);
            }
        }
    }
    table.resize(16, 0);
    table.into_iter().flat_map(u32::to_le_bytes).chain(body).collect()
}

fn jpeg_ls(values: &[i32]) -> Vec<u8> {
    let values: Vec<u16> = values.iter().map(|v| *v as u16).collect();
    let mut packed = Vec::new();
    jpegls::encode(&values, COLUMNS.into(), ROWS.into(), &mut packed).unwrap();
    packed
}

#[test]
fn packed_frames() {
    type Pack = fn(&[i32]) -> Vec<u8>;
    let packs: [(&str, Pack); 2] =
        [("1.2.840.10008.1.2.5", rle), ("1.2.840.10008.1.2.4.80", jpeg_ls)];
    for (syntax, pack) in packs {
        let packed = files(|slice, _| {
            slice.syntax = syntax;
            slice.packed = Some(pack(&slice.values));
        });
        assert_eq!(small(&read(&packed).unwrap()), expected(), "{syntax}");
        let short = files(|slice, index| {
            slice.syntax = syntax;
            let whole = pack(&slice.values);
            let length = if index == 2 { whole.len() - 4 } else { whole.len() };
            slice.packed = Some(whole[..length].to_vec());
        });
        let message = read(&short).unwrap_err().to_string();
        assert!(message.contains("pixels are damaged"), "{syntax}: {message}");
    }
}

/// A frame of a size of its own, by GDCM or OpenJPEG: see `scripts/dicom-check`.
fn foreign(syntax: &'static str, frame: &[u8], [rows, columns]: [u16; 2], bits: u16) -> Vec<i16> {
    let files = files(|slice, _| {
        slice.syntax = syntax;
        slice.packed = Some(frame.to_vec());
        slice.rows = rows;
        slice.bits = [bits, bits, bits - 1];
        slice.signed = bits == 16;
        slice.scale = None;
    });
    // The last `Columns` counts.
    let files: Vec<Vec<u8>> = files
        .into_iter()
        .map(|mut file| {
            let at = file.windows(4).position(|w| w == [0x28, 0, 0x11, 0]).unwrap();
            file[at + 8] = columns as u8;
            file
        })
        .collect();
    small(&read(&files).unwrap())[..usize::from(rows * columns)].to_vec()
}

#[test]
fn frames_of_other_encoders() {
    let value = |y: i16, x: i16| (37 * y * x + 11 * x - 5 * y).rem_euclid(4000) - 1000;
    let found = foreign("1.2.840.10008.1.2.4.70", include_bytes!("frame_lossless.jpg"), [8, 6], 16);
    let expected: Vec<i16> = (0..48).map(|i| value(i / 6, i % 6)).collect();
    assert_eq!(found, expected);
    let found = foreign("1.2.840.10008.1.2.4.90", include_bytes!("frame.j2k"), [32, 32], 16);
    let value = |y: i16, x: i16| 300 * (y / 8) - 200 * (x / 16) - 400;
    let expected: Vec<i16> = (0..1024).map(|i| value(i / 32, i % 32)).collect();
    assert_eq!(found, expected);
    // With loss: at most one off.
    let found = foreign("1.2.840.10008.1.2.4.50", include_bytes!("frame.jpg"), [16, 16], 8);
    let off = |(i, v): (usize, &i16)| (8 * (i as i16 / 16) + 5 * (i as i16 % 16) - v).abs();
    assert!(found.iter().enumerate().map(off).all(|off| off <= 1), "{found:?}");
}

#[test]
fn what_has_no_decoder_is_named() {
    let message = |syntax: &'static str| {
        let files = files(|slice, _| {
            slice.syntax = syntax;
            slice.packed = Some(vec![1; 50]);
        });
        read(&files).unwrap_err().to_string()
    };
    let found = message("1.2.840.10008.1.2.4.201");
    assert!(found.contains("High-Throughput JPEG 2000") && found.contains("gdcmconv"), "{found}");
    assert!(message("1.2.3.9").contains("found transfer syntax 1.2.3.9"));
}

/// Frames in any order, with groups of their own and shared ones.
fn multi_frame(pixels: impl Fn(&[Slice]) -> Pieces, syntax: &'static str) -> Vec<u8> {
    let slices: Vec<Slice> = [3, 0, 4, 1, 2].map(Slice::at).to_vec();
    let form = Form::Explicit;
    let frame = |slice: &Slice| {
        let place = Slice::texts(&slice.position.unwrap());
        let place = Elements::default().text((0x20, 0x32), b"DS", &place);
        Elements::default().items((0x20, 0x9113), &[place], form)
    };
    let scale =
        Elements::default().text((0x28, 0x1052), b"DS", "-1024").text((0x28, 0x1053), b"DS", "1");
    let shared = Elements::default()
        .items(
            (0x20, 0x9116),
            &[Elements::default().text((0x20, 0x37), b"DS", "1\\0\\0\\0\\1\\0")],
            form,
        )
        .items((0x28, 0x9110), &[Elements::default().text((0x28, 0x30), b"DS", "0.75\\0.5")], form)
        .items((0x28, 0x9145), &[scale], form);
    let mut ds = slices[0].elements();
    // The group of planes and scales is not told by the file itself.
    ds.0.retain(|(tag, ..)| {
        ![(0x20, 0x32), (0x20, 0x37), (0x28, 0x30), (0x28, 0x1052), (0x28, 0x1053)].contains(tag)
    });
    let frames: Vec<Elements> = slices.iter().map(frame).collect();
    ds.text((0x28, 8), b"IS", "5")
        .items((0x5200, 0x9229), &[shared], form)
        .items((0x5200, 0x9230), &frames, form)
        .file(form, syntax, &pixels(&slices))
}

#[test]
fn one_file_of_many_frames() {
    let cells = |slices: &[Slice]| Pieces::Whole(slices.iter().flat_map(Slice::cells).collect());
    let scan = read(&[multi_frame(cells, EXPLICIT)]).unwrap();
    assert_eq!(small(&scan), expected());
    assert_eq!(scan.image.geometry.spacing_mm(), [2.5, 0.75, 0.5]);
    assert_eq!(scan.image.geometry.origin_mm(), [-10.0, 20.0, 100.0]);
    // One piece for each frame, and several with a table.
    const RLE: &str = "1.2.840.10008.1.2.5";
    let pieces = |slices: &[Slice]| slices.iter().map(|s| rle(&s.values)).collect::<Vec<_>>();
    let each = |slices: &[Slice]| Pieces::Each { table: Vec::new(), pieces: pieces(slices) };
    assert_eq!(small(&read(&[multi_frame(each, RLE)]).unwrap()), expected());
    let cut = |with_table: bool| {
        move |slices: &[Slice]| {
            let (mut table, mut all, mut at) = (Vec::new(), Vec::new(), 0u32);
            for whole in pieces(slices) {
                table.extend(at.to_le_bytes());
                for piece in [&whole[..40], &whole[40..]] {
                    at += 8 + piece.len() as u32;
                    all.push(piece.to_vec());
                }
            }
            Pieces::Each { table: if with_table { table } else { Vec::new() }, pieces: all }
        }
    };
    assert_eq!(small(&read(&[multi_frame(cut(true), RLE)]).unwrap()), expected());
    let message = read(&[multi_frame(cut(false), RLE)]).unwrap_err().to_string();
    assert!(message.contains("found 10 pieces for 5 frames"), "{message}");
}
