//! The transforms along one axis: F(2, 3), two outputs of four inputs, and F(4, 3), four of six; at stride 2 two outputs
//! of five.
//!
//! F(2, 3) has its points at 0, ±1 and infinity; its transforms of inputs and outputs are sums alone. F(4, 3)
//! has 0, ±[`NEAR`], ±[`FAR`] and infinity. The points usually taken, ±1 and ±2, lose ten times as much along
//! three axes: powers of 2 reach 8 where those of `FAR` reach 2.6. Both points and their squares are exact in
//! `f32`. Strided tiles have 1, -1 and infinity: 0 in the place of -1 doubles their error.
//!
//! # Source
//! Barabasz, Anderson, Soodhalter and Gregg, "Error analysis and improving the accuracy of Winograd convolution
//! for deep neural networks" (2020), on the choice of points.

use crate::cpu::simd::Simd;

const NEAR: f32 = 0.6875;
const FAR: f32 = 1.375;
const NEAR_2: f32 = NEAR * NEAR;
const FAR_2: f32 = FAR * FAR;
/// What the kernel's values at ±[`NEAR`] are multiplied with: one through the product of the distances to the other
/// points.
const NEAR_SHARE: f32 = 1.0 / (2.0 * NEAR_2 * (NEAR_2 - FAR_2));
const FAR_SHARE: f32 = 1.0 / (2.0 * FAR_2 * (FAR_2 - NEAR_2));
const ZERO_SHARE: f32 = 1.0 / (NEAR_2 * FAR_2);

/// Four inputs of a tile.
#[inline(always)]
pub(super) fn input_2<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 4] {
    [simd.subtract(a, c), simd.add(b, c), simd.subtract(c, b), simd.subtract(b, d)]
}

/// Two outputs from their four frequencies.
#[inline(always)]
pub(super) fn output_2<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 2] {
    [simd.add(a, simd.add(b, c)), simd.subtract(simd.subtract(b, c), d)]
}

/// Two gradients of outputs: the transpose of [`output_2`].
#[inline(always)]
pub(super) fn gradient_2<S: Simd>(simd: S, [a, b]: [S::Vector; 2]) -> [S::Vector; 4] {
    [a, simd.add(a, b), simd.subtract(a, b), simd.subtract(simd.zero(), b)]
}

/// Three weights.
#[inline(always)]
pub(super) fn kernel_2<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 4] {
    let half = simd.splat(0.5);
    let (outer, middle) = (simd.multiply(half, simd.add(a, c)), simd.multiply(half, b));
    [a, simd.add(outer, middle), simd.subtract(outer, middle), c]
}

/// Gradients of three weights: the transpose of [`kernel_2`].
#[inline(always)]
pub(super) fn kernel_gradient_2<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 3] {
    let half = simd.splat(0.5);
    let sum = simd.multiply(half, simd.add(b, c));
    [simd.add(a, sum), simd.multiply(half, simd.subtract(b, c)), simd.add(sum, d)]
}

/// Five inputs of two outputs at stride 2: the first, third and fifth at the points 1, -1 and infinity, the others at
/// 1 and -1.
#[inline(always)]
pub(super) fn input_strided<S: Simd>(simd: S, [a, b, c, d, e]: [S::Vector; 5]) -> [S::Vector; 5] {
    [simd.add(a, c), simd.subtract(a, c), simd.subtract(e, a), simd.add(b, d), simd.subtract(b, d)]
}

/// Two outputs from their three sums.
#[inline(always)]
pub(super) fn output_strided<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 2] {
    [simd.add(a, b), simd.add(simd.subtract(a, b), c)]
}

/// Three weights: the outer two at the points 1, -1 and infinity, and the middle one, the same at both points.
#[inline(always)]
pub(super) fn kernel_strided<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 4] {
    let half = simd.splat(0.5);
    let (sum, difference) = (simd.add(a, c), simd.subtract(a, c));
    [simd.multiply(half, sum), simd.multiply(half, difference), c, simd.multiply(half, b)]
}

