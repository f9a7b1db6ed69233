//! The bytes of a pickle, read as they are needed and never beyond its end.

use super::MAX_BYTES;
use super::error::{PickleProblem, StepResult};
use super::text::latin1_text;
use std::io::{BufRead, Read};

/// A pickle's bytes with the position in them.
pub(super) struct Input<'a> {
    reader: &'a mut dyn BufRead,
    position: u64,
}

impl<'a> Input<'a> {
    pub(super) fn new(reader: &'a mut dyn BufRead) -> Self {
        Self { reader, position: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn byte(&mut self, what: &'static str) -> StepResult<u8> {
        let [byte] = self.fixed::<1>(what)?;
        Ok(byte)
    }

    pub(super) fn array_of<const N: usize>(&mut self) -> StepResult<[u8; N]> {
        self.fixed("an operand")
    }

    fn fixed<const N: usize>(&mut self, expected: &'static str) -> StepResult<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|e| {
            if e.kind() == std::io::ErrorKind::UnexpectedEof {
                PickleProblem::Truncated { expected }
            } else {
                e.into()
            }
        })?;
        self.advance(N)?;
        Ok(bytes)
    }

    /// Bytes behind a count of `width` bytes. The buffer grows with what is there, not with what
    /// is announced.
    pub(super) fn counted(&mut self, width: usize) -> StepResult<Vec<u8>> {
        let count = match width {
            1 => self.byte("a count")?.into(),
            4 => u32::from_le_bytes(self.array_of()?).into(),
            _ => u64::from_le_bytes(self.array_of()?),
        };
        let mut bytes = Vec::new();
        let limit = count.min(MAX_BYTES);
        (&mut *self.reader).take(limit).read_to_end(&mut bytes)?;
        self.advance(bytes.len())?;
        if (bytes.len() as u64) < count {
            return Err(PickleProblem::Truncated { expected: "as many bytes as announced" });
        }
        Ok(bytes)
    }

    pub(super) fn line(&mut self) -> StepResult<String> {
        let mut bytes = Vec::new();
        (&mut *self.reader).take(MAX_BYTES).read_until(b'\n', &mut bytes)?;
        self.advance(bytes.len())?;
        if bytes.pop() != Some(b'\n') {
            return Err(PickleProblem::Truncated { expected: "the end of a line" });
        }
        // Text operations of protocol 0 are latin-1.
        Ok(latin1_text(&bytes))
    }

    fn advance(&mut self, count: usize) -> StepResult<()> {
        self.position += count as u64;
        if self.position > MAX_BYTES {
            return Err(PickleProblem::TooLarge { what: "bytes in a pickle", limit: MAX_BYTES });
        }
        Ok(())
    }
}
