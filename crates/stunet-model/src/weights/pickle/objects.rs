//! The objects that a running pickle has made, and what reading them costs.

use super::error::{PickleProblem, StepResult, unexpected};
use super::globals::Global;
use super::node::{Id, Node, freeze};
use super::numpy::Dtype;
use super::text::latin1;
use super::value::Value;
use super::{DERIVED, MAX_DERIVED, MAX_NODES, in_proportion};
use std::sync::Arc;

/// Most axes of a tensor or an array.
const MAX_AXES: usize = 32;

/// The objects of a running pickle, by index.
#[derive(Default)]
pub(super) struct Objects {
    nodes: Vec<Node>,
    /// Bytes that operations made out of other objects.
    derived: u64,
    /// Bytes of the pickle read so far.
    read: u64,
}

impl Objects {
    /// Says how much of the pickle is read: operations may copy in proportion to it.
    pub(super) fn read_so_far(&mut self, bytes: u64) {
        self.read = bytes;
    }

    pub(super) fn add(&mut self, node: Node) -> StepResult<Id> {
        if self.nodes.len() >= MAX_NODES {
            return Err(PickleProblem::TooLarge { what: "objects", limit: MAX_NODES as u64 });
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Id)
    }

    /// The object graph under `root` as plain data; `length` is the pickle's.
    pub(super) fn freeze(&self, root: Id, length: u64) -> StepResult<Value> {
        freeze(&self.nodes, root, length)
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(super) fn replace(&mut self, id: Id, node: Node) {
        self.nodes[id as usize] = node;
    }

    /// Counts bytes that operations make out of others: a short pickle could copy a long text
    /// again and again.
    pub(super) fn spend(&mut self, bytes: usize) -> StepResult<()> {
        self.derived = self.derived.saturating_add(bytes as u64);
        let limit = in_proportion(DERIVED, MAX_DERIVED, self.read);
        if self.derived > limit {
            return Err(PickleProblem::TooLarge { what: "bytes of copied data", limit });
        }
        Ok(())
    }

    pub(super) fn text(&self, id: Id) -> StepResult<Arc<str>> {
        match self.node(id) {
            Node::Str(text) => Ok(text.clone()),
            other => Err(unexpected("text", other.describe())),
        }
    }

    /// Raw bytes; Python 2 wrote them as text.
    pub(super) fn bytes(&mut self, id: Id) -> StepResult<Arc<[u8]>> {
        match self.node(id) {
            Node::Bytes(bytes) => Ok(bytes.clone()),
            Node::Str(text) => {
                let text = text.clone();
                self.spend(text.len())?;
                latin1(&text)
            }
            other => Err(unexpected("bytes", other.describe())),
        }
    }

    pub(super) fn integer(&self, id: Id) -> StepResult<i128> {
        match self.node(id) {
            Node::Int(v) => Ok(*v),
            other => Err(unexpected("an int", other.describe())),
        }
    }

    pub(super) fn size(&self, id: Id) -> StepResult<usize> {
        let v = self.integer(id)?;
        usize::try_from(v).map_err(|_| unexpected("a size", v.to_string()))
    }

    pub(super) fn sizes(&self, id: Id) -> StepResult<Vec<usize>> {
        match self.node(id) {
            Node::Tuple(ids) | Node::List(ids) if ids.len() <= MAX_AXES => {
                ids.iter().map(|&id| self.size(id)).collect()
            }
            other => Err(unexpected("a tuple of sizes", other.describe())),
        }
    }

    pub(super) fn tuple(&mut self, id: Id) -> StepResult<Vec<Id>> {
        match self.node(id) {
            Node::Tuple(_) => self.sequence(id),
            other => Err(unexpected("a tuple", other.describe())),
        }
    }

    pub(super) fn sequence(&mut self, id: Id) -> StepResult<Vec<Id>> {
        match self.node(id) {
            Node::Tuple(ids) | Node::List(ids) | Node::Set(ids) => {
                let ids = ids.clone();
                self.spend(size_of_val(&ids[..]))?;
                Ok(ids)
            }
            other => Err(unexpected("a sequence", other.describe())),
        }
    }

    pub(super) fn global(&self, id: Id) -> StepResult<Global> {
        match self.node(id) {
            Node::Global(global) => Ok(*global),
            other => Err(unexpected("a constructor", other.describe())),
        }
    }

    pub(super) fn dtype(&self, id: Id) -> StepResult<Dtype> {
        match self.node(id) {
            Node::Dtype(dtype) => Ok(*dtype),
            other => Err(unexpected("a numpy dtype", other.describe())),
        }
    }
}
