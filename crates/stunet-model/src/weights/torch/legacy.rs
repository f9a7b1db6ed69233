//! The container before torch 1.6: five pickles, then the storages.
//!
//! In order: a magic number, the protocol version, a dict about the writing machine, the object,
//! the list of storage keys. For every key follow the number of elements as `int64` and the
//! elements. Types and sizes stand in the object's persistent ids only.

use super::{Broken, Source, Span, broken};
use crate::weights::pickle::{Value, read_torch};
use crate::weights::tensor::{Dtype, StorageRef};
use std::collections::HashMap;
use std::io::BufReader;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;

pub(super) fn contents(
    source: &Source,
    length: u64,
) -> Result<(Value, HashMap<String, Span>), Broken> {
    let mut reader = BufReader::new(source.part(0, length));
    let mut position = 0;
    let mut next = || -> Result<Value, Broken> {
        let (value, bytes) = read_torch(&mut reader).map_err(|mut e| {
            e.offset += position;
            e
        })?;
        position += bytes;
        Ok(value)
    };
    expect("torch's magic number", &next()?, &Value::Int(MAGIC))?;
    expect("protocol 1001", &next()?, &Value::Int(PROTOCOL))?;
    let machine = next()?;
    if let Some(order) = machine.get("little_endian") {
        expect("a little-endian file", order, &Value::Bool(true))?;
    }
    let root = next()?;
    let Value::List(keys) = next()? else {
        return Err(broken("a list of storage keys", "another value"));
    };
    let mut types = HashMap::new();
    collect(&root, &mut types);
    let storages = storages(source, position, length, &keys, &types)?;
    Ok((root, storages))
}

fn expect(what: &str, found: &Value, expected: &Value) -> Result<(), Broken> {
    if found == expected {
        Ok(())
    } else {
        let kind =
            if found.as_dict().is_some() { "a dict".into() } else { found.to_json().to_string() };
        Err(broken(format!("{what} of a legacy torch file"), format!("{kind:.60}")))
    }
}

/// The type behind every storage key that a tensor names.
fn collect(value: &Value, types: &mut HashMap<String, Dtype>) {
    match value {
        Value::Tensor(tensor) => {
            let StorageRef { key, dtype, .. } = tensor.storage.as_ref();
            types.insert(key.clone(), *dtype);
        }
        Value::Tuple(v) | Value::List(v) | Value::Set(v) => {
            v.iter().for_each(|v| collect(v, types));
        }
        Value::Dict(dict) => dict.entries.iter().for_each(|(_, v)| collect(v, types)),
        _ => {}
    }
}

fn storages(
    source: &Source,
    mut at: u64,
    length: u64,
    keys: &[Value],
    types: &HashMap<String, Dtype>,
) -> Result<HashMap<String, Span>, Broken> {
    let mut storages = HashMap::with_capacity(keys.len());
    for key in keys {
        let Value::Str(key) = key else {
            return Err(broken("storage keys as text", "another value"));
        };
        let dtype = types.get(key).ok_or_else(|| {
            broken(format!("a tensor of storage `{key:.40}`"), "none: its type is unknown")
        })?;
        let truncated = || broken(format!("storage `{key:.40}`"), "the end of the file");
        let mut count = [0; 8];
        let start = at + 8;
        if start > length {
            return Err(truncated());
        }
        source.read_exact_at(&mut count, at)?;
        let bytes = u64::try_from(i64::from_le_bytes(count))
            .ok()
            .and_then(|count| count.checked_mul(dtype.size() as u64))
            .filter(|bytes| start.checked_add(*bytes).is_some_and(|end| end <= length))
            .ok_or_else(truncated)?;
        storages.insert(key.clone(), Span { start, bytes, crc32: None });
        at = start + bytes;
    }
    Ok(storages)
}
