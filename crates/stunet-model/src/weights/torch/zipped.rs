//! The zip container: torch 1.6 and later.

use super::{Broken, Source, Span, broken};
use crate::weights::pickle::{Value, read_torch};
use std::collections::HashMap;
use std::io::{BufReader, Read};
use zip::{CompressionMethod, ZipArchive};

/// Longest record that is no storage: `byteorder`, `version` and the like.
const MAX_NOTE: u64 = 64;

pub(super) fn contents(
    source: &Source,
    length: u64,
) -> Result<(Value, HashMap<String, Span>), Broken> {
    let records = directory(source, length)?;
    // Torch 1.x calls the folder `archive`, later ones after the file.
    let mut roots = records.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    let (Some(prefix), None) = (roots.next().map(str::to_owned), roots.next()) else {
        return Err(broken("one record `data.pkl` in the zip archive", "none or several"));
    };
    if records.contains_key(&format!("{prefix}constants.pkl")) {
        return Err(broken("a checkpoint", "a TorchScript program"));
    }
    check_byte_order(source, records.get(&format!("{prefix}byteorder")))?;

    let root = read_pickle(source, records[&format!("{prefix}data.pkl")])?;
    let data = format!("{prefix}data/");
    let storages = records
        .into_iter()
        .filter_map(|(name, span)| Some((name.strip_prefix(&data)?.to_owned(), span)))
        .collect();
    Ok((root, storages))
}

/// Reads the pickle, then its checksum: a name that is not allowed is the clearer complaint.
fn read_pickle(source: &Source, record: Span) -> Result<Value, Broken> {
    let end = record.start + record.bytes;
    let part = |at| BufReader::new(source.part(at, end));
    let (root, length) = read_torch(&mut part(record.start))?;
    if length != record.bytes {
        let found = format!("{} more bytes", record.bytes - length);
        return Err(broken("the end of `data.pkl` behind its value", found));
    }
    if let Some(expected) = record.crc32 {
        let mut bytes = Vec::new();
        part(record.start).read_to_end(&mut bytes)?;
        let found = crc32fast::hash(&bytes);
        if found != expected {
            let found = format!("{found:08x}: the file is corrupt");
            return Err(broken(format!("`data.pkl` with checksum {expected:08x}"), found));
        }
    }
    Ok(root)
}

/// Every record's place. The data begins behind the record's own header, whose padding the
/// directory does not tell.
fn directory(source: &Source, length: u64) -> Result<HashMap<String, Span>, Broken> {
    let corrupt = |e: zip::result::ZipError| {
        broken("a complete zip archive", format!("a truncated or corrupt one ({e})"))
    };
    let mut archive = ZipArchive::new(BufReader::new(source.part(0, length))).map_err(corrupt)?;
    let mut records = HashMap::with_capacity(archive.len());
    for index in 0..archive.len() {
        let record = archive.by_index_raw(index).map_err(corrupt)?;
        let name = record.name().map_err(corrupt)?.into_owned();
        if record.is_dir() {
            continue;
        }
        if record.compression() != CompressionMethod::Stored || record.encrypted() {
            return Err(broken("uncompressed records", format!("`{name:.80}` compressed")));
        }
        let start = record.data_start();
        let bytes = record.size();
        let end = start.and_then(|start| start.checked_add(bytes));
        let (Some(start), true) = (start, end.is_some_and(|end| end <= length)) else {
            return Err(broken(
                format!("record `{name:.80}` of {bytes} bytes within the file"),
                format!("a file of {length} bytes"),
            ));
        };
        // Torch can be told to write no checksums: it writes zeros.
        let crc32 = Some(record.crc32()).filter(|&crc32| crc32 != 0 || bytes == 0);
        records.insert(name, Span { start, bytes, crc32 });
    }
    Ok(records)
}

fn check_byte_order(source: &Source, record: Option<&Span>) -> Result<(), Broken> {
    let Some(span) = record else {
        // Before torch 2.1 nothing is said, and everybody's machine is little endian.
        return Ok(());
    };
    let mut text = vec![0; span.bytes.min(MAX_NOTE) as usize];
    source.read_exact_at(&mut text, span.start)?;
    match &text[..] {
        b"little" => Ok(()),
        other => Err(broken("byte order `little`", String::from_utf8_lossy(other))),
    }
}
