//! Damage to valid inputs, by a seed: of bytes, of JSON, of the formats' own structure.

use serde_json::{Map, Value, json};
use std::io::{Read, Write};

/// A generator that is the same on every machine and in every version (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Numbers at which products and sums go wrong.
pub const SIZES: [u64; 28] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    31,
    32,
    64,
    100,
    255,
    256,
    32767,
    65535,
    65536,
    1 << 27,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 60,
    1 << 61,
    1 << 62,
    (1 << 63) - 1,
    u64::MAX,
];

/// One to four small changes of bytes.
pub fn bytes(data: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        if data.is_empty() {
            data.push(rng.next() as u8);
            continue;
        }
        // Headers stand at the beginning.
        let reach = rng.pick(&[16, 64, 400, usize::MAX]).min(data.len());
        let at = rng.below(reach);
        match rng.below(9) {
            0 => data[at] ^= 1 << rng.below(8),
            1 => data[at] = rng.next() as u8,
            2 => {
                let end = (at + rng.pick(&[1, 2, 4, 64])).min(data.len());
                data.drain(at..end);
            }
            3 => data.insert(at, rng.pick(&[0, 1, 0x7f, 0x80, 0xff])),
            4 => number(data, at, rng),
            5 => {
                let end = (at + 1 + rng.below(40)).min(data.len());
                let copy = data[at..end].to_vec();
                let to = rng.below(data.len());
                data.splice(to..to, copy);
            }
            6 => data.truncate(at),
            7 => {
                let end = (at + 1 + rng.below(8)).min(data.len());
                data[at..end].fill(rng.pick(&[0, 0xff]));
            }
            _ => {
                let other = rng.below(data.len());
                data.swap(at, other);
            }
        }
    }
}

/// Writes a number of SIZES over two, four or eight bytes, in either order.
fn number(data: &mut [u8], at: usize, rng: &mut Rng) {
    let mut raw = rng.pick(&SIZES).to_le_bytes();
    let width = rng.pick(&[2, 4, 8]);
    if rng.one_in(4) {
        raw[..width].reverse();
    }
    let width = width.min(data.len() - at);
    data[at..at + width].copy_from_slice(&raw[..width]);
}

/// Damage to DICOM files: to any byte, to the values of elements that matter, to whole elements.
pub fn dicom(data: &mut Vec<u8>, rng: &mut Rng) {
    /// Group and element, in little endian.
    const ELEMENTS: [[u8; 4]; 16] = [
        [8, 0, 8, 0],
        [0x20, 0, 0x0e, 0],
        [0x20, 0, 0x32, 0],
        [0x20, 0, 0x37, 0],
        [0x28, 0, 2, 0],
        [0x28, 0, 8, 0],
        [0x28, 0, 0x10, 0],
        [0x28, 0, 0x11, 0],
        [0x28, 0, 0x30, 0],
        [0x28, 0, 0, 1],
        [0x28, 0, 1, 1],
        [0x28, 0, 0x52, 0x10],
        [0x28, 0, 0x53, 0x10],
        [0xe0, 0x7f, 0x10, 0],
        [0xfe, 0xff, 0, 0xe0],
        [0xfe, 0xff, 0xdd, 0xe0],
    ];
    let element = rng.pick(&ELEMENTS);
    let places: Vec<usize> =
        data.windows(4).enumerate().filter(|(_, w)| *w == element).map(|(at, _)| at).collect();
    if rng.one_in(3) || places.is_empty() {
        return bytes(data, rng);
    }
    let at = places[rng.below(places.len())];
    let length = (at + 4).min(data.len() - 1);
    let value = (at + 8 + rng.below(12)).min(data.len() - 1);
    match rng.below(6) {
        // Digits of numbers in text stay such.
        0 | 1 => data[value] = rng.pick(b"0123456789.-\\eE \0"),
        2 => number(data, value, rng),
        3 => number(data, length, rng),
        4 => {
            let end = (at + 8 + rng.below(16)).min(data.len());
            let copy = data[at..end].to_vec();
            data.splice(at..at, copy);
        }
        _ => {
            let end = (at + 8 + rng.below(16)).min(data.len());
            data.drain(at..end);
        }
    }
}

/// Damage to JSON documents that are separated by zeros; half of them stay JSON.
pub fn json_texts(data: &mut Vec<u8>, rng: &mut Rng) {
    if rng.one_in(4) {
        return bytes(data, rng);
    }
    let mut texts: Vec<Vec<u8>> = data.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    let at = rng.below(texts.len());
    match serde_json::from_slice::<Value>(&texts[at]) {
        Ok(mut value) => {
            for _ in 0..1 + rng.below(3) {
                json_value(&mut value, rng);
            }
            texts[at] = value.to_string().into_bytes();
        }
        Err(_) => bytes(&mut texts[at], rng),
    }
    *data = texts.join(&0);
}

/// One change somewhere in a JSON value.
pub fn json_value(value: &mut Value, rng: &mut Rng) {
    // Downwards with a chance of three in four, so that leaves change most often.
    match value {
        Value::Array(list) if !list.is_empty() && !rng.one_in(4) => {
            let at = rng.below(list.len());
            match rng.below(8) {
                0 => drop(list.remove(at)),
                1 => {
                    let copy = list[at].clone();
                    list.insert(at, copy);
                }
                _ => json_value(&mut list[at], rng),
            }
        }
        Value::Object(map) if !map.is_empty() && !rng.one_in(4) => {
            let at = rng.below(map.len());
            let key = map.keys().nth(at).cloned().unwrap_or_default();
            match rng.below(10) {
                0 => drop(map.remove(&key)),
                1 => {
                    let value = map[&key].clone();
                    map.insert(rng.pick(&KEYS).to_owned(), value);
                }
                2 => {
                    let other = map.values().nth(rng.below(map.len())).cloned();
                    map.insert(key, other.unwrap_or_default());
                }
                _ => json_value(&mut map[&key], rng),
            }
        }
        other => *other = replacement(other, rng),
    }
}

