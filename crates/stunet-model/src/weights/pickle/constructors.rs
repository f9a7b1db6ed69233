//! The constructors: what a name on the allow-list makes of its arguments. All of it is plain data.

use super::error::{StepResult, unexpected};
use super::globals::Global;
use super::node::{Id, Node, RawArray, raw_array};
use super::numpy::Dtype as NumpyDtype;
use super::objects::Objects;
use super::text::latin1;
use super::value::Value;
use crate::weights::tensor::{Dtype, StorageRef, TensorRef};
use std::sync::Arc;

impl Objects {
    /// What calling `global` with `args` makes.
    pub(super) fn construct(&mut self, global: Global, args: &[Id]) -> StepResult<Node> {
        match (global, args) {
            (Global::OrderedDict, []) => Ok(Node::empty_dict(true)),
            (Global::Dict, []) => Ok(Node::empty_dict(false)),
            (Global::DefaultDict, [] | [_]) => Ok(Node::empty_dict(false)),
            (Global::OrderedDict | Global::Dict, [items]) => {
                self.dict_from_pairs(*items, global == Global::OrderedDict)
            }
            (Global::List, []) => Ok(Node::List(Vec::new())),
            (Global::List, [items]) => Ok(Node::List(self.sequence(*items)?)),
            (Global::Tuple, []) => Ok(Node::Tuple(Vec::new())),
            (Global::Tuple | Global::TorchSize, [items]) => Ok(Node::Tuple(self.sequence(*items)?)),
            (Global::Set, []) => Ok(Node::Set(Vec::new())),
            (Global::Set, [items]) => Ok(Node::Set(self.sequence(*items)?)),
            (Global::Bytes, []) => Ok(Node::Bytes(Arc::from([]))),
            (Global::Bytes, [data]) => Ok(Node::Bytes(self.bytes(*data)?)),
            (Global::Bytes | Global::CodecsEncode, [text, encoding]) => {
                self.encode(*text, *encoding)
            }
            (Global::NumpyScalar, [dtype, data]) => self.numpy_scalar(*dtype, *data),
            (Global::NumpyReconstruct, [class, _shape, _kind]) => match self.node(*class) {
                Node::Global(Global::NumpyArray) => Ok(Node::Array(None)),
                other => Err(unexpected("numpy.ndarray", other.describe())),
            },
            (Global::NumpyFrombuffer, [data, dtype, shape, order]) => {
                let fortran = &*self.text(*order)? == "F";
                let array = self.array(*dtype, *shape, fortran, *data)?;
                Ok(Node::Array(Some(Box::new(array))))
            }
            (Global::NumpyDtype, [name, ..]) => {
                Ok(Node::Dtype(NumpyDtype::parse(&self.text(*name)?)?))
            }
            (Global::RebuildTensorV2, [storage, offset, size, stride, ..])
            | (Global::RebuildTensor, [storage, offset, size, stride]) => {
                self.tensor(*storage, *offset, *size, *stride)
            }
            (Global::RebuildParameter, [tensor, ..]) => match self.node(*tensor) {
                Node::Tensor(tensor) => {
                    let tensor = tensor.clone();
                    self.spend(size_of::<TensorRef>() + 16 * tensor.shape.len())?;
                    Ok(Node::Tensor(tensor))
                }
                other => Err(unexpected("a torch tensor", other.describe())),
            },
            (Global::TorchDevice, [kind]) => Ok(Node::Str(self.text(*kind)?)),
            (Global::TorchDevice, [kind, index]) => {
                let name = format!("{}:{}", self.text(*kind)?, self.integer(*index)?);
                self.spend(name.len())?;
                Ok(Node::Str(name.into()))
            }
            _ => Err(unexpected(
                "a constructor with arguments it takes",
                format!("`{}` with {}", global.name(), args.len()),
            )),
        }
    }

    /// What BUILD does to an object: sets the state of a dtype or of an array. Attributes of
    /// dicts (`_metadata` of a state dict) and of tensors (hooks) mean nothing here.
    pub(super) fn build(&mut self, object: Id, state: Id) -> StepResult<()> {
        match self.node(object) {
            Node::Dict { .. } | Node::Tensor(_) => Ok(()),
            Node::Dtype(dtype) => {
                let dtype = *dtype;
                let state = self.tuple(state)?;
                let [_version, order, ..] = state[..] else {
                    return Err(unexpected("a dtype's state", "a shorter tuple"));
                };
                let order = self.text(order)?;
                self.replace(object, Node::Dtype(dtype.with_byte_order(&order)?));
                Ok(())
            }
            Node::Array(_) => {
                let state = self.tuple(state)?;
                let [_version, shape, dtype, fortran, data] = state[..] else {
                    return Err(unexpected("an array's state of 5", "another length"));
                };
                let fortran = match self.node(fortran) {
                    Node::Bool(v) => *v,
                    Node::Int(v) => *v != 0,
                    other => return Err(unexpected("a bool", other.describe())),
                };
                let array = self.array(dtype, shape, fortran, data)?;
                self.replace(object, Node::Array(Some(Box::new(array))));
                Ok(())
            }
            other => Err(unexpected("an object that has state", other.describe())),
        }
    }

