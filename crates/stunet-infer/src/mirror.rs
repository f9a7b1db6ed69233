//! Mirroring at test time: which flips are predicted, and in which order they are summed.
//!
//! # Source
//! nnU-Net 1.7.1 `neural_network.py::_internal_maybe_mirror_and_pred_3D`; nnU-Net 2.2 and 2.8
//! `predict_from_raw_data.py::_internal_maybe_mirror_and_predict`.

use ndarray::{Array4, Axis};
use stunet_data::reference::{MirrorOrder, Reference};

/// For each forward pass, whether the window is mirrored along `[z, y, x]`; the first is the
/// window as it is.
///
/// `axes` are the axes of `[z, y, x]` along which mirroring is allowed; none gives one pass.
///
/// # Source
/// v1 adds none, x, y, yx, z, zx, zy, zyx; v2 adds none, z, y, x, zy, zx, yx, zyx. The sum in f32
/// depends on the order in its last digits.
///
/// ```
/// use stunet_data::plans::Reference;
/// let passes = stunet_infer::mirror::passes(Reference::NnUNetV1, &[0, 2]);
/// assert_eq!(passes.len(), 4);
/// assert_eq!(passes[1], [false, false, true]);
/// ```
pub fn passes(reference: Reference, axes: &[usize]) -> Vec<[bool; 3]> {
    const Z: bool = true;
    const Y: bool = true;
    const X: bool = true;
    const O: bool = false;
    const LAST_AXIS_FIRST: [[bool; 3]; 8] =
        [[O, O, O], [O, O, X], [O, Y, O], [O, Y, X], [Z, O, O], [Z, O, X], [Z, Y, O], [Z, Y, X]];
    const FEWEST_FIRST: [[bool; 3]; 8] =
        [[O, O, O], [Z, O, O], [O, Y, O], [O, O, X], [Z, Y, O], [Z, O, X], [O, Y, X], [Z, Y, X]];
    let order = match reference.conventions().prediction.mirrors {
        MirrorOrder::LastAxisFirst => LAST_AXIS_FIRST,
        MirrorOrder::FewestFirst => FEWEST_FIRST,
    };
    let allowed = |flips: &[bool; 3]| (0..3).all(|a| !flips[a] || axes.contains(&a));
    order.into_iter().filter(allowed).collect()
}

/// The array mirrored along the spatial axes where `flips` is set.
///
/// # Shapes
/// `[C, Z, Y, X]` in and out, contiguous.
pub fn mirrored(mut array: Array4<f32>, flips: [bool; 3]) -> Array4<f32> {
    if flips == [false; 3] {
        return array;
    }
    for (axis, _) in flips.iter().enumerate().filter(|(_, flip)| **flip) {
        array.invert_axis(Axis(axis + 1));
    }
    array.as_standard_layout().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(reference: Reference, axes: &[usize], expected: &[&str]) {
        let name = |f: [bool; 3]| -> String {
            "zyx".chars().zip(f).filter(|(_, f)| *f).map(|(c, _)| c).collect()
        };
        let found: Vec<_> = passes(reference, axes).into_iter().map(name).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn order_of_the_references() {
        let all = &[0, 1, 2];
        check(Reference::NnUNetV1, all, &["", "x", "y", "yx", "z", "zx", "zy", "zyx"]);
        check(Reference::NnUNetV28, all, &["", "z", "y", "x", "zy", "zx", "yx", "zyx"]);
        check(Reference::NnUNetV22, &[2, 1], &["", "y", "x", "yx"]);
        check(Reference::NnUNetV1, &[0, 2], &["", "x", "z", "zx"]);
        check(Reference::NnUNetV1, &[], &[""]);
    }

    proptest! {
        #[test]
        fn twice_is_identity(flips in any::<[bool; 3]>(), shape in [1usize..3, 1..5, 1..6, 1..7]) {
            let array = Array4::from_shape_fn(shape, |(c, z, y, x)| {
                (((c * 7 + z) * 7 + y) * 7 + x) as f32
            });
            let once = mirrored(array.clone(), flips);
            prop_assert!(once.is_standard_layout());
            prop_assert_eq!(mirrored(once, flips), array);
        }
    }

    #[test]
    fn each_axis_turns_its_own_axis() {
        let array =
            Array4::from_shape_fn((1, 2, 3, 4), |(_, z, y, x)| (z * 100 + y * 10 + x) as f32);
        assert_eq!(mirrored(array.clone(), [true, false, false])[[0, 0, 2, 1]], 121.0);
        assert_eq!(mirrored(array.clone(), [false, true, false])[[0, 1, 0, 1]], 121.0);
        assert_eq!(mirrored(array, [false, false, true])[[0, 1, 2, 2]], 121.0);
    }
}
