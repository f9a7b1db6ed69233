//! Zip archives of stored records as torch writes them, and damage that stays an archive.

use crate::mutate::{self, Rng, SIZES};
use crate::pickles;

/// A record: name and bytes.
pub type Record = (String, Vec<u8>);

/// What may be wrong with an archive; the rest of it is right.
#[derive(Clone, Copy, Default)]
pub struct Lies {
    /// No checksums, as torch can be told to write.
    pub no_crc: bool,
    /// Over the size in the directory.
    pub size: Option<u32>,
    /// Over the offset in the directory.
    pub offset: Option<u32>,
    /// Over the method in the directory.
    pub method: Option<u16>,
    /// Over the number of records.
    pub count: Option<u16>,
    /// Over the length of the name in the local header.
    pub name: Option<u16>,
}

/// An archive of these records, uncompressed.
pub fn archive(records: &[Record], lies: Lies) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in records {
        let crc = if lies.no_crc { 0 } else { crc32fast::hash(bytes) };
        let at = lies.offset.unwrap_or(out.len() as u32);
        let fields = |size: u32, method: u16, name_len: u16| {
            let mut fields = vec![20, 0, 0, 0];
            fields.extend(method.to_le_bytes());
            fields.extend([0; 4]);
            fields.extend(crc.to_le_bytes());
            fields.extend(size.to_le_bytes());
            fields.extend(size.to_le_bytes());
            fields.extend(name_len.to_le_bytes());
            fields.extend([0; 2]);
            fields
        };
        let (size, name_len) = (bytes.len() as u32, name.len() as u16);
        out.extend(b"PK\x03\x04");
        out.extend(fields(size, 0, lies.name.unwrap_or(name_len)));
        out.extend(name.as_bytes());
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(fields(lies.size.unwrap_or(size), lies.method.unwrap_or(0), name_len));
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, count) = (out.len() as u32, lies.count.unwrap_or(records.len() as u16));
    let size = directory.len() as u32;
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// The records of an archive whose local headers tell their sizes; none if it is anything else.
pub fn records(data: &[u8]) -> Option<Vec<Record>> {
    let mut rest = data;
    let mut found = Vec::new();
    while rest.starts_with(b"PK\x03\x04") {
        let short = |at: usize| Some(u16::from_le_bytes(*rest.get(at..)?.first_chunk()?) as usize);
        let long = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?) as usize);
        let (flags, size, name, extra) = (short(6)?, long(22)?, short(26)?, short(28)?);
        if flags & 8 != 0 {
            return None;
        }
        let start = 30 + name + extra;
        let bytes = rest.get(start..start.checked_add(size)?)?.to_vec();
        found.push((String::from_utf8_lossy(rest.get(30..30 + name)?).into_owned(), bytes));
        rest = &rest[start + size..];
    }
    (!found.is_empty()).then_some(found)
}

/// A fresh archive around a generated pickle.
pub fn generate(rng: &mut Rng) -> Vec<u8> {
    let storage = vec![rng.next() as u8; rng.pick(&[0, 4, 16, 80, 160])];
    let mut records = vec![
        ("archive/data.pkl".to_owned(), pickles::generate(rng, true)),
        ("archive/data/0".to_owned(), storage.clone()),
        ("archive/data/1".to_owned(), storage[..storage.len() / 2].to_vec()),
    ];
    match rng.below(12) {
        0 => records.push(("archive/byteorder".to_owned(), b"little".to_vec())),
        1 => records.push(("archive/byteorder".to_owned(), vec![b'b'; 100])),
        2 => records.push(("other/data.pkl".to_owned(), b"N.".to_vec())),
        3 => records[0].0 = "data.pkl".to_owned(),
        4 => records[1].0 = "archive/data/../../0".to_owned(),
        5 => records.push(("archive/constants.pkl".to_owned(), b"N.".to_vec())),
        6 => records.push(("archive/data/".to_owned(), Vec::new())),
        _ => {}
    }
    let lies = lies(rng);
    archive(&records, lies)
}

fn lies(rng: &mut Rng) -> Lies {
    let mut lies = Lies { no_crc: rng.one_in(2), ..Lies::default() };
    let number = rng.pick(&SIZES);
    match rng.below(16) {
        0 => lies.size = Some(number as u32),
        1 => lies.offset = Some(number as u32),
        2 => lies.method = Some(rng.pick(&[8, 9, 93, 99])),
        3 => lies.count = Some(number as u16),
        4 => lies.name = Some(number as u16),
        _ => {}
    }
    lies
}

/// Damage: to one record with sizes and checksums mended, or to the bytes of the archive.
pub fn mutate(data: &mut Vec<u8>, rng: &mut Rng) {
    match records(data) {
        Some(mut records) if !rng.one_in(5) => {
            let at = if rng.one_in(2) { 0 } else { rng.below(records.len()) };
            let pickle = records[at].0.ends_with(".pkl");
            match rng.below(8) {
                0 => drop(records.remove(at)),
                1 => {
                    let copy = records[at].clone();
                    records.push(copy);
                }
                _ if pickle => pickles::mutate(&mut records[at].1, rng, true),
                _ => mutate::bytes(&mut records[at].1, rng),
            }
            let lies = lies(rng);
            *data = archive(&records, lies);
        }
        _ if rng.one_in(4) => *data = generate(rng),
        _ => mutate::bytes(data, rng),
    }
}

/// The container before torch 1.6 around a generated pickle.
pub fn legacy(rng: &mut Rng) -> Vec<u8> {
    let mut out =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    out.extend(pickles::generate(rng, true));
    out.extend(b"\x80\x02]");
    let keys = rng.below(3);
    for key in 0..keys {
        out.extend([b'X', 1, 0, 0, 0, b'0' + key as u8, b'a']);
    }
    out.push(b'.');
    for _ in 0..keys {
        let count = if rng.one_in(4) { rng.pick(&SIZES) } else { rng.below(20) as u64 };
        out.extend(count.to_le_bytes());
        out.extend(vec![rng.next() as u8; (count.min(20) * 4) as usize]);
    }
    out
}
