//! How sure a mean over cases is, and whether two models differ.

use super::numpy;
use chacha20::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

/// Most pairs whose signs are counted out one by one; more are taken for normal.
const EXACT: usize = 50;

/// How an interval is estimated: cases are drawn again and again, with replacement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// How often all cases are drawn.
    pub resamples: u32,
    /// Part of the resamples that lies in the interval, such as 0.95.
    pub confidence: f64,
    /// Seed of the draws: the same one gives the same interval.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, confidence: 0.95, seed: 0 }
    }
}

/// From here to there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Bootstrap {
    /// Interval of the mean of what the cases have: see [`Draws::mean`].
    ///
    /// ```
    /// use stunet_data::metrics::Bootstrap;
    /// let interval = Bootstrap::default().mean(&[0.8, 0.9, f64::NAN, 0.7, 0.95]).unwrap();
    /// assert!(interval.low > 0.7 && interval.high < 0.95);
    /// ```
    pub fn mean(&self, values: &[f64]) -> Option<Interval> {
        Draws::new(self, values.len()).mean(values)
    }

    /// The cases of a resample, by their numbers below `num_cases`.
    fn draw(&self, resample: u32, num_cases: usize) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(resample.into());
        let mut case = || ((u128::from(random.next_u64()) * num_cases as u128) >> 64) as u32;
        (0..num_cases).map(|_| case()).collect()
    }
}

/// Most draws that are kept; more are drawn anew for every statistic.
const KEPT: usize = 1 << 26;

/// The resamples of a number of cases: the same for every statistic.
///
/// # Source
/// Percentile bootstrap: Efron, Bootstrap Methods: Another Look at the Jackknife, Ann. Statist. 7
/// (1979).
#[derive(Clone, Debug)]
pub struct Draws {
    bootstrap: Bootstrap,
    num_cases: usize,
    /// Cases of one resample after the other, unless they are too many.
    kept: Vec<u32>,
}

impl Draws {
    /// Draws the cases.
    ///
    /// # Panics
    /// When there are 2³² cases or more.
    pub fn new(bootstrap: &Bootstrap, num_cases: usize) -> Self {
        assert!(u32::try_from(num_cases).is_ok(), "cases of one evaluation");
        let mut draws = Self { bootstrap: *bootstrap, num_cases, kept: Vec::new() };
        if (bootstrap.resamples as usize).saturating_mul(num_cases) <= KEPT {
            let resamples = (0..bootstrap.resamples).into_par_iter();
            let all: Vec<Vec<u32>> = resamples.map(|r| bootstrap.draw(r, num_cases)).collect();
            draws.kept = all.concat();
        }
        draws
    }

    /// Interval of the mean of what the cases have, those without a value (NaN) left out; none if fewer
    /// than two have one.
    ///
    /// # Panics
    /// When there are not as many values as cases.
    pub fn mean(&self, values: &[f64]) -> Option<Interval> {
        assert_eq!(values.len(), self.num_cases, "a value for each case");
        if values.iter().filter(|v| !v.is_nan()).count() < 2 {
            return None;
        }
        self.of(|cases| mean_of(values, cases))
    }

    /// Interval of whatever `statistic` makes of the cases that were drawn. Resamples for which it is NaN
    /// do not count; no interval if it is NaN for all, or there is no case.
    pub fn of(&self, statistic: impl Fn(&[u32]) -> f64 + Sync) -> Option<Interval> {
        if self.num_cases == 0 {
            return None;
        }
        let of_resample = |resample: u32| match self.kept.is_empty() {
            true => statistic(&self.bootstrap.draw(resample, self.num_cases)),
            false => statistic(&self.kept[resample as usize * self.num_cases..][..self.num_cases]),
        };
        let resamples = (0..self.bootstrap.resamples).into_par_iter();
        let mut found: Vec<f64> = resamples.map(of_resample).collect();
        found.retain(|v| !v.is_nan());
        let tail = (1.0 - self.bootstrap.confidence) / 2.0;
        (!found.is_empty()).then(|| Interval {
            low: numpy::percentile(&mut found, tail),
            high: numpy::percentile(&mut found, 1.0 - tail),
        })
    }
}

