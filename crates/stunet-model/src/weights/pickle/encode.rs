//! Plain data as a pickle of protocol 2, which every Python and every torch reads.

use super::value::parts;
use super::value::{Dict, Value};
use crate::weights::tensor::TensorRef;

/// Most entries between a MARK and its SETITEMS or APPENDS: what Python's own pickler uses.
const BATCH: usize = 1000;

/// Writes a value as a pickle.
///
/// `numpy` arrays become nested lists. Tensors become torch tensors whose storages the file
/// around the pickle must hold.
pub fn write(value: &Value) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    put(&mut out, value);
    out.push(b'.');
    out
}

/// Writes a pair as a pickle: a list of functions by module and name, and plain data. Whoever reads it
/// with Python gets the functions themselves.
///
/// # Panics
/// When a name holds a line break.
pub fn write_with_functions(functions: &[(&str, &str)], data: &Value) -> Vec<u8> {
    let mut out = vec![0x80, 2, b']', b'('];
    for (module, name) in functions {
        assert!(!module.contains('\n') && !name.contains('\n'), "a name on one line");
        put_global(&mut out, module, name);
    }
    out.push(b'e');
    put(&mut out, data);
    out.extend([0x86, b'.']);
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::None => out.push(b'N'),
        Value::Bool(v) => out.push(if *v { 0x88 } else { 0x89 }),
        Value::Int(v) => put_int(out, *v),
        Value::Float(v) => {
            out.push(b'G');
            out.extend(v.to_be_bytes());
        }
        Value::Str(v) => put_text(out, v),
        Value::Bytes(v) => {
            // Protocol 2 has no bytes: as Python does, text that is encoded when read.
            let text: String = v.iter().map(|&b| char::from(b)).collect();
            put_global(out, "_codecs", "encode");
            put_text(out, &text);
            put_text(out, "latin1");
            out.extend([0x86, b'R']);
        }
        Value::Tuple(v) => put_tuple(out, v.len(), |out| v.iter().for_each(|v| put(out, v))),
        Value::List(v) => put_list(out, v),
        Value::Set(v) => {
            put_global(out, "__builtin__", "set");
            put_list(out, v);
            out.extend([0x85, b'R']);
        }
        Value::Dict(dict) => put_dict(out, dict),
        Value::Array(array) => put_nested(out, &array.shape, &array.values.to_values()),
        Value::Tensor(tensor) => put_tensor(out, tensor),
    }
}

fn put_int(out: &mut Vec<u8>, v: i128) {
    if let Ok(v) = u8::try_from(v) {
        out.extend([b'K', v]);
    } else if let Ok(v) = i32::try_from(v) {
        out.push(b'J');
        out.extend(v.to_le_bytes());
    } else {
        out.extend([0x8a, 16]);
        out.extend(v.to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    // Texts of 4 GiB are not metadata.
    let length = u32::try_from(text.len()).expect("text fits the format");
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_global(out: &mut Vec<u8>, module: &str, name: &str) {
    out.extend(format!("c{module}\n{name}\n").as_bytes());
}

fn put_tuple(out: &mut Vec<u8>, length: usize, items: impl FnOnce(&mut Vec<u8>)) {
    match length {
        0 => out.push(b')'),
        1..=3 => {
            items(out);
            out.push(0x84 + length as u8);
        }
        _ => {
            out.push(b'(');
            items(out);
            out.push(b't');
        }
    }
}

fn put_list(out: &mut Vec<u8>, items: &[Value]) {
    out.push(b']');
    for batch in items.chunks(BATCH) {
        out.push(b'(');
        batch.iter().for_each(|v| put(out, v));
        out.push(b'e');
    }
}

fn put_nested(out: &mut Vec<u8>, shape: &[usize], values: &[Value]) {
    match shape {
        [] => put(out, values.first().unwrap_or(&Value::None)),
        [_] => put_list(out, values),
        [length, inner @ ..] => {
            let parts: Vec<_> = parts(*length, values).collect();
            out.push(b']');
            for batch in parts.chunks(BATCH) {
                out.push(b'(');
                batch.iter().for_each(|part| put_nested(out, inner, part));
                out.push(b'e');
            }
        }
    }
}

fn put_dict(out: &mut Vec<u8>, dict: &Dict) {
    if dict.ordered {
        put_global(out, "collections", "OrderedDict");
        out.extend(b")R");
    } else {
        out.push(b'}');
    }
    for batch in dict.entries.chunks(BATCH) {
        out.push(b'(');
        for (key, value) in batch {
            put(out, key);
            put(out, value);
        }
        out.push(b'u');
    }
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
fn put_tensor(out: &mut Vec<u8>, tensor: &TensorRef) {
    let sizes = |out: &mut Vec<u8>, sizes: &[usize]| {
        put_tuple(out, sizes.len(), |out| {
            sizes.iter().for_each(|&s| put_int(out, s as i128));
        });
    };
    put_global(out, "torch._utils", "_rebuild_tensor_v2");
    out.push(b'(');
    let storage = &tensor.storage;
    put_tuple(out, 5, |out| {
        put_text(out, "storage");
        put_global(out, "torch", &format!("{}Storage", storage.dtype.storage()));
        put_text(out, &storage.key);
        put_text(out, "cpu");
        put_int(out, storage.numel as i128);
    });
    out.push(b'Q');
    put_int(out, tensor.offset as i128);
    sizes(out, &tensor.shape);
    sizes(out, &tensor.stride);
    out.push(0x89);
    put_global(out, "collections", "OrderedDict");
    out.extend(b")RtR");
}
