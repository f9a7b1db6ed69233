//! The machine's values while a pickle runs: shared by index, as Python shares objects.

use super::error::{PickleProblem, StepResult, unexpected};
use super::globals::Global;
use super::numpy::{self, Dtype};
use super::value::{Dict, Value};
use super::{MAX_DEPTH, MAX_VALUES, VALUES, in_proportion};
use crate::weights::tensor::{StorageRef, TensorRef};
use std::collections::HashMap;
use std::sync::Arc;

/// Index of a node.
pub(super) type Id = u32;

/// One object of a running pickle.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict {
        items: Vec<(Id, Id)>,
        ordered: bool,
    },
    Set(Vec<Id>),
    Global(Global),
    Dtype(Dtype),
    /// An array before and after its BUILD.
    Array(Option<Box<RawArray>>),
    Storage(Arc<StorageRef>),
    Tensor(Box<TensorRef>),
}

/// An array whose elements are not decoded yet.
#[derive(Debug)]
pub(super) struct RawArray {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) fortran: bool,
    pub(super) bytes: Arc<[u8]>,
}

impl Node {
    pub(super) fn empty_dict(ordered: bool) -> Self {
        Self::Dict { items: Vec::new(), ordered }
    }

    /// What this is, for error messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(_) => "a bool".into(),
            Self::Int(_) => "an int".into(),
            Self::Float(_) => "a float".into(),
            Self::Str(_) => "text".into(),
            Self::Bytes(_) => "bytes".into(),
            Self::Tuple(v) => format!("a tuple of {}", v.len()),
            Self::List(_) => "a list".into(),
            Self::Dict { .. } => "a dict".into(),
            Self::Set(_) => "a set".into(),
            Self::Global(global) => format!("`{}`", global.name()),
            Self::Dtype(_) => "a numpy dtype".into(),
            Self::Array(_) => "a numpy array".into(),
            Self::Storage(_) => "a torch storage".into(),
            Self::Tensor(_) => "a torch tensor".into(),
        }
    }

    fn child(&self, index: usize) -> Option<Id> {
        match self {
            Self::Tuple(v) | Self::List(v) | Self::Set(v) => v.get(index).copied(),
            Self::Dict { items, .. } => {
                let (key, value) = items.get(index / 2)?;
                Some(if index.is_multiple_of(2) { *key } else { *value })
            }
            _ => None,
        }
    }

    /// Values this node alone spreads out to, in memory or as JSON.
    fn own_weight(&self) -> u64 {
        let length = match self {
            Self::Str(v) => v.len() / 16,
            // A number each in JSON.
            Self::Bytes(v) => v.len() / 2,
            Self::Array(Some(a)) => {
                let text = if a.dtype.is_text() { a.bytes.len() / 2 } else { 0 };
                numpy::num_values(&a.shape).saturating_add(text)
            }
            Self::Tensor(t) => 2 * t.shape.len() + t.storage.key.len() / 16,
            _ => 0,
        };
        (length as u64).saturating_add(1)
    }
}

/// Turns the object graph under `root` into plain data.
///
/// Sharing is lost on the way, so a few bytes could ask for an astronomically large value: the
/// size is computed first, without building anything, and compared with the pickle's length.
pub(super) fn freeze(nodes: &[Node], root: Id, length: u64) -> StepResult<Value> {
    measure(nodes, root, in_proportion(VALUES, MAX_VALUES, length))?;
    build(nodes, root)
}

#[derive(Clone, Copy)]
enum Visited {
    Unseen,
    Open,
    Done { height: u32, weight: u64 },
}

struct Visit {
    id: Id,
    next_child: usize,
    height: u32,
    weight: u64,
}

fn measure(nodes: &[Node], root: Id, most: u64) -> StepResult<()> {
    let mut measured = vec![Visited::Unseen; nodes.len()];
    let open =
        |id: Id| Visit { id, next_child: 0, height: 1, weight: nodes[id as usize].own_weight() };
    let mut path = vec![open(root)];
    measured[root as usize] = Visited::Open;
    while let Some(top) = path.last_mut() {
        let Some(child) = nodes[top.id as usize].child(top.next_child) else {
            let (id, height, weight) = (top.id, top.height, top.weight);
            check("values", weight, most)?;
            measured[id as usize] = Visited::Done { height, weight };
            path.pop();
            continue;
        };
        match measured[child as usize] {
            Visited::Open => return Err(PickleProblem::Cycle),
            Visited::Unseen => {
                measured[child as usize] = Visited::Open;
                path.push(open(child));
            }
            Visited::Done { height, weight } => {
                top.next_child += 1;
                top.height = top.height.max(height + 1);
                top.weight = top.weight.saturating_add(weight);
                check("levels of nesting", top.height.into(), MAX_DEPTH.into())?;
                check("values", top.weight, most)?;
            }
        }
        check("levels of nesting", path.len() as u64, MAX_DEPTH.into())?;
    }
    Ok(())
}

