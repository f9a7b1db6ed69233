//! Damaged files: an error or a scan, whatever is cut off or changed.

use super::*;

fn attempt(files: &[Vec<u8>]) {
    let found = find_in_memory(files).unwrap_or_default();
    for series in &found.series {
        let _ = (series.line(), series.geometry(true), series.read(true));
    }
}

#[test]
fn files_that_are_cut_off() {
    let whole = files(|_, _| {});
    for length in 0..whole[0].len() {
        let mut cut = whole.clone();
        cut[0].truncate(length);
        let found = find_in_memory(&cut).unwrap();
        let series = found.choose(None).unwrap();
        // Slice 3 of 5 is missing, or its pixels are.
        assert!(series.read(false).is_err(), "{length}");
    }
}

#[test]
fn bytes_that_are_changed() {
    let whole = files(|_, _| {});
    for at in 0..whole[2].len() {
        for value in [0, 0xff, 0x80, whole[2][at].wrapping_add(1)] {
            let mut changed = whole.clone();
            changed[2][at] = value;
            attempt(&changed);
        }
    }
}

/// An element whose length is not there, sequences without end, items that were not begun.
#[test]
fn lengths_and_nesting() {
    let meta = Slice::at(0).file();
    let meta = &meta[..meta.windows(4).position(|w| w == [8, 0, 8, 0]).unwrap()];
    let file = |body: &[&[u8]]| [meta, &body.concat()].concat();
    let sequence: &[u8] = &[0, 0x52, 0x30, 0x92, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff];
    let item: &[u8] = &[0xfe, 0xff, 0, 0xe0, 0xff, 0xff, 0xff, 0xff];
    let item_end: &[u8] = &[0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0];
    let sequence_end: &[u8] = &[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0];
    let huge: &[u8] = &[8, 0, 8, 0, b'U', b'T', 0, 0, 0xf0, 0xff, 0xff, 0x7f, 1, 2];
    let pixels: &[u8] = &[0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff];
    let deep: Vec<&[u8]> = (0..100_000).flat_map(|_| [sequence, item]).collect();
    for body in [
        vec![item_end, item, sequence],
        vec![sequence_end],
        vec![sequence, item_end, item, item_end],
        vec![sequence, sequence_end, sequence_end, item],
        vec![pixels, item_end],
        vec![pixels, sequence_end],
        vec![pixels, item, item],
        vec![huge],
        deep,
    ] {
        attempt(&[file(&body)]);
    }
}

/// Sizes that are claimed and not there allocate nothing.
#[test]
fn sizes_that_are_not_there() {
    let claims = |syntax: &'static str, packed: Option<Vec<u8>>| {
        let huge = files(|slice, _| {
            slice.syntax = syntax;
            slice.rows = u16::MAX;
            slice.packed = packed.clone();
        });
        let wide: Vec<Vec<u8>> = huge
            .into_iter()
            .map(|mut file| {
                let at = file.windows(4).position(|w| w == [0x28, 0, 0x11, 0]).unwrap();
                file[at + 8..at + 10].copy_from_slice(&[0xff, 0xff]);
                file
            })
            .collect();
        let message = read(&wide).unwrap_err().to_string();
        assert!(message.contains("65535") || message.contains("truncated"), "{message}");
    };
    claims(EXPLICIT, None);
    claims("1.2.840.10008.1.2.5", Some(vec![2; 100]));
    claims("1.2.840.10008.1.2.4.80", Some(vec![0xff; 100]));
}
