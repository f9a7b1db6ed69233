//! NumPy's statistics to the last bit: which sums are taken in which order and precision.

use crate::numpy_random::RandomState;
use crate::reference::Percentiles;
use rayon::prelude::*;
use std::borrow::BorrowMut;
use std::ops::{Add, Mul, Sub};

/// A precision NumPy computes in.
pub(crate) trait Real:
    Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Into<f64>
{
    fn of_f32(value: f32) -> Self;
    fn of_f64(value: f64) -> Self;
}

impl Real for f32 {
    fn of_f32(value: f32) -> Self {
        value
    }
    fn of_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn of_f32(value: f32) -> Self {
        value.into()
    }
    fn of_f64(value: f64) -> Self {
        value
    }
}

/// Draws with replacement: kept, or where the values are fewer than the draws, drawn again.
#[derive(Clone, Debug)]
pub(crate) enum Draws {
    Kept(Vec<f32>),
    Redrawn { values: Vec<f32>, counts: Vec<u32>, random: RandomState, count: usize },
}

impl Draws {
    /// Draws `count` of `values` and leaves `random` behind the last draw; nothing of nothing.
    pub fn new(values: Vec<f32>, count: usize, random: &mut RandomState) -> Self {
        if values.is_empty() {
            return Self::Kept(values);
        }
        let start = random.clone();
        let mut drawn = Indices { random, n: values.len(), left: count, block: Vec::new(), at: 0 };
        if values.len() >= count {
            return Self::Kept(drawn.map(|i| values[i]).collect());
        }
        let mut counts = vec![0; values.len()];
        drawn.by_ref().for_each(|i| counts[i] += 1);
        Self::Redrawn { values, counts, random: start, count }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Kept(values) => values.len(),
            Self::Redrawn { count, .. } => *count,
        }
    }

    fn iter(&self) -> Walk<'_> {
        match self {
            Self::Kept(values) => Walk::Kept(values.iter()),
            Self::Redrawn { values, random, count, .. } => {
                let (random, n, left) = (random.clone(), values.len(), *count);
                Walk::Redrawn(values, Indices { random, n, left, block: Vec::new(), at: 0 })
            }
        }
    }

    /// Adds every value with the number of its draws.
    fn count_into(&self, counted: &mut Vec<(f32, u64)>) {
        match self {
            Self::Kept(values) => {
                let mut sorted = values.clone();
                sorted.sort_unstable_by(f32::total_cmp);
                let runs = sorted.chunk_by(|a, b| a == b);
                counted.extend(runs.map(|run| (run[0], run.len() as u64)));
            }
            Self::Redrawn { values, counts, .. } => {
                let drawn = values.iter().zip(counts).filter(|(_, n)| **n > 0);
                counted.extend(drawn.map(|(value, n)| (*value, u64::from(*n))));
            }
        }
    }
}

/// Drawn indices, a block at a time.
struct Indices<R> {
    random: R,
    n: usize,
    left: usize,
    block: Vec<u32>,
    at: usize,
}

impl<R: BorrowMut<RandomState>> Iterator for Indices<R> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        const BLOCK: usize = 4096;
        if self.at == self.block.len() {
            self.block.resize(self.left.min(BLOCK), 0);
            self.left -= self.block.len();
            self.at = 0;
            self.random.borrow_mut().fill_below(self.n, &mut self.block);
        }
        let index = *self.block.get(self.at)? as usize;
        self.at += 1;
        Some(index)
    }
}

/// The draws of one case, in order.
enum Walk<'a> {
    Kept(std::slice::Iter<'a, f32>),
    Redrawn(&'a [f32], Indices<RandomState>),
}

impl Iterator for Walk<'_> {
    type Item = f32;

    #[inline]
    fn next(&mut self) -> Option<f32> {
        match self {
            Self::Kept(values) => values.next().copied(),
            Self::Redrawn(values, indices) => indices.next().map(|i| values[i]),
        }
    }
}

/// Every value of every case, in order.
fn values(draws: &[Draws]) -> impl Iterator<Item = f32> {
    draws.iter().flat_map(Draws::iter)
}

/// Statistics of one channel's foreground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub mean: f64,
    pub std: f64,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub percentile_00_5: f64,
    pub percentile_99_5: f64,
}