fn check(what: &'static str, found: u64, limit: u64) -> StepResult<()> {
    if found > limit {
        return Err(PickleProblem::TooLarge { what, limit });
    }
    Ok(())
}

/// Recursion is bounded: `measure` has seen every path.
fn build(nodes: &[Node], id: Id) -> StepResult<Value> {
    let list = |ids: &[Id]| ids.iter().map(|&id| build(nodes, id)).collect::<StepResult<Vec<_>>>();
    Ok(match &nodes[id as usize] {
        Node::None | Node::Array(None) => Value::None,
        Node::Bool(v) => Value::Bool(*v),
        Node::Int(v) => Value::Int(*v),
        Node::Float(v) => Value::Float(*v),
        Node::Str(v) => Value::Str(v.as_ref().to_owned()),
        Node::Bytes(v) => Value::Bytes(v.to_vec()),
        Node::Tuple(ids) => Value::Tuple(list(ids)?),
        Node::List(ids) => Value::List(list(ids)?),
        Node::Set(ids) => Value::Set(list(ids)?),
        Node::Dict { items, ordered } => Value::Dict(build_dict(nodes, items, *ordered)?),
        // Named classes occur as values, too: an optimiser's defaults, a dtype.
        Node::Global(global) => Value::Str(global.name()),
        Node::Dtype(dtype) => Value::Str(dtype.name()),
        Node::Array(Some(a)) => Value::Array(a.dtype.array(&a.shape, a.fortran, &a.bytes)?),
        Node::Storage(_) => return Err(unexpected("a tensor", "a bare torch storage")),
        Node::Tensor(tensor) => Value::Tensor(tensor.as_ref().clone()),
    })
}

fn build_dict(nodes: &[Node], items: &[(Id, Id)], ordered: bool) -> StepResult<Dict> {
    #[derive(PartialEq, Eq, Hash)]
    enum Key {
        Str(String),
        Int(i128),
    }
    let mut seen: HashMap<Key, usize> = HashMap::new();
    let mut entries: Vec<(Value, Value)> = Vec::with_capacity(items.len());
    for &(key, value) in items {
        let (key, value) = (build(nodes, key)?, build(nodes, value)?);
        if !is_hashable(&key) {
            return Err(unexpected("a number, text, bytes or a tuple of such as key", "another"));
        }
        let hashed = match &key {
            Value::Str(v) => Some(Key::Str(v.clone())),
            Value::Int(v) => Some(Key::Int(*v)),
            _ => None,
        };
        let position = hashed.map(|k| *seen.entry(k).or_insert(entries.len()));
        match position.filter(|&p| p < entries.len()) {
            // As in Python, a repeated key keeps its place and takes the last value.
            Some(p) => entries[p].1 = value,
            None => entries.push((key, value)),
        }
    }
    Ok(Dict { entries, ordered })
}

/// What Python takes as a key and plain data has. Others would have no name in JSON but their own
/// JSON, in which every quote of a key within is escaped again: its length doubles with every level.
fn is_hashable(key: &Value) -> bool {
    match key {
        Value::Tuple(parts) => parts.iter().all(is_hashable),
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => true,
        Value::Str(_) | Value::Bytes(_) => true,
        _ => false,
    }
}

/// Checks an array's state before it is kept.
pub(super) fn raw_array(
    dtype: Dtype,
    shape: Vec<usize>,
    fortran: bool,
    bytes: Arc<[u8]>,
) -> StepResult<RawArray> {
    let count = numpy::count(&shape)?;
    // Without elements, the bytes bound nothing: 2^40 lists of none are 2^40 lists.
    check("values in a numpy array", numpy::num_values(&shape) as u64, MAX_VALUES)?;
    if dtype.size() == 0 || count.checked_mul(dtype.size()) != Some(bytes.len()) {
        let found = format!("{} bytes for shape {shape:?}", bytes.len());
        return Err(unexpected("a numpy array's bytes", found));
    }
    Ok(RawArray { dtype, shape, fortran, bytes })
}
