//! Properties of whole recipes, on small volumes.

use super::*;
use crate::reference::Reference::{self, NnUNetV1 as V1, NnUNetV28 as V2};
use chacha20::ChaCha8Rng;
use ndarray::s;
use proptest::prelude::*;
use rand::SeedableRng;

fn spatial_of(reference: Reference) -> Spatial {
    Spatial::of(reference.conventions().training.augmentation, false)
}

/// Two channels and some labels, -1 and a large one among them.
fn case(shape: [usize; 3]) -> (Array4<f32>, Array3<i16>) {
    let [z, y, x] = shape;
    let values = stunet_testing::prng::uniform(3, 0, 2 * z * y * x);
    let blobs = |((z, y, x), _): ((usize, usize, usize), &i16)| {
        [-1, 0, 3, 104][(z / 4 + y / 5 + x / 6) % 4]
    };
    let labels = Array3::<i16>::zeros(shape);
    let labels: Vec<i16> = labels.indexed_iter().map(blobs).collect();
    (
        Array4::from_shape_vec([2, z, y, x], values).unwrap(),
        Array3::from_shape_vec(shape, labels).unwrap(),
    )
}

fn recipes(patch: [usize; 3]) -> [Augmentation; 3] {
    [Augmentation::v1(patch), Augmentation::v2(patch), Augmentation::none(patch)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is drawn, wherever the crop lies: shapes fit, values are finite, labels are known.
    #[test]
    fn patches_are_well_formed(
        seed in any::<u64>(),
        patch in prop::sample::select(vec![[8, 10, 12], [9, 7, 5], [3, 14, 10], [1, 6, 8]]),
        lower in prop::array::uniform3(-20isize..20),
        shape in prop::sample::select(vec![[20, 22, 24], [7, 9, 30], [3, 3, 3]]),
    ) {
        let (image, labels) = case(shape);
        let crop = Crop { image: image.view(), labels: labels.view(), lower };
        for recipe in recipes(patch) {
            let recipe = recipe.with_masked_channels(vec![true, false]);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for _ in 0..4 {
                let params = recipe.sample(2, &mut rng);
                let found = recipe.apply(&params, &crop);
                prop_assert_eq!(&found.image.shape()[1..], &patch[..]);
                prop_assert_eq!(found.labels.shape(), &patch[..]);
                prop_assert!(found.image.iter().all(|v| v.is_finite()), "{:?}", params);
                prop_assert!(found.labels.iter().all(|l| [0, 3, 104].contains(l)));
                prop_assert_eq!(&found, &recipe.apply(&params, &crop), "apply is pure");
            }
        }
    }

    #[test]
    fn mirroring_twice_is_the_identity(axes in prop::array::uniform3(any::<bool>())) {
        let (image, labels) = case([5, 7, 11]);
        let once = mirror_image(image.clone(), axes);
        prop_assert!(once.is_standard_layout());
        prop_assert_eq!(once == image, axes == [false; 3]);
        prop_assert_eq!(mirror_image(once, axes), image);
        prop_assert_eq!(mirror_labels(mirror_labels(labels.clone(), axes), axes), labels);
    }

    /// A turn there and back again, in the smooth part of a volume.
    #[test]
    fn turning_back_restores(angle in 0.05..0.5f64, axis in 0usize..3) {
        let n = 28;
        let smooth = |(_, z, y, x): (usize, usize, usize, usize)| {
            ((z as f32) * 0.21).sin() + ((y as f32) * 0.17).cos() * ((x as f32) * 0.13).sin()
        };
        let image = Array4::from_shape_fn([1, n, n, n], smooth);
        let labels = Array3::zeros([n; 3]);
        let turn = |image: &Array4<f32>, angle: f64| {
            let mut angles = [0.0; 3];
            angles[axis] = angle;
            let params = SpatialParams { angles: Some(angles), scale: None };
            let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
            transform(&spatial_of(V1), &params, &crop, [n; 3], [n; 3]).0
        };
        let back = turn(&turn(&image, angle), -angle);
        let middle = s![.., 9..19, 9..19, 9..19];
        let worst = (&back.slice(middle) - &image.slice(middle)).fold(0f32, |m, d| m.max(d.abs()));
        prop_assert!(worst < 2e-2, "{worst}");
    }
}

/// A flat patch turns within its slices: each as if it were alone.
#[test]
fn slices_are_transformed_alone() {
    let patch = [3, 14, 12];
    for recipe in [Augmentation::v1(patch), Augmentation::v2(patch)] {
        let spatial = recipe.transforms().spatial;
        assert!(spatial.slice_by_slice);
        let [z, y, x] = recipe.crop_size();
        assert_eq!(z, 3);
        let (image, labels) = case([z, y, x]);
        let params = SpatialParams { angles: Some([2.1, 0.0, 0.0]), scale: Some(0.8) };
        let run = |image: ndarray::ArrayView4<'_, f32>, labels: ndarray::ArrayView3<'_, i16>| {
            let depth = labels.shape()[0];
            let crop = Crop { image, labels, lower: [0; 3] };
            transform(&spatial, &params, &crop, [depth, y, x], [depth, 14, 12])
        };
        let (all, all_labels) = run(image.view(), labels.view());
        for i in 0..z {
            let one = run(image.slice(s![.., i..=i, .., ..]), labels.slice(s![i..=i, .., ..]));
            assert_eq!(all.slice(s![.., i..=i, .., ..]), one.0);
            assert_eq!(all_labels.slice(s![i..=i, .., ..]), one.1);
        }
    }
}

/// The part of a crop that is read is enough: voxels out of reach make no difference.
#[test]
fn what_is_not_read_does_not_matter() {
    let (patch, crop_size) = ([10; 3], [70; 3]);
    let (image, labels) = case(crop_size);
    let mut other = Array4::from_elem(image.raw_dim(), 9e3);
    let near = s![.., 5..65, 5..65, 5..65];
    other.slice_mut(near).assign(&image.slice(near));
    let params = SpatialParams { angles: Some([0.5, -0.4, 0.3]), scale: Some(1.2) };
    for flavour in [V1, V2] {
        let run = |image: &Array4<f32>| {
            let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
            transform(&spatial_of(flavour), &params, &crop, crop_size, patch)
        };
        assert_eq!(run(&image), run(&other));
    }
}

/// An ordinary volume has the same spline whether all of it or only the reachable part is filtered.
#[test]
fn the_horizon_is_far_enough() {
    let crop_size = [64; 3];
    let (image, labels) = case(crop_size);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
    let params = SpatialParams { angles: Some([0.5, -0.4, 0.3]), scale: None };
    let spatial = spatial_of(V1);
    let (part, _) = transform(&spatial, &params, &crop, crop_size, [8; 3]);
    let (whole, _) = transform(&spatial, &params, &crop, crop_size, [64; 3]);
    let middle = whole.slice(s![.., 28..36, 28..36, 28..36]);
    let worst = (&part - &middle).fold(0f32, |m, d| m.max(d.abs()));
    assert!(worst < 3e-6, "{worst:e}");
}

/// In the middle between two labels the larger one wins in v1; the share decides in v2.
#[test]
fn shares_of_labels() {
    let labels = Array3::from_shape_fn([5, 5, 6], |(_, _, x)| if x < 3 { 7 } else { 2 });
    let image = Array4::zeros([1, 5, 5, 6]);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
    // A patch of odd length in a crop of even length looks between the voxels.
    let params = SpatialParams { angles: Some([0.0; 3]), scale: None };
    let row = |flavour| {
        let spatial = spatial_of(flavour);
        let (_, found) = transform(&spatial, &params, &crop, [5, 5, 6], [1, 1, 5]);
        found.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(row(V1), [7, 7, 7, 2, 2]);
    assert_eq!(row(V2), [7, 7, 7, 2, 2], "the nearest (even) voxel settles the tie");
}

/// Beyond the crop: no label in v1, the padding's label in v2, which is removed in the end.
#[test]
fn beyond_the_crop() {
    let labels = Array3::from_elem([6; 3], 5);
    let image = Array4::ones([1, 6, 6, 6]);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
    let params = SpatialParams { angles: None, scale: Some(1.4) };
    for (flavour, outside) in [(V1, 0), (V2, -1)] {
        let spatial = spatial_of(flavour);
        let (image, found) = transform(&spatial, &params, &crop, [6; 3], [6; 3]);
        assert_eq!(found[[0, 0, 0]], outside);
        assert_eq!(found[[3, 3, 3]], 5);
        assert!(image[[0, 0, 0, 0]].abs() < 1e-6);
        assert!((image[[0, 3, 3, 3]] - 1.0).abs() < 1e-5);
    }
}

#[test]
fn masked_channels_are_zero_outside_the_nonzero_region() {
    let (image, labels) = case([8, 9, 10]);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
    let recipe = Augmentation::none([8, 9, 10]).with_masked_channels(vec![true, false]);
    let found = recipe.apply(&AugmentationParams::default(), &crop);
    for ((z, y, x), label) in labels.indexed_iter() {
        let masked = if *label == -1 { 0.0 } else { image[[0, z, y, x]] };
        assert_eq!(found.image[[0, z, y, x]], masked);
        assert_eq!(found.image[[1, z, y, x]], image[[1, z, y, x]]);
        assert_eq!(found.labels[[z, y, x]], (*label).max(0));
    }
}

/// A patch whose channels are constant survives every transform.
#[test]
fn constant_images_stay_finite() {
    let image = Array4::from_elem([1, 12, 12, 12], 2.5);
    let labels = Array3::zeros([12; 3]);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
    for recipe in [Augmentation::v1([8; 3]), Augmentation::v2([8; 3])] {
        for exponent in [0.7, 1.5] {
            let params = AugmentationParams {
                gamma: vec![Some(exponent)],
                gamma_inverted: vec![Some(exponent)],
                contrast: vec![Some(1.2)],
                ..AugmentationParams::default()
            };
            let found = recipe.apply(&params, &crop);
            let far = found.image.iter().fold(0f32, |m, v| m.max((v - 2.5).abs()));
            assert!(far < 1e-4, "{far}");
        }
    }
}

/// Steps of one's own draw from streams of their own: the others are drawn as without them.
#[test]
fn own_steps_leave_the_others_alone() {
    #[derive(Debug)]
    struct Shift;
    impl PatchTransform for Shift {
        fn describe(&self) -> String {
            "shift".to_owned()
        }
        fn apply(&self, mut patch: PatchViewMut<'_>, rng: &mut PatchRng) {
            patch.image += rng.random_range(10.0f32..20.0);
            patch.labels.mapv_inplace(|l| if l == 104 { 3 } else { l });
        }
    }
    let stock = Augmentation::v1([8; 3]);
    let end = stock.steps().iter().cloned();
    let first =
        [AugmentationStep::Spatial, AugmentationStep::own(Shift), AugmentationStep::own(Shift)];
    let last = end.clone().chain([AugmentationStep::own(Shift)]);
    let rest = end.skip(1);
    let twice = stock.clone().with_steps(first.into_iter().chain(rest)).unwrap();
    let last = stock.clone().with_steps(last).unwrap();
    let (image, labels) = case([20, 22, 24]);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [2; 3] };
    for seed in 0..20 {
        let draw = |recipe: &Augmentation| recipe.sample(2, &mut ChaCha8Rng::seed_from_u64(seed));
        let [plain, once, both] = [&stock, &last, &twice].map(draw);
        let without =
            |params: &AugmentationParams| AugmentationParams { own: vec![], ..params.clone() };
        assert_eq!(without(&once), plain);
        assert_eq!(without(&both), plain);
        assert!(both.own.len() == 2 && both.own[0] != both.own[1] && both.own[0] == once.own[0]);
        let (before, after) = (stock.apply(&plain, &crop), last.apply(&once, &crop));
        let shift = after.image[[0, 0, 0, 0]] - before.image[[0, 0, 0, 0]];
        assert!((10.0..20.0).contains(&shift));
        let apart = (&after.image - &before.image).fold(0f32, |m, d| m.max((d - shift).abs()));
        assert!(apart < 1e-5, "{apart}");
        assert_eq!(after.labels, before.labels.mapv(|l| if l == 104 { 3 } else { l }));
        assert_eq!(after, last.apply(&once, &crop), "apply is pure");
        // Parameters without seeds leave the steps out.
        assert_eq!(last.apply(&plain, &crop), before);
    }
}

#[test]
fn steps_are_removed_and_reordered() {
    let stock = Augmentation::v2([8; 3]);
    let few =
        stock.clone().with_steps([AugmentationStep::Mirror, AugmentationStep::Gamma]).unwrap();
    assert_eq!(few.crop_size(), [8; 3], "nothing turns");
    let always = Transforms {
        gamma: Gamma { probability: 1.0, ..stock.transforms().gamma },
        mirror: Mirror { probabilities: [1.0; 3] },
        ..*stock.transforms()
    };
    let few = few.with_transforms(always).unwrap();
    let params = few.sample(1, &mut ChaCha8Rng::seed_from_u64(1));
    let drawn =
        AugmentationParams { mirror: [true; 3], gamma: params.gamma.clone(), ..Default::default() };
    assert!(params == drawn && params.gamma[0].is_some());
    // In which order, noise and contrast tell.
    let (image, labels) = case([8; 3]);
    let crop = Crop { image: image.view(), labels: labels.view(), lower: [0; 3] };
    let params = AugmentationParams {
        noise: Some(NoiseParams { std: 0.5, seed: 3 }),
        contrast: vec![Some(1.25), Some(0.75)],
        ..Default::default()
    };
    let ordered = |second: AugmentationStep, third: AugmentationStep| {
        let recipe = stock.clone().with_steps([AugmentationStep::Spatial, second, third]).unwrap();
        recipe.apply(&params, &crop)
    };
    let one = ordered(AugmentationStep::Noise, AugmentationStep::Contrast);
    let other = ordered(AugmentationStep::Contrast, AugmentationStep::Noise);
    assert_eq!(one, stock.apply(&params, &crop), "noise comes first in the reference");
    assert_ne!(one, other);
}

#[test]
fn recipes_are_described() {
    let stock = Augmentation::v1([8; 3]);
    assert_eq!(stock.describe(), "nnU-Net 1");
    assert_eq!(Augmentation::v2([1, 40, 40]).describe(), "nnU-Net 2");
    assert_eq!(Augmentation::none([8; 3]).describe(), "none");
    let other = Transforms {
        noise: Noise { probability: 0.5, ..stock.transforms().noise },
        ..*stock.transforms()
    };
    let other = stock.with_transforms(other).unwrap();
    let few = other.with_steps([AugmentationStep::Gamma, AugmentationStep::Noise]).unwrap();
    assert_eq!(
        few.describe(),
        "nnU-Net 1: gamma, noise with Noise { probability: 0.5, std: (0.0, 0.1) }"
    );
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let stock = Augmentation::v1([8; 3]);
    let refused = |change: &dyn Fn(&mut Transforms), line: &str| {
        let mut transforms = *stock.transforms();
        change(&mut transforms);
        let error = stock.clone().with_transforms(transforms).unwrap_err().to_string();
        assert_eq!(error, line);
    };
    refused(
        &|t| t.gamma.probability = 1.5,
        "augmentation, gamma: expected a probability of 0 to 1, found 1.5",
    );
    refused(
        &|t| t.blur.per_channel = f64::NAN,
        "augmentation, blur per channel: expected a probability of 0 to 1, found NaN",
    );
    refused(
        &|t| t.noise.std = (0.2, 0.1),
        "augmentation, noise: expected a range from low to high, from 0, up to 1000000, found 0.2 to 0.1",
    );
    refused(
        &|t| t.contrast.factor = (0.5, 0.9),
        "augmentation, contrast: expected a range from low to high, above 0, up to 1000000, that ends \
         at 1 or above, found 0.5 to 0.9",
    );
    refused(
        &|t| t.low_resolution.scale = (0.5, 2.0),
        "augmentation, low resolution: expected a range from low to high, above 0, up to 1, found 0.5 \
         to 2",
    );
    let line =
        |steps: [AugmentationStep; 3]| stock.clone().with_steps(steps).unwrap_err().to_string();
    assert_eq!(
        line([AugmentationStep::Noise, AugmentationStep::Spatial, AugmentationStep::Gamma]),
        "augmentation, rotation and scaling: expected the first step, or none, found step 2"
    );
    assert_eq!(
        line([AugmentationStep::Noise, AugmentationStep::Gamma, AugmentationStep::Noise]),
        "augmentation, noise: expected once among the steps, found twice"
    );
}