    /// What a persistent id stands for: a storage of the torch file around the pickle.
    pub(super) fn persistent(&mut self, id: Id) -> StepResult<Node> {
        let parts = self.tuple(id)?;
        let (tag, class, key, numel, view) = match parts[..] {
            [tag, class, key, _location, numel] => (tag, class, key, numel, None),
            [tag, class, key, _location, numel, view] => (tag, class, key, numel, Some(view)),
            _ => return Err(unexpected("a torch storage's id", "another tuple")),
        };
        if &*self.text(tag)? != "storage" {
            return Err(unexpected("`storage`", "another kind of persistent id"));
        }
        let dtype = match self.node(class) {
            Node::Global(Global::Storage(dtype)) => dtype.unwrap_or(Dtype::U8),
            other => return Err(unexpected("a torch storage type", other.describe())),
        };
        let mut storage = StorageRef {
            key: self.text(key)?.as_ref().to_owned(),
            dtype,
            numel: self.size(numel)?,
            start: 0,
        };
        self.spend(storage.key.len())?;
        if let Some(view) = view.filter(|&v| !matches!(self.node(v), Node::None)) {
            let view = self.tuple(view)?;
            let [_key, offset, size] = view[..] else {
                return Err(unexpected("a storage view of 3", "another length"));
            };
            (storage.start, storage.numel) = (self.size(offset)?, self.size(size)?);
        }
        Ok(Node::Storage(Arc::new(storage)))
    }

    fn dict_from_pairs(&mut self, items: Id, ordered: bool) -> StepResult<Node> {
        let items = match self.node(items) {
            Node::Dict { items, .. } => {
                let items = items.clone();
                self.spend(items.len() * size_of::<(Id, Id)>())?;
                items
            }
            _ => {
                let pairs = self.sequence(items)?;
                let mut items = Vec::with_capacity(pairs.len());
                for pair in pairs {
                    match self.sequence(pair)?[..] {
                        [key, value] => items.push((key, value)),
                        _ => return Err(unexpected("pairs of key and value", "another length")),
                    }
                }
                items
            }
        };
        Ok(Node::Dict { items, ordered })
    }

    fn encode(&mut self, text: Id, encoding: Id) -> StepResult<Node> {
        let (text, encoding) = (self.text(text)?, self.text(encoding)?);
        self.spend(text.len())?;
        let bytes: Arc<[u8]> = match &*encoding {
            "latin1" | "latin-1" | "iso-8859-1" => latin1(&text)?,
            "utf-8" | "utf8" | "ascii" => text.as_bytes().into(),
            other => return Err(unexpected("latin1 or utf-8", format!("`{other:.32}`"))),
        };
        Ok(Node::Bytes(bytes))
    }

    fn numpy_scalar(&mut self, dtype: Id, data: Id) -> StepResult<Node> {
        let (dtype, bytes) = (self.dtype(dtype)?, self.bytes(data)?);
        self.spend(bytes.len())?;
        Ok(match dtype.scalar(&bytes)? {
            Value::Bool(v) => Node::Bool(v),
            Value::Int(v) => Node::Int(v),
            Value::Float(v) => Node::Float(v),
            Value::Bytes(v) => Node::Bytes(v.into()),
            Value::Str(v) => Node::Str(v.into()),
            _ => return Err(unexpected("a numpy scalar", "another value")),
        })
    }

    fn array(&mut self, dtype: Id, shape: Id, fortran: bool, data: Id) -> StepResult<RawArray> {
        let shape = match self.node(shape) {
            Node::Int(_) => vec![self.size(shape)?],
            _ => self.sizes(shape)?,
        };
        raw_array(self.dtype(dtype)?, shape, fortran, self.bytes(data)?)
    }

    fn tensor(&mut self, storage: Id, offset: Id, size: Id, stride: Id) -> StepResult<Node> {
        let Node::Storage(storage) = self.node(storage) else {
            return Err(unexpected("a torch storage", self.node(storage).describe()));
        };
        let storage = storage.clone();
        let (shape, stride) = (self.sizes(size)?, self.sizes(stride)?);
        if shape.len() != stride.len() {
            let found = format!("shape {shape:?} and stride {stride:?}");
            return Err(unexpected("a stride for every axis", found));
        }
        self.spend(size_of::<TensorRef>() + 16 * shape.len())?;
        Ok(Node::Tensor(Box::new(TensorRef { storage, offset: self.size(offset)?, shape, stride })))
    }
}