/// Mean of what these cases have; NaN if none has a value.
pub fn mean_of(values: &[f64], cases: &[u32]) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in cases.iter().map(|case| values[*case as usize]).filter(|v| !v.is_nan()) {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}

/// Whether pairs of values differ by more than chance: Wilcoxon's signed-rank test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// Pairs that differ.
    pub pairs: usize,
    /// Sum of the ranks of the pairs whose difference is above 0.
    pub rank_sum: f64,
    /// Two-sided probability of ranks at least that uneven, if there were no difference; 1 if no pair
    /// differs.
    pub p_value: f64,
}

impl SignedRank {
    /// Tests differences; NaN and 0 do not count.
    ///
    /// ```
    /// use stunet_data::metrics::SignedRank;
    /// let test = SignedRank::of(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
    /// assert_eq!(test.p_value, 2.0 / 64.0);
    /// ```
    ///
    /// # Source
    /// SciPy 1.17, `stats.wilcoxon` with its defaults: exact up to 50 pairs, else the normal
    /// distribution, with ties allowed for.
    ///
    /// # Deviations
    /// With ties among up to 50 pairs the probability is exact, too, where SciPy takes the normal
    /// distribution from 14 pairs on.
    pub fn of(differences: &[f64]) -> Self {
        let mut differences: Vec<f64> =
            differences.iter().copied().filter(|d| !d.is_nan() && *d != 0.0).collect();
        differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let doubled = doubled_ranks(&differences);
        let positive = differences.iter().zip(&doubled).filter(|(d, _)| **d > 0.0);
        let doubled_sum: u64 = positive.map(|(_, rank)| rank).sum();
        let p_value = match differences.len() {
            0 => 1.0,
            1..=EXACT => exact(&doubled, doubled_sum),
            _ => approximate(&doubled, doubled_sum),
        };
        Self { pairs: differences.len(), rank_sum: doubled_sum as f64 / 2.0, p_value }
    }
}

/// Ranks of values sorted by size, equal ones sharing their mean; twice, so that they are whole.
fn doubled_ranks(sorted: &[f64]) -> Vec<u64> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for tied in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        let first = ranks.len() as u64 + 1;
        let last = first + tied.len() as u64 - 1;
        ranks.extend(std::iter::repeat_n(first + last, tied.len()));
    }
    ranks
}

/// Over all signs that the ranks may have.
fn exact(doubled: &[u64], sum: u64) -> f64 {
    let all: u64 = doubled.iter().sum();
    // Probability of each sum.
    let mut chance = vec![0.0; all as usize + 1];
    chance[0] = 1.0;
    for rank in doubled {
        let before = chance.clone();
        for (value, chance) in chance.iter_mut().enumerate() {
            let with = value.checked_sub(*rank as usize).map_or(0.0, |v| before[v]);
            *chance = (before[value] + with) / 2.0;
        }
    }
    let sum = sum.min(all - sum) as usize;
    let tail: f64 = chance[..=sum].iter().sum();
    (2.0 * tail).min(1.0)
}

