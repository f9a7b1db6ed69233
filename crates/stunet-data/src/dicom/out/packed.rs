//! Bits of binary segmentations.

use super::derived::PlaneView;

/// Bits, the lowest of a byte first; frames follow each other without a gap.
#[derive(Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    /// Bits of the byte that is not full, and how many.
    open: (u8, u32),
}

impl Packed {
    /// Adds a plane: ones where a value stands.
    pub fn push(&mut self, plane: &PlaneView<'_>, value: u16) {
        match (plane, u8::try_from(value)) {
            (PlaneView::Bytes(values), Ok(value)) => self.push_where(values, value),
            (PlaneView::Bytes(values), Err(_)) => {
                let none = vec![0u8; values.len()];
                self.push_where(&none, 1);
            }
            (PlaneView::Words(values), _) => self.push_where(values, value),
        }
    }

    fn push_where<T: Copy + PartialEq>(&mut self, values: &[T], value: T) {
        let bits = |values: &[T]| {
            values.iter().enumerate().fold(0u8, |bits, (i, v)| bits | u8::from(*v == value) << i)
        };
        let eights = values.chunks_exact(8);
        let rest = eights.remainder();
        let (mut open, count) = self.open;
        for eight in eights {
            let byte = u16::from(bits(eight)) << count | u16::from(open);
            self.bytes.push(byte as u8);
            open = (byte >> 8) as u8;
        }
        let byte = u16::from(bits(rest)) << count | u16::from(open);
        let count = count + rest.len() as u32;
        self.open = match count {
            8.. => {
                self.bytes.push(byte as u8);
                ((byte >> 8) as u8, count - 8)
            }
            _ => (byte as u8, count),
        };
    }

    /// The bytes that are full.
    pub fn taken(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The last byte, if it has a bit.
    pub fn rest(&self) -> Vec<u8> {
        let (byte, count) = self.open;
        if count > 0 { vec![byte] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[test]
    fn frames_follow_each_other_without_a_gap() {
        let frames: Vec<Vec<u16>> =
            (0..7u16).map(|f| (0..13).map(|i| (i * 5 + f * 3) % 4).collect()).collect();
        let mut packed = Packed::default();
        let mut bytes = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            let plane = match index % 2 {
                0 => PlaneView::Words(Cow::Borrowed(frame)),
                _ => PlaneView::Bytes(frame.iter().map(|v| *v as u8).collect()),
            };
            packed.push(&plane, 2);
            bytes.extend(packed.taken());
        }
        bytes.extend(packed.rest());
        assert_eq!(bytes.len(), (7 * 13usize).div_ceil(8));
        for (bit, value) in frames.iter().flatten().enumerate() {
            assert_eq!(bytes[bit / 8] >> (bit % 8) & 1 == 1, *value == 2, "{bit}");
        }
        // A value of two bytes is nowhere in a plane of single ones.
        packed.push(&PlaneView::Bytes(Cow::Owned(vec![2; 16])), 258);
        assert!(packed.taken()[1..].iter().all(|byte| *byte == 0));
    }
}
