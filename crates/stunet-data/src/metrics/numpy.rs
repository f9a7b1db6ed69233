//! Sums and percentiles as NumPy computes them, so that the last digit is its, too.

/// `numpy.mean`; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    sum(values) / values.len() as f64
}

/// `numpy.nanmean`: of the values that are not NaN; NaN if none is.
///
/// As NumPy does it, NaN is summed as 0: the others keep their places in the order of summation.
pub fn nan_mean(values: &[f64]) -> f64 {
    let count = values.iter().filter(|v| !v.is_nan()).count();
    let filled: Vec<f64> = values.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
    sum(&filled) / count as f64
}

/// Lengths above this are halved.
const BLOCK: usize = 128;
/// Partial sums of a block.
const LANES: usize = 8;

/// `numpy.percentile` with its linear interpolation, of `part` from 0 to 1; NaN of nothing. The values
/// are put into another order.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    percentile_of(values, part)
}

/// As [`percentile`], of numbers that are exact in double precision.
pub(crate) fn percentile_of<T: Copy + Into<f64>>(values: &mut [T], part: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * part;
    let below = (place.floor() as usize).min(last);
    let order = |a: &T, b: &T| {
        let (a, b): (f64, f64) = ((*a).into(), (*b).into());
        a.total_cmp(&b)
    };
    let (_, low, above) = values.select_nth_unstable_by(below, order);
    let low: f64 = (*low).into();
    let high = above.iter().map(|v| (*v).into()).min_by(f64::total_cmp).unwrap_or(low);
    let (between, step) = (place - below as f64, high - low);
    // NumPy interpolates from the nearer side.
    if between < 0.5 { low + step * between } else { high - step * (1.0 - between) }
}

/// `numpy.sum`: NumPy's pairwise summation (`pairwise_sum_DOUBLE`).
pub fn sum(values: &[f64]) -> f64 {
    let n = values.len();
    if n < LANES {
        return values.iter().fold(0.0, |sum, v| sum + v);
    }
    if n > BLOCK {
        let half = n / 2 - n / 2 % LANES;
        return sum(&values[..half]) + sum(&values[half..]);
    }
    let (rows, rest) = values.as_chunks::<LANES>();
    let mut lanes = rows[0];
    for row in &rows[1..] {
        lanes.iter_mut().zip(row).for_each(|(lane, v)| *lane += v);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().fold(sum, |sum, v| sum + v)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms of very different size, so that the order of summation shows.
    fn terms(n: u32) -> Vec<f64> {
        (0..n).map(|i| 1.0 / f64::from(1 + i * i % 97) + f64::from(i % 7) * 1e-9).collect()
    }

    #[test]
    fn the_order_is_numpys() {
        // numpy.mean of the same terms, NumPy 2.4.
        let check = |n, expected: f64| assert_eq!(mean(&terms(n)), expected, "{n} terms");
        check(1, 1.0);
        check(7, 0.2749017308429043);
        check(8, 0.24303901448754128);
        check(9, 0.21774408136499396);
        check(14, 0.16403027412189178);
        check(104, 0.07869105256170131);
        check(128, 0.07300024632583502);
        check(129, 0.07252145338576016);
        check(300, 0.06912789598278256);
        assert!(mean(&[]).is_nan());
    }

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile of the same terms, NumPy 2.4.
        let check = |n, part, expected: f64| {
            assert_eq!(percentile(&mut terms(n), part), expected, "{part} of {n} terms");
        };
        check(1, 0.95, 1.0);
        check(2, 0.5, 0.7500000005);
        check(2, 0.95, 0.97500000005);
        check(7, 0.5, 0.100000003);
        check(7, 0.95, 0.8500000002999997);
        check(14, 0.5, 0.03923077373076923);
        check(14, 0.95, 0.6750000006499998);
        check(104, 0.5, 0.021527781277777776);
        check(104, 0.95, 0.3333333384333333);
        check(300, 0.5, 0.020408167765306122);
        check(300, 0.95, 0.3333333373833333);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn nan_is_left_out() {
        let check = |n, expected: f64| {
            let mut values = terms(n);
            values[3] = f64::NAN;
            values[9] = f64::NAN;
            assert_eq!(nan_mean(&values), expected, "{n} terms");
            assert!(mean(&values).is_nan());
        };
        check(14, 0.18201905922960546);
        check(104, 0.07913406215162468);
        assert!(nan_mean(&[f64::NAN; 3]).is_nan());
        assert!(nan_mean(&[]).is_nan());
    }
}
