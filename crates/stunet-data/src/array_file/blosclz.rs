//! BloscLZ: literals, and copies of what came before.

/// What is added to a distance that takes two bytes of its own.
const FAR: usize = 8191;

/// Unpacks a stream; returns how many bytes it has, or none where it is damaged.
///
/// # Source
/// `blosclz.c` of C-Blosc2: a byte below 32 is followed by one literal more than it says; others begin a copy
/// of `byte / 32 + 2` bytes, where 7 stands for more (bytes are added as long as they are 255), from a
/// distance of 13 bits, or of 16 bits where all of these are set.
pub(super) fn unpack(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut rest = packed;
    let next = |rest: &mut &[u8]| -> Option<usize> {
        let (first, others) = rest.split_first()?;
        *rest = others;
        Some(usize::from(*first))
    };
    let mut at = 0;
    // The first can only be literals; its upper bits say how it was packed.
    let mut control = next(&mut rest)? & 31;
    loop {
        if control < 32 {
            let (literals, others) = rest.split_at_checked(control + 1)?;
            out.get_mut(at..at + literals.len())?.copy_from_slice(literals);
            (at, rest) = (at + literals.len(), others);
        } else {
            let mut length = (control >> 5) - 1;
            if length == 6 {
                loop {
                    let more = next(&mut rest)?;
                    length += more;
                    if more != 255 {
                        break;
                    }
                }
            }
            let near = ((control & 31) << 8) + next(&mut rest)?;
            let distance = match near {
                FAR => FAR + (next(&mut rest)? << 8) + next(&mut rest)?,
                near => near,
            };
            let from = at.checked_sub(distance + 1)?;
            let end = at + length + 3;
            out.get(..end)?;
            // Byte by byte: a copy may overlap what it makes.
            for to in at..end {
                out[to] = out[to - at + from];
            }
            at = end;
        }
        match next(&mut rest) {
            Some(byte) => control = byte,
            None => return Some(at),
        }
    }
}