/// Statistics of all draws, computed in precision `T`; none without draws.
pub(crate) fn summary<T: Real>(draws: &[Draws], percentiles: Percentiles) -> Option<Summary> {
    let count: usize = draws.iter().map(Draws::len).sum();
    let mut counted = Vec::new();
    draws.iter().for_each(|d| d.count_into(&mut counted));
    counted.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (min, max) = (counted.first()?.0, counted.last()?.0);

    let over_count = |sum: T| T::of_f64(sum.into() / count as f64);
    let mean = over_count(pairwise_sum(&mut values(draws).map(T::of_f32), count));
    let squares = &mut values(draws).map(|v| {
        let difference = T::of_f32(v) - mean;
        difference * difference
    });
    let variance = over_count(pairwise_sum(squares, count));

    let sorted = Sorted { counted, count };
    let percentile = |fraction| sorted.percentile::<T>(fraction, percentiles);
    Some(Summary {
        mean: mean.into(),
        std: T::of_f64(variance.into().sqrt()).into(),
        median: match percentiles {
            Percentiles::Double => percentile(0.5),
            _ => sorted.median::<T>(),
        },
        min: min.into(),
        max: max.into(),
        percentile_00_5: percentile(0.5 / 100.0),
        percentile_99_5: percentile(99.5 / 100.0),
    })
}

/// The next `count` values summed as NumPy sums a contiguous array: halves of halves down to 128
/// values, which eight partial sums take in turn.
///
/// # Source
/// NumPy's `pairwise_sum` (`loops_utils.h.src`).
fn pairwise_sum<T: Real>(values: &mut impl Iterator<Item = T>, count: usize) -> T {
    /// Longest stretch that is summed in a row.
    const STRETCH: usize = 128;
    let mut next = || values.next().expect("there are `count` values");
    if count < 8 {
        return (0..count).fold(T::of_f64(0.0), |sum, _| sum + next());
    }
    if count <= STRETCH {
        let mut partial: [T; 8] = std::array::from_fn(|_| next());
        for _ in 1..count / 8 {
            partial.iter_mut().for_each(|sum| *sum = *sum + next());
        }
        let [a, b, c, d, e, f, g, h] = partial;
        let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
        return (0..count % 8).fold(sum, |sum, _| sum + next());
    }
    let half = count / 2 - count / 2 % 8;
    let first = pairwise_sum(values, half);
    first + pairwise_sum(values, count - half)
}

/// Values in order, each with the number of times it occurs.
struct Sorted {
    counted: Vec<(f32, u64)>,
    count: usize,
}

impl Sorted {
    fn at<T: Real>(&self, index: usize) -> T {
        let mut behind = 0;
        let found = self.counted.iter().find(|(_, n)| {
            behind += n;
            index < behind as usize
        });
        T::of_f32(found.expect("indices are below the count").0)
    }

    fn median<T: Real>(&self) -> f64 {
        let upper: T = self.at(self.count / 2);
        if self.count % 2 == 1 {
            return upper.into();
        }
        let sum: f64 = (self.at::<T>(self.count / 2 - 1) + upper).into();
        T::of_f64(sum / 2.0).into()
    }

    fn percentile<T: Real>(&self, fraction: f64, percentiles: Percentiles) -> f64 {
        let last = self.count - 1;
        let place = last as f64 * fraction;
        let below = (place as usize).min(last);
        let weight = place - below as f64;
        let (a, b): (T, T) = (self.at(below), self.at((below + 1).min(last)));
        if percentiles == Percentiles::SingleWithMedian {
            return between(a, b, T::of_f64(weight), T::of_f64(1.0 - weight), weight >= 0.5).into();
        }
        let difference: f64 = (b - a).into();
        let (a, b): (f64, f64) = (a.into(), b.into());
        if weight >= 0.5 { b - difference * (1.0 - weight) } else { a + difference * weight }
    }
}

/// Between `a` and `b`, reckoned from the nearer one.
fn between<T: Real>(a: T, b: T, weight: T, rest: T, nearer_b: bool) -> T {
    if nearer_b { b - (b - a) * rest } else { a + (b - a) * weight }
}

/// Linear percentile of a few numbers: `numpy.percentile(values, 100 * fraction)`.
pub(crate) fn percentile_of(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let place = last as f64 * fraction;
    let below = (place as usize).min(last);
    let weight = place - below as f64;
    let (a, b) = (sorted[below], sorted[(below + 1).min(last)]);
    between(a, b, weight, 1.0 - weight, weight >= 0.5)
}

