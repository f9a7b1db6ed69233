//! Two arrays held against each other: one outlier cannot hide in a mean, nor a drift in a peak.

/// The difference of two arrays of equal length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference; infinite when one side is not finite and the other is.
    pub peak: f64,
    /// Root of the mean squared difference.
    pub rmse: f64,
    /// Root of the summed squared difference over the root of the summed squared expectation.
    pub relative_l2: f64,
}

/// Compares `found` with `expected`, element by element.
///
/// # Panics
/// When the lengths differ.
pub fn difference<A, B>(found: &[A], expected: &[B]) -> Difference
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    assert_eq!(found.len(), expected.len(), "arrays of different length");
    let (mut peak, mut squares, mut norm) = (0f64, 0f64, 0f64);
    for (&a, &b) in found.iter().zip(expected) {
        let (a, b): (f64, f64) = (a.into(), b.into());
        let d = (a - b).abs();
        let d = if d.is_nan() && !(a.is_nan() && b.is_nan()) { f64::INFINITY } else { d };
        peak = peak.max(d);
        squares += d * d;
        norm += b * b;
    }
    let rmse = (squares / found.len().max(1) as f64).sqrt();
    let relative_l2 = squares.sqrt() / norm.sqrt().max(f64::MIN_POSITIVE);
    Difference { peak, rmse, relative_l2 }
}

/// Prints the difference of one named case and holds it to a bound on peak and on RMSE.
///
/// # Panics
/// When a bound is passed or the lengths differ.
pub fn assert_close<A, B>(what: &str, found: &[A], expected: &[B], peak: f64, rmse: f64)
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    let d = difference(found, expected);
    crate::say!(
        "{what}: peak {:.3e} (bound {peak:.1e}), rmse {:.3e} (bound {rmse:.1e})",
        d.peak,
        d.rmse
    );
    assert!(
        d.peak <= peak && d.rmse <= rmse,
        "{what}: expected peak <= {peak:e} and rmse <= {rmse:e}, found {d:?}"
    );
}
