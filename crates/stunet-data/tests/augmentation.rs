//! Chance, held against the reference's distributions: how often each transform fires, and how its
//! parameters are spread. Seeds are fixed, so the outcome is too; the bounds are those of chance.
#![allow(missing_docs, clippy::disallowed_macros, clippy::unwrap_used)]

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use std::collections::BTreeMap;
use std::f64::consts::PI;
use stunet_data::augment::{Augmentation, AugmentationParams};
use stunet_data::sample::{ClassLocations, PatchSampler};

const DRAWS: usize = 30_000;
const CHANNELS: usize = 2;
/// Standard deviations from the mean of a binomial: once in some 1.7 million.
const Z: f64 = 5.0;
/// Kolmogorov's statistic, times the root of the number of values: once in some 30 thousand.
const KOLMOGOROV: f64 = 2.35;

fn check_rate(what: &str, hits: usize, trials: usize, probability: f64) {
    let n = trials as f64;
    let expected = n * probability;
    let bound = Z * (n * probability * (1.0 - probability)).sqrt();
    println!("{what}: {hits} of {trials}, expected {expected:.0} within {bound:.0}");
    assert!(
        (hits as f64 - expected).abs() <= bound,
        "{what}: expected {expected:.0} +- {bound:.0} of {trials}, found {hits}"
    );
}

fn check_spread(what: &str, mut values: Vec<f64>, distribution: Distribution) {
    let (low, high) = distribution.range();
    assert!(values.iter().all(|v| (low..=high).contains(v)), "{what} leaves {low}..{high}");
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = values.iter().enumerate().fold(0f64, |worst, (i, v)| {
        let f = distribution.below(*v);
        worst.max((f - i as f64 / n).abs()).max((f - (i + 1) as f64 / n).abs())
    });
    let statistic = distance * n.sqrt();
    println!("{what}: {n} values, Kolmogorov's statistic {statistic:.2} (bound {KOLMOGOROV})");
    assert!(statistic <= KOLMOGOROV, "{what}: {statistic}");
    assert!(n > 500.0, "{what}: too few values to tell");
}

#[derive(Clone, Copy)]
enum Distribution {
    Uniform(f64, f64),
    /// Half of it below 1 and half above.
    Halves(f64, f64),
}

impl Distribution {
    fn range(self) -> (f64, f64) {
        match self {
            Self::Uniform(low, high) | Self::Halves(low, high) => (low, high),
        }
    }

    /// Probability of a smaller value.
    fn below(self, v: f64) -> f64 {
        match self {
            Self::Uniform(low, high) => (v - low) / (high - low),
            Self::Halves(low, _) if v < 1.0 => 0.5 * (v - low) / (1.0 - low),
            Self::Halves(_, high) => 0.5 + 0.5 * (v - 1.0) / (high - 1.0),
        }
    }
}

/// What the reference draws, where the two recipes differ.
struct Reference {
    name: &'static str,
    augmentation: Augmentation,
    scale: Distribution,
    brightness: Distribution,
    max_angle: f64,
}

fn references() -> Vec<Reference> {
    use Distribution::{Halves, Uniform};
    let (cube, flat) = ([96, 96, 96], [20, 320, 256]);
    let v1 = |name, patch, max_angle| Reference {
        name,
        augmentation: Augmentation::v1(patch),
        scale: Halves(0.7, 1.4),
        brightness: Uniform(0.75, 1.25),
        max_angle,
    };
    let v2 = |name, patch, max_angle| Reference {
        name,
        augmentation: Augmentation::v2(patch),
        scale: Uniform(0.7, 1.4),
        brightness: Halves(0.75, 1.25),
        max_angle,
    };
    vec![
        v1("v1", cube, PI / 6.0),
        v1("v1 flat", flat, PI),
        v2("v2", cube, PI / 6.0),
        v2("v2 flat", flat, PI),
    ]
}