/// `numpy.median` of a few numbers.
pub(crate) fn median_of(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = sorted[sorted.len() / 2];
    match sorted.len() % 2 {
        1 => upper,
        _ => (sorted[sorted.len() / 2 - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    //! Expected values: NumPy 2.4.6.
    use super::*;

    fn drawn(seed: u32, n: usize, count: usize) -> Vec<f32> {
        let scale = f64::from(0.37f32);
        let indices = RandomState::new(seed).choice(n, count, true);
        indices.into_iter().map(|i| (i as f64 * scale - 100.0) as f32).collect()
    }

    fn check<T: Real>(draws: &[Draws], percentiles: Percentiles, expected: [f64; 5]) {
        let s = summary::<T>(draws, percentiles).unwrap();
        let found = [s.mean, s.std, s.median, s.percentile_00_5, s.percentile_99_5];
        assert_eq!(found, expected);
    }

    #[test]
    fn sums_and_percentiles_to_the_last_bit() {
        use Percentiles::{Double, DoubleWithMedian, SingleWithMedian};
        let all = drawn(5, 1000, 12345);
        let draws = |n: usize| [Draws::Kept(all[..n].to_vec())];
        let (mean, std) = (82.625_770_568_847_66, 105.930_763_244_628_9);
        let (median, high) = (81.670_005_798_339_84, 267.410_003_662_109_4);
        let single = [mean, std, median, -98.253_601_074_218_75, high];
        check::<f32>(&draws(12345), SingleWithMedian, single);
        let double = [mean, std, median, -98.253_600_158_691_41, high];
        check::<f32>(&draws(12345), Double, double);
        check::<f32>(&draws(12345), DoubleWithMedian, double);
        let wide = [82.625_768_326_650_8, 105.930_764_953_714_15];
        let wide = [wide[0], wide[1], median, -98.253_600_158_691_41, high];
        check::<f64>(&draws(12345), SingleWithMedian, wide);
        let seven = [77.758_567_810_058_6, 128.560_394_287_109_38, 48.0];
        let seven = [seven[0], seven[1], seven[2], -72.490_501_403_808_6, 267.805_908_203_125];
        check::<f32>(&draws(7), SingleWithMedian, seven);
        let stretch = [80.070_465_087_890_62, 116.017_204_284_667_97, 65.575_004_577_636_72];
        let stretch =
            [stretch[0], stretch[1], stretch[2], -97.434_051_132_202_14, 269.630_004_882_812_5];
        check::<f32>(&draws(130), Double, stretch);
        assert!(summary::<f32>(&[], Double).is_none());
    }

    #[test]
    fn draws_are_kept_or_drawn_again() {
        let values = drawn(5, 1000, 12345);
        let expected = [
            78.147_148_132_324_22,
            115.729_454_040_527_34,
            67.240_005_493_164_06,
            -98.150_001_525_878_9,
            269.630_004_882_812_5,
        ];
        let draws =
            |values: &[f32]| Draws::new(values.to_vec(), 100_000, &mut RandomState::new(1234));
        let redrawn = [draws(&values), draws(&values[..50])];
        assert!(redrawn.iter().all(|d| matches!(d, Draws::Redrawn { .. })));
        let kept = redrawn.clone().map(|d| Draws::Kept(d.iter().collect()));
        for draws in [&redrawn, &kept] {
            check::<f32>(draws, Percentiles::Double, expected);
        }
    }

    #[test]
    fn the_stream_goes_on_behind_the_draws() {
        for count in [3, 300] {
            let (mut a, mut b) = (RandomState::new(9), RandomState::new(9));
            let values = drawn(5, 40, 100);
            let draws = Draws::new(values.clone(), count, &mut a);
            let expected: Vec<f32> =
                b.choice(100, count, true).into_iter().map(|i| values[i]).collect();
            assert_eq!(draws.iter().collect::<Vec<_>>(), expected);
            assert_eq!(a.below(1 << 20), b.below(1 << 20));
        }
    }

    #[test]
    fn a_few_numbers() {
        let spacings = [3.0, 2.5, 5.0, 0.7];
        assert_eq!(percentile_of(&spacings, 0.5), 2.75);
        assert_eq!(percentile_of(&spacings, 0.1), 0.7 + (2.5 - 0.7) * (3.0 * 0.1));
        assert_eq!(percentile_of(&[4.0], 0.1), 4.0);
        assert_eq!((median_of(&spacings), median_of(&spacings[..3])), (2.75, 3.0));
    }
}