/// Keys that readers look for, and some they should not mind.
const KEYS: [&str; 24] = [
    "",
    "0",
    "1",
    "00",
    "-1",
    "ignore",
    "background",
    "labels",
    "regions_class_order",
    "inherits_from",
    "3d_fullres",
    "dataset",
    "training",
    "channel_names",
    "modality",
    "plans",
    "init",
    "name",
    "__metadata__",
    "locations.1",
    "locations.01",
    "locations.65535",
    "image",
    "../x",
];

fn replacement(old: &Value, rng: &mut Rng) -> Value {
    const FLOATS: [f64; 10] =
        [0.0, -0.0, 0.5, -1.0, 1e-308, 5e-324, 1e-30, 1e30, 1e308, -1.797_693_134_862_315_7e308];
    match rng.below(12) {
        0 => Value::Null,
        1 => json!(rng.one_in(2)),
        2 | 3 => json!(rng.pick(&SIZES)),
        4 => json!(rng.pick(&FLOATS)),
        5 => json!(-(rng.pick(&SIZES) as i64).saturating_abs()),
        6 => json!([]),
        7 => Value::Object(Map::new()),
        8 => json!(rng.pick(&KEYS)),
        9 => json!([old]),
        10 => json!("\u{0}\u{1b}[2J/\\ä"),
        _ => match old.as_f64() {
            Some(number) => json!(number + 1.0),
            None => json!({ rng.pick(&KEYS): old }),
        },
    }
}

/// Damage to the fields of a NIfTI header, or to any bytes.
pub fn nifti(data: &mut Vec<u8>, rng: &mut Rng) {
    // Offset and width of what decides: dim, datatype, pixdim, vox_offset, scaling, codes, forms.
    const FIRST: [(usize, usize); 14] = [
        (40, 2),
        (42, 2),
        (44, 2),
        (46, 2),
        (48, 2),
        (70, 2),
        (76, 4),
        (80, 4),
        (108, 4),
        (112, 4),
        (116, 4),
        (252, 2),
        (254, 2),
        (280, 4),
    ];
    const SECOND: [(usize, usize); 12] = [
        (12, 2),
        (16, 8),
        (24, 8),
        (32, 8),
        (40, 8),
        (48, 8),
        (104, 8),
        (112, 8),
        (168, 8),
        (176, 8),
        (344, 4),
        (400, 8),
    ];
    if data.len() < 352 || rng.one_in(3) {
        return bytes(data, rng);
    }
    let second = data[..4] == 540i32.to_le_bytes() || data[..4] == 540i32.to_be_bytes();
    let fields = if second { &SECOND[..] } else { &FIRST[..] };
    for _ in 0..1 + rng.below(3) {
        let (at, width) = rng.pick(fields);
        let mut raw = match rng.below(4) {
            0 => rng.pick(&SIZES).to_le_bytes(),
            1 => (rng.below(20) as u64).to_le_bytes(),
            2 if width == 8 => (rng.below(1000) as f64 / 16.0 - 8.0).to_le_bytes(),
            _ => u64::from((rng.below(1000) as f32 / 16.0 - 8.0).to_bits()).to_le_bytes(),
        };
        if data[3] != 0 {
            raw[..width].reverse();
        }
        if let Some(place) = data.get_mut(at..at + width) {
            place.copy_from_slice(&raw[..width]);
        }
    }
}

/// Damage to what a gzip file holds; one in eight times to the file itself.
pub fn gzip(data: &mut Vec<u8>, rng: &mut Rng) {
    let mut plain = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(&data[..]).take(1 << 16).read_to_end(&mut plain);
    if read.is_err() || rng.one_in(8) {
        return bytes(data, rng);
    }
    nifti(&mut plain, rng);
    let level = flate2::Compression::new(rng.below(3) as u32);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), level);
    if packed.write_all(&plain).is_ok() {
        *data = packed.finish().unwrap_or_default();
    }
}

/// Damage to the header of a safetensors file or to its values; a header may stay well formed.
pub fn safetensors(data: &mut Vec<u8>, rng: &mut Rng) {
    let size = data.first_chunk::<8>().map_or(0, |raw| u64::from_le_bytes(*raw) as usize);
    let header = size.checked_add(8).and_then(|end| data.get(8..end));
    let json = header.and_then(|header| serde_json::from_slice::<Value>(header).ok());
    let (Some(mut json), false) = (json, rng.one_in(4)) else {
        return bytes(data, rng);
    };
    // Values keep their place, so that all the rest stays right.
    let start = 8 + size;
    if start < data.len() && rng.one_in(3) {
        for _ in 0..1 + rng.below(4) {
            let at = start + rng.below(data.len() - start);
            data[at] = rng.pick(&[0, 1, 2, 0x7f, 0x80, 0xff]);
        }
        return;
    }
    // The trace stands as text within the header.
    let trace = json.pointer_mut("/__metadata__/trace");
    match trace.filter(|_| rng.one_in(2)) {
        Some(place) => {
            let text = place.as_str().unwrap_or_default();
            if let Ok(mut trace) = serde_json::from_str::<Value>(text) {
                json_value(&mut trace, rng);
                *place = json!(trace.to_string());
            }
        }
        None => json_value(&mut json, rng),
    }
    let mut text = json.to_string().into_bytes();
    text.resize((text.len() + 8).next_multiple_of(64) - 8, b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out.extend(&data[8 + size..]);
    *data = out;
}