fn draws(augmentation: &Augmentation, seed: u64) -> Vec<AugmentationParams> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..DRAWS).map(|_| augmentation.sample(CHANNELS, &mut rng)).collect()
}

#[test]
fn rotation_scaling_noise_and_mirroring() {
    for (seed, reference) in references().into_iter().enumerate() {
        let draws = draws(&reference.augmentation, seed as u64);
        let name = reference.name;
        let count = |f: &dyn Fn(&AugmentationParams) -> bool| draws.iter().filter(|p| f(p)).count();
        let turned = |p: &AugmentationParams| p.spatial.angles.is_some();
        let scaled = |p: &AugmentationParams| p.spatial.scale.is_some();
        check_rate(&format!("{name} rotation"), count(&turned), DRAWS, 0.2);
        check_rate(&format!("{name} scaling"), count(&scaled), DRAWS, 0.2);
        let both = count(&|p| turned(p) && scaled(p));
        check_rate(&format!("{name} rotation and scaling, independently"), both, DRAWS, 0.04);
        let axes = if name.ends_with("flat") { 1 } else { 3 };
        for axis in 0..axes {
            let angles = draws.iter().filter_map(|p| p.spatial.angles).map(|a| a[axis]);
            let range = Distribution::Uniform(-reference.max_angle, reference.max_angle);
            check_spread(&format!("{name} angle {axis}"), angles.collect(), range);
        }
        let scales = draws.iter().filter_map(|p| p.spatial.scale).collect();
        check_spread(&format!("{name} scale"), scales, reference.scale);

        check_rate(&format!("{name} noise"), count(&|p| p.noise.is_some()), DRAWS, 0.1);
        let stds = draws.iter().filter_map(|p| p.noise).map(|n| n.std).collect();
        check_spread(&format!("{name} noise"), stds, Distribution::Uniform(0.0, 0.1));
        let seeds: std::collections::BTreeSet<u64> =
            draws.iter().filter_map(|p| p.noise).map(|n| n.seed).collect();
        assert_eq!(seeds.len(), count(&|p| p.noise.is_some()), "noise never repeats");
        for axis in 0..3 {
            let what = format!("{name} mirrored along {axis}");
            check_rate(&what, count(&|p| p.mirror[axis]), DRAWS, 0.5);
        }
        let all = count(&|p| p.mirror == [true; 3]);
        check_rate(&format!("{name} mirrored along all axes"), all, DRAWS, 0.125);
    }
}

/// Probability that it fires, and for each channel then; the spread of its values.
fn check_channels(
    what: &str,
    draws: &[AugmentationParams],
    values: impl Fn(&AugmentationParams) -> Vec<Option<f64>>,
    probabilities: (f64, f64),
    distribution: Distribution,
) {
    let fired: Vec<Vec<Option<f64>>> =
        draws.iter().map(values).filter(|channels| !channels.is_empty()).collect();
    assert!(fired.iter().all(|channels| channels.len() == CHANNELS), "{what}");
    check_rate(what, fired.len(), draws.len(), probabilities.0);
    for channel in 0..CHANNELS {
        let hit: Vec<f64> = fired.iter().filter_map(|channels| channels[channel]).collect();
        let name = format!("{what} in channel {channel}");
        if probabilities.1 == 1.0 {
            assert_eq!(hit.len(), fired.len(), "{name}");
        } else {
            check_rate(&name, hit.len(), fired.len(), probabilities.1);
        }
        check_spread(&name, hit, distribution);
    }
    let equal = fired.iter().filter(|c| c[0].is_some() && c[0] == c[1]).count();
    assert_eq!(equal, 0, "{what}: channels are drawn alone");
}

