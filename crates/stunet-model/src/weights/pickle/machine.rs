//! The stack machine that runs a pickle's operations.

use super::error::{PickleError, PickleProblem, StepResult, unexpected};
use super::globals;
use super::input::Input;
use super::node::{Id, Node};
use super::objects::Objects;
use super::text::{decimal, latin1_text, unescape, unquote, utf8};
use super::value::Value;
use std::collections::HashMap;
use std::io::BufRead;

/// Runs one pickle from the start of `input` to its STOP and not a byte further.
///
/// Returns its value and its length.
pub(super) fn run(input: &mut dyn BufRead, torch: bool) -> Result<(Value, u64), PickleError> {
    let mut machine = Machine {
        input: Input::new(input),
        torch,
        objects: Objects::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let start = machine.input.position();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                let length = machine.input.position();
                let value = machine.objects.freeze(root, length).map_err(|p| p.at(start))?;
                return Ok((value, length));
            }
            Err(problem) => return Err(problem.at(start)),
        }
    }
}

struct Machine<'a> {
    input: Input<'a>,
    torch: bool,
    objects: Objects,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_> {
    /// One operation; the root's index at STOP.
    fn step(&mut self) -> StepResult<Option<Id>> {
        let code = self.input.byte("an operation")?;
        self.objects.read_so_far(self.input.position());
        match code {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol()?,
            0x95 => self.input.array_of::<8>().map(drop)?,
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            code @ (b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | 0x8b) => self.integer_op(code)?,
            code @ (b'F' | b'G') => self.float_op(code)?,
            code @ (b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d) => self.text_op(code)?,
            b'C' => self.bytes_op(1)?,
            b'B' => self.bytes_op(4)?,
            0x8e | 0x96 => self.bytes_op(8)?,
            code @ (b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j') => self.memo_op(code)?,
            code @ (b'(' | b'0' | b'1' | b'2') => self.stack_op(code)?,
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::empty_dict(false))?,
            0x8f => self.push(Node::Set(Vec::new()))?,
            code @ (b't' | 0x85 | 0x86 | 0x87 | b'l' | b'd' | 0x91) => self.collect_op(code)?,
            code @ (b'a' | b'e' | 0x90) => self.append_op(code)?,
            code @ (b's' | b'u') => self.set_items_op(code)?,
            code => self.object_op(code)?,
        }
        Ok(None)
    }

    fn protocol(&mut self) -> StepResult<()> {
        match self.input.byte("a protocol version")? {
            0..=5 => Ok(()),
            v => Err(unexpected("pickle protocol 0 to 5", v.to_string())),
        }
    }

    fn integer_op(&mut self, code: u8) -> StepResult<()> {
        let node = match code {
            b'I' => match &*self.input.line()? {
                "00" => Node::Bool(false),
                "01" => Node::Bool(true),
                digits => Node::Int(decimal(digits)?),
            },
            b'L' => {
                let line = self.input.line()?;
                Node::Int(decimal(line.strip_suffix('L').unwrap_or(&line))?)
            }
            b'J' => Node::Int(i32::from_le_bytes(self.input.array_of()?).into()),
            b'K' => Node::Int(self.input.byte("a byte")?.into()),
            b'M' => Node::Int(u16::from_le_bytes(self.input.array_of()?).into()),
            0x8a => self.long(1)?,
            _ => self.long(4)?,
        };
        self.push(node)
    }

    fn long(&mut self, width: usize) -> StepResult<Node> {
        let bytes = self.input.counted(width)?;
        if bytes.len() > 16 {
            return Err(PickleProblem::TooLarge { what: "bytes in an integer", limit: 16 });
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..bytes.len()].copy_from_slice(&bytes);
        Ok(Node::Int(i128::from_le_bytes(wide)))
    }

    fn float_op(&mut self, code: u8) -> StepResult<()> {
        let value = match code {
            b'G' => f64::from_be_bytes(self.input.array_of()?),
            _ => {
                let line = self.input.line()?;
                line.parse().map_err(|_| unexpected("a float", format!("`{line:.32}`")))?
            }
        };
        self.push(Node::Float(value))
    }

    fn text_op(&mut self, code: u8) -> StepResult<()> {
        let text = match code {
            b'S' => unquote(&self.input.line()?)?,
            b'V' => unescape(&self.input.line()?)?,
            b'T' => latin1_text(&self.input.counted(4)?),
            b'U' => latin1_text(&self.input.counted(1)?),
            b'X' => utf8(self.input.counted(4)?)?,
            0x8c => utf8(self.input.counted(1)?)?,
            _ => utf8(self.input.counted(8)?)?,
        };
        self.push(Node::Str(text.into()))
    }

    fn bytes_op(&mut self, width: usize) -> StepResult<()> {
        let bytes = self.input.counted(width)?;
        self.push(Node::Bytes(bytes.into()))
    }

    fn memo_op(&mut self, code: u8) -> StepResult<()> {
        let key = match code {
            b'p' | b'g' => {
                let line = self.input.line()?;
                u64::try_from(decimal(&line)?)
                    .map_err(|_| unexpected("a memo index", format!("`{line:.32}`")))?
            }
            b'q' | b'h' => self.input.byte("a memo index")?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.input.array_of()?).into(),
            _ => self.memo.len() as u64,
        };
        if matches!(code, b'g' | b'h' | b'j') {
            let id = *self
                .memo
                .get(&key)
                .ok_or_else(|| unexpected("a memoised object", format!("nothing under {key}")))?;
            self.stack.push(id);
        } else {
            let id = self.top()?;
            self.memo.insert(key, id);
        }
        Ok(())
    }

    fn stack_op(&mut self, code: u8) -> StepResult<()> {
        match code {
            b'(' => self.marks.push(self.stack.len()),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // POP takes a mark off where nothing lies above it.
            _ if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            _ => drop(self.pop()?),
        }
        Ok(())
    }

    fn collect_op(&mut self, code: u8) -> StepResult<()> {
        let node = match code {
            0x85 => Node::Tuple(self.pop_many(1)?),
            0x86 => Node::Tuple(self.pop_many(2)?),
            0x87 => Node::Tuple(self.pop_many(3)?),
            b't' => Node::Tuple(self.pop_mark()?),
            b'l' => Node::List(self.pop_mark()?),
            0x91 => Node::Set(self.pop_mark()?),
            _ => Node::Dict { items: pairs(self.pop_mark()?)?, ordered: false },
        };
        self.push(node)
    }

    fn append_op(&mut self, code: u8) -> StepResult<()> {
        let new = match code {
            b'a' => vec![self.pop()?],
            _ => self.pop_mark()?,
        };
        let target = self.top()?;
        match self.objects.node_mut(target) {
            Node::List(items) | Node::Set(items) => {
                items.extend(new);
                Ok(())
            }
            other => Err(unexpected("a list or set to append to", other.describe())),
        }
    }

    fn set_items_op(&mut self, code: u8) -> StepResult<()> {
        let new = match code {
            b's' => self.pop_many(2)?,
            _ => self.pop_mark()?,
        };
        let target = self.top()?;
        match self.objects.node_mut(target) {
            Node::Dict { items, .. } => {
                items.extend(pairs(new)?);
                Ok(())
            }
            other => Err(unexpected("a dict to set items of", other.describe())),
        }
    }

    fn object_op(&mut self, code: u8) -> StepResult<()> {
        match code {
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.push(Node::Global(globals::lookup(&module, &name)?))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (module, name) = (self.objects.text(module)?, self.objects.text(name)?);
                self.push(Node::Global(globals::lookup(&module, &name)?))
            }
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.call(class, args)
            }
            0x92 => {
                let (named, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                match self.objects.node(named) {
                    Node::Dict { items, .. } if items.is_empty() => self.call(class, args),
                    other => Err(unexpected("no named arguments", other.describe())),
                }
            }
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.objects.read_so_far(self.input.position());
                let global = globals::lookup(&module, &name)?;
                let args = self.pop_mark()?;
                let made = self.objects.construct(global, &args)?;
                self.push(made)
            }
            b'o' => {
                let parts = self.pop_mark()?;
                let [class, ref args @ ..] = parts[..] else {
                    return Err(unexpected("a class", "an empty stack"));
                };
                let global = self.objects.global(class)?;
                let made = self.objects.construct(global, args)?;
                self.push(made)
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                self.objects.build(object, state)
            }
            b'Q' if self.torch => {
                let id = self.pop()?;
                let storage = self.objects.persistent(id)?;
                self.push(storage)
            }
            b'Q' | b'P' => {
                Err(PickleProblem::Unsupported { name: "a persistent id outside a torch file" })
            }
            0x82..=0x84 => Err(PickleProblem::Unsupported { name: "EXT" }),
            0x97 | 0x98 => Err(PickleProblem::Unsupported { name: "an out-of-band buffer" }),
            code => Err(PickleProblem::UnknownOperation { code }),
        }
    }

    fn call(&mut self, class: Id, args: Id) -> StepResult<()> {
        let (global, args) = (self.objects.global(class)?, self.objects.tuple(args)?);
        let made = self.objects.construct(global, &args)?;
        self.push(made)
    }
}

/// Access to the stack.
impl Machine<'_> {
    fn push(&mut self, node: Node) -> StepResult<()> {
        let id = self.objects.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> StepResult<Id> {
        let above = self.stack.get(self.floor()..).unwrap_or_default();
        above.last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> StepResult<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> StepResult<Vec<Id>> {
        match self.stack.len().checked_sub(count) {
            Some(at) if at >= self.floor() => Ok(self.stack.split_off(at)),
            _ => Err(underflow()),
        }
    }

    fn pop_mark(&mut self) -> StepResult<Vec<Id>> {
        let at = self.marks.pop().ok_or_else(|| unexpected("a mark", "none on the stack"))?;
        // Nothing pops below a mark, so the stack reaches at least up to it.
        Ok(self.stack.split_off(at))
    }
}

fn underflow() -> PickleProblem {
    unexpected("an object on the stack", "none")
}

fn pairs(ids: Vec<Id>) -> StepResult<Vec<(Id, Id)>> {
    let (pairs, rest) = ids.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(unexpected("keys and values", "a key without a value"));
    }
    Ok(pairs.iter().map(|&[k, v]| (k, v)).collect())
}