fn approximate(doubled: &[u64], sum: u64) -> f64 {
    let n = doubled.len() as f64;
    let mean = n * (n + 1.0) / 4.0;
    let tied = doubled.chunk_by(|a, b| a == b).map(|tied| tied.len() as f64);
    let ties: f64 = tied.map(|t| t * t * t - t).sum();
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
    let z = (sum as f64 / 2.0 - mean) / variance.sqrt();
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// Probabilities of several tests, so corrected that the chance of even one false finding stays below
/// the level that each is held against. NaN stands for no test.
///
/// # Source
/// Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).filter(|i| !p_values[*i].is_nan()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut corrected = vec![f64::NAN; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, index) in order.iter().enumerate() {
        let factor = (order.len() - rank) as f64;
        largest = largest.max((p_values[*index] * factor).min(1.0));
        corrected[*index] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} for {expected}");
    }

    #[test]
    fn intervals_are_a_function_of_the_seed() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i * 37 % 41) / 41.0).collect();
        let bootstrap = Bootstrap::default();
        let one = bootstrap.mean(&values).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| bootstrap.mean(&values).unwrap()), one);
        assert_ne!(Bootstrap { seed: 1, ..bootstrap }.mean(&values).unwrap(), one);
        // 1.96 standard errors of the mean, by and large.
        let mean = numpy::mean(&values);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 40.0;
        let wide = 1.96 * (variance / 40.0).sqrt();
        assert!((one.high - mean - wide).abs() < 0.1 * wide, "{one:?}");
        assert!((mean - one.low - wide).abs() < 0.1 * wide, "{one:?}");
        let narrow = Bootstrap { confidence: 0.5, ..bootstrap }.mean(&values).unwrap();
        assert!(narrow.low > one.low && narrow.high < one.high);
    }

    #[test]
    fn cases_without_a_value_do_not_count() {
        let nan = f64::NAN;
        assert_eq!(Bootstrap::default().mean(&[0.5, nan, nan]), None);
        let same = Bootstrap::default().mean(&[0.5, nan, 0.5]).unwrap();
        assert_eq!((same.low, same.high), (0.5, 0.5));
        assert_eq!(Draws::new(&Bootstrap::default(), 0).of(|_| 1.0), None);
        // Drawn anew, the cases are the same.
        let values: Vec<f64> = (0..9).map(f64::from).collect();
        let kept = Draws::new(&Bootstrap::default(), 9);
        let anew = Draws { kept: Vec::new(), ..kept.clone() };
        assert_eq!(kept.mean(&values), anew.mean(&values));
    }

    #[test]
    fn wilcoxon_is_that_of_scipy() {
        // scipy.stats.wilcoxon(differences), SciPy 1.17.1: statistic of the sign +, and p-value.
        let terms = |n: u32| -> Vec<f64> {
            let term = |i: u32| (f64::from(i * 37 % 101) - 40.25) / 101.0 + f64::from(i) * 1e-3;
            (0..n).map(term).collect()
        };
        let check = |n, statistic: f64, p_value: f64| {
            let found = SignedRank::of(&terms(n));
            assert_eq!((found.pairs, found.rank_sum), (n as usize, statistic));
            near(found.p_value, p_value);
        };
        check(3, 2.0, 0.75);
        check(8, 19.0, 0.9453125);
        check(14, 63.0, 0.5416259765625);
        check(30, 309.0, 0.11907656863331795);
        check(50, 894.0, 0.012568191503659065);
        check(51, 923.0, 0.014805527604052654);
        check(120, 5428.0, 2.4926909861471012e-06);
        // Rounded, so that there are ties and zeros.
        let rounded: Vec<f64> = terms(120).iter().map(|d| (d * 10.0).round() / 10.0).collect();
        let found = SignedRank::of(&rounded);
        assert_eq!(found.rank_sum, 4613.5);
        near(found.p_value, 9.253731389055614e-07);
    }

    #[test]
    fn ties_are_counted_out() {
        // Ranks 2, 2, 2, 4; the sum of none is reached in one of 16 ways, and so is that of all.
        near(SignedRank::of(&[1.0, 1.0, 1.0, 3.0]).p_value, 2.0 / 16.0);
        // Sums 0, 2, 2, 2 lie at or below 2.
        near(SignedRank::of(&[1.0, -1.0, -1.0, -3.0]).p_value, 8.0 / 16.0);
        let none = SignedRank::of(&[0.0, f64::NAN]);
        assert_eq!((none.pairs, none.p_value), (0, 1.0));
    }

    #[test]
    fn holms_correction() {
        let found = holm(&[0.01, f64::NAN, 0.04, 0.03]);
        near(found[0], 0.03);
        near(found[2], 0.06);
        near(found[3], 0.06);
        assert!(found[1].is_nan());
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
