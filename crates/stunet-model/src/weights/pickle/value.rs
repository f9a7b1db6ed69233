//! What a pickle holds once it is read: plain data.

use crate::weights::tensor::TensorRef;
use serde_json::json;

/// Plain data out of a pickle.
///
/// `numpy` scalars become [`Value::Int`], [`Value::Float`], [`Value::Bool`] or [`Value::Str`];
/// `torch.Size` a tuple; devices and dtypes of torch their names. Tensors are references into the
/// file they came from: no data is read with them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer; wider ones are refused.
    Int(i128),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A list.
    List(Vec<Value>),
    /// A dict or an `OrderedDict`.
    Dict(Dict),
    /// A set or a frozen set, in file order.
    Set(Vec<Value>),
    /// A `numpy` array.
    Array(Array),
    /// A torch tensor, not read yet.
    Tensor(TensorRef),
}

/// A dict in insertion order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    /// Keys and values; keys are unique.
    pub entries: Vec<(Value, Value)>,
    /// True for a `collections.OrderedDict`.
    pub ordered: bool,
}

impl Dict {
    /// The value under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.iter_str().find_map(|(k, v)| (k == key).then_some(v))
    }

    /// Entries with text keys.
    pub fn iter_str(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().filter_map(|(k, v)| match k {
            Value::Str(k) => Some((k.as_str(), v)),
            _ => None,
        })
    }
}

/// A `numpy` array: its elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length along every axis; empty for an array without axes.
    pub shape: Vec<usize>,
    /// The elements, row-major whatever the order in the file.
    pub values: Elements,
}

/// The elements of an array; numbers take no more room than in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Truth values, texts, bytes, and integers beyond 63 bits.
    Values(Vec<Value>),
}

impl Elements {
    /// Every element as a value.
    pub fn to_values(&self) -> Vec<Value> {
        match self {
            Self::Ints(ints) => ints.iter().map(|v| Value::Int((*v).into())).collect(),
            Self::Floats(floats) => floats.iter().map(|v| Value::Float(*v)).collect(),
            Self::Values(values) => values.clone(),
        }
    }
}

impl Array {
    /// The elements, if they are integers.
    pub fn ints(&self) -> Option<&[i64]> {
        match &self.values {
            Elements::Ints(ints) => Some(ints),
            _ => None,
        }
    }

    /// Nested lists, as `numpy`'s `tolist` makes them.
    pub fn to_json(&self) -> serde_json::Value {
        fn nest(shape: &[usize], values: &[Value]) -> serde_json::Value {
            match shape {
                [] => values.first().map_or(json!(null), Value::to_json),
                [length, inner @ ..] => {
                    parts(*length, values).map(|part| nest(inner, part)).collect()
                }
            }
        }
        nest(&self.shape, &self.values.to_values())
    }
}

/// An array's elements along its first axis; every part is empty where there are none.
pub(super) fn parts(length: usize, values: &[Value]) -> impl Iterator<Item = &[Value]> {
    let step = values.len().checked_div(length).unwrap_or(0);
    (0..length).map(move |i| &values[i * step..(i + 1) * step])
}

impl Value {
    /// A dict with text keys.
    pub fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        Self::Dict(Dict {
            entries: entries.into_iter().map(|(k, v)| (Self::Str(k.to_owned()), v)).collect(),
            ordered: false,
        })
    }

    /// The value under a text key, if this is a dict that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_dict()?.get(key)
    }

    /// The dict, if this is one.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Self::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if this is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// The value as JSON.
    ///
    /// # Deviations
    /// JSON is poorer than a pickle. Keys that are not text become text as Python's `str` writes
    /// them (`0` becomes `"0"`, `True` `"True"`); tuples, sets and `numpy` arrays become (nested)
    /// lists; bytes a list of numbers; integers beyond 64 bits text; NaN and infinities null;
    /// a tensor becomes `{"tensor": dtype, "shape": [..]}`.
    pub fn to_json(&self) -> serde_json::Value {
        let list = |values: &[Value]| values.iter().map(Self::to_json).collect();
        match self {
            Self::None => serde_json::Value::Null,
            Self::Bool(v) => json!(v),
            Self::Int(v) => int_to_json(*v),
            Self::Float(v) => json!(v),
            Self::Str(v) => json!(v),
            Self::Bytes(v) => json!(v),
            Self::Tuple(v) | Self::List(v) | Self::Set(v) => serde_json::Value::Array(list(v)),
            Self::Dict(dict) => {
                dict.entries.iter().map(|(k, v)| (k.to_key(), v.to_json())).collect()
            }
            Self::Array(array) => array.to_json(),
            Self::Tensor(t) => json!({ "tensor": t.storage.dtype.name(), "shape": t.shape }),
        }
    }

    /// JSON as plain data, every key as text.
    pub fn from_json(json: &serde_json::Value) -> Self {
        Self::convert(json, false)
    }

    /// JSON as plain data, with keys such as `"0"` turned back into integers.
    ///
    /// nnU-Net v1 looks its modalities and stages up by integer.
    pub fn from_json_int_keys(json: &serde_json::Value) -> Self {
        Self::convert(json, true)
    }

    fn convert(json: &serde_json::Value, int_keys: bool) -> Self {
        match json {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(v) => Self::Bool(*v),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(v), _) => Self::Int(v.into()),
                (None, Some(v)) => Self::Int(v.into()),
                (None, None) => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(v) => Self::Str(v.clone()),
            serde_json::Value::Array(v) => {
                Self::List(v.iter().map(|v| Self::convert(v, int_keys)).collect())
            }
            serde_json::Value::Object(map) => Self::Dict(Dict {
                entries: map
                    .iter()
                    .map(|(k, v)| (key_from_json(k, int_keys), Self::convert(v, int_keys)))
                    .collect(),
                ordered: false,
            }),
        }
    }

    fn to_key(&self) -> String {
        match self {
            Self::Str(v) => v.clone(),
            Self::None => "None".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Int(v) => v.to_string(),
            Self::Float(v) => format!("{v:?}"),
            Self::Tuple(v) => {
                let parts: Vec<_> = v.iter().map(Self::to_key).collect();
                format!("({})", parts.join(", "))
            }
            other => other.to_json().to_string(),
        }
    }
}

fn key_from_json(key: &str, int_keys: bool) -> Value {
    match key.parse::<i64>() {
        // Only what Python's `str(int)` writes: "007" or "+1" stay text.
        Ok(v) if int_keys && v.to_string() == key => Value::Int(v.into()),
        _ => Value::Str(key.to_owned()),
    }
}

fn int_to_json(v: i128) -> serde_json::Value {
    if let Ok(v) = i64::try_from(v) {
        json!(v)
    } else if let Ok(v) = u64::try_from(v) {
        json!(v)
    } else {
        json!(v.to_string())
    }
}