/// `a + factor * b`.
#[inline(always)]
fn plus<S: Simd>(simd: S, a: S::Vector, factor: f32, b: S::Vector) -> S::Vector {
    simd.multiply_add(simd.splat(factor), b, a)
}

/// `factor * value`.
#[inline(always)]
fn times<S: Simd>(simd: S, factor: f32, value: S::Vector) -> S::Vector {
    simd.multiply(simd.splat(factor), value)
}

/// `even + factor * odd` and `even - factor * odd`: values at a point and at its opposite.
#[inline(always)]
fn at_both<S: Simd>(simd: S, even: S::Vector, factor: f32, odd: S::Vector) -> [S::Vector; 2] {
    [plus(simd, even, factor, odd), plus(simd, even, -factor, odd)]
}

/// Six inputs of a tile.
#[inline(always)]
pub(super) fn input_4<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::Vector; 6]) -> [S::Vector; 6] {
    let both = -(NEAR_2 + FAR_2);
    let zero = plus(simd, plus(simd, e, both, c), NEAR_2 * FAR_2, a);
    let infinity = plus(simd, plus(simd, f, both, d), NEAR_2 * FAR_2, b);
    let (even, odd) = (plus(simd, e, -FAR_2, c), plus(simd, d, -FAR_2, b));
    let [near, opposite] = at_both(simd, even, NEAR, odd);
    let (even, odd) = (plus(simd, e, -NEAR_2, c), plus(simd, d, -NEAR_2, b));
    let [far, far_opposite] = at_both(simd, even, FAR, odd);
    [zero, near, opposite, far, far_opposite, infinity]
}

/// Four outputs from their six frequencies.
#[inline(always)]
pub(super) fn output_4<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::Vector; 6]) -> [S::Vector; 4] {
    let (near, near_odd) = (simd.add(b, c), simd.subtract(b, c));
    let (far, far_odd) = (simd.add(d, e), simd.subtract(d, e));
    [
        simd.add(a, simd.add(near, far)),
        plus(simd, times(simd, FAR, far_odd), NEAR, near_odd),
        plus(simd, times(simd, FAR_2, far), NEAR_2, near),
        plus(simd, plus(simd, f, FAR * FAR_2, far_odd), NEAR * NEAR_2, near_odd),
    ]
}

/// Four gradients of outputs: the transpose of [`output_4`].
#[inline(always)]
pub(super) fn gradient_4<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 6] {
    let [near, opposite] = at_both(simd, plus(simd, a, NEAR_2, c), NEAR, plus(simd, b, NEAR_2, d));
    let [far, far_opposite] = at_both(simd, plus(simd, a, FAR_2, c), FAR, plus(simd, b, FAR_2, d));
    [a, near, opposite, far, far_opposite, d]
}

/// Three weights.
#[inline(always)]
pub(super) fn kernel_4<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 6] {
    let near = times(simd, NEAR_SHARE, plus(simd, a, NEAR_2, c));
    let [near, opposite] = at_both(simd, near, NEAR * NEAR_SHARE, b);
    let far = times(simd, FAR_SHARE, plus(simd, a, FAR_2, c));
    let [far, far_opposite] = at_both(simd, far, FAR * FAR_SHARE, b);
    [times(simd, ZERO_SHARE, a), near, opposite, far, far_opposite, c]
}

/// Gradients of three weights: the transpose of [`kernel_4`].
#[inline(always)]
pub(super) fn kernel_gradient_4<S: Simd>(
    simd: S,
    [a, b, c, d, e, f]: [S::Vector; 6],
) -> [S::Vector; 3] {
    let (near, near_odd) = (times(simd, NEAR_SHARE, simd.add(b, c)), simd.subtract(b, c));
    let (far, far_odd) = (times(simd, FAR_SHARE, simd.add(d, e)), simd.subtract(d, e));
    [
        plus(simd, simd.add(near, far), ZERO_SHARE, a),
        plus(simd, times(simd, FAR * FAR_SHARE, far_odd), NEAR * NEAR_SHARE, near_odd),
        plus(simd, plus(simd, f, FAR_2, far), NEAR_2, near),
    ]
}