#[test]
fn intensity_transforms() {
    use Distribution::{Halves, Uniform};
    for (seed, reference) in references().into_iter().enumerate() {
        let draws = draws(&reference.augmentation, 100 + seed as u64);
        let check = |what: &str, values: &dyn Fn(&AugmentationParams) -> Vec<Option<f64>>, p, d| {
            check_channels(&format!("{} {what}", reference.name), &draws, values, p, d);
        };
        for axis in 0..3 {
            let sigma =
                move |p: &AugmentationParams| p.blur.iter().map(|s| s.map(|s| s[axis])).collect();
            check(&format!("blur along {axis}"), &sigma, (0.2, 0.5), Uniform(0.5, 1.0));
        }
        let one_sigma = reference.name.starts_with("v1");
        let mut sigmas = draws.iter().flat_map(|p| &p.blur).flatten();
        assert!(sigmas.all(|s| (s[0] == s[1] && s[1] == s[2]) == one_sigma));
        check("brightness", &|p| p.brightness.clone(), (0.15, 1.0), reference.brightness);
        check("contrast", &|p| p.contrast.clone(), (0.15, 1.0), Halves(0.75, 1.25));
        check("low resolution", &|p| p.low_resolution.clone(), (0.25, 0.5), Uniform(0.5, 1.0));
        check("inverted gamma", &|p| p.gamma_inverted.clone(), (0.1, 1.0), Halves(0.7, 1.5));
        check("gamma", &|p| p.gamma.clone(), (0.3, 1.0), Halves(0.7, 1.5));
    }
}

/// A transform's name, its probability, and whether it fired.
type Firing = (&'static str, f64, fn(&AugmentationParams) -> bool);

/// Each pair of transforms fires together as often as chance has it.
#[test]
fn transforms_fire_independently() {
    for (seed, reference) in references().into_iter().enumerate() {
        let draws = draws(&reference.augmentation, 200 + seed as u64);
        let fires: [Firing; 8] = [
            ("spatial", 0.36, |p| !p.spatial.is_identity()),
            ("noise", 0.1, |p| p.noise.is_some()),
            ("blur", 0.2, |p| !p.blur.is_empty()),
            ("brightness", 0.15, |p| !p.brightness.is_empty()),
            ("contrast", 0.15, |p| !p.contrast.is_empty()),
            ("low resolution", 0.25, |p| !p.low_resolution.is_empty()),
            ("inverted gamma", 0.1, |p| !p.gamma_inverted.is_empty()),
            ("gamma", 0.3, |p| !p.gamma.is_empty()),
        ];
        for (i, a) in fires.iter().enumerate() {
            for b in &fires[i + 1..] {
                let both = draws.iter().filter(|p| a.2(p) && b.2(p)).count();
                let what = format!("{} {} and {}", reference.name, a.0, b.0);
                check_rate(&what, both, DRAWS, a.1 * b.1);
            }
        }
    }
}

/// Free crops are spread evenly over all places, forced ones over classes and their voxels.
#[test]
fn places_of_crops() {
    let sampler = PatchSampler::new([10, 12, 14], [6, 6, 14]);
    let shape = [20, 9, 30];
    let locations = ClassLocations::new(BTreeMap::from([
        (1, vec![[1, 2, 3]]),
        (7, (0..20).map(|x| [5, 5, x]).collect()),
    ]));
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let free: Vec<_> =
        (0..DRAWS).map(|_| sampler.sample(shape, &locations, false, &mut rng)).collect();
    for (axis, (low, high)) in sampler.bounds(shape).into_iter().enumerate() {
        let places = (high - low + 1) as f64;
        for place in low..=high {
            let hits = free.iter().filter(|p| p.lower[axis] == place).count();
            check_rate(&format!("axis {axis} at {place}"), hits, DRAWS, 1.0 / places);
        }
    }
    let forced: Vec<_> =
        (0..DRAWS).map(|_| sampler.sample(shape, &locations, true, &mut rng)).collect();
    let small = forced.iter().filter(|p| p.class == Some(1)).count();
    check_rate("class 1 of one voxel", small, DRAWS, 0.5);
    for x in 8..20 {
        let hits = forced.iter().filter(|p| p.class == Some(7) && p.lower[2] == x - 7).count();
        check_rate(&format!("voxel {x} of class 7"), hits, DRAWS, 0.5 / 20.0);
    }
}
