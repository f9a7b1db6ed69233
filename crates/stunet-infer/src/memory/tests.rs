//! Tiled and slabbed against the unslabbed path: whole arrays, every class restored in full.

use super::*;
use crate::export::{Decision, Extras, Restore};
use crate::mirror;
use crate::network::{Network, Outputs};
use crate::sliding_window::tests::{ALL, Apart, Fake, There, image, recipe, whole_volume};
use crate::sliding_window::{SlideReport, WindowSettings, slide_tiles};
use crate::volume::Volume;
use burn::tensor::Device;
use half::f16;
use ndarray::Array3;
use proptest::prelude::*;
use std::ops::ControlFlow;
use stunet_data::preprocess::Placement;

const CLASSES: usize = 3;

/// The reference's way: planes `[C, Y, X]` of the whole volume, every class restored in full, the
/// largest taken at the end.
fn unslabbed(
    planes: &[Vec<f32>],
    [height, width]: [usize; 2],
    taps: &[AxisTaps; 3],
    half: bool,
) -> Array3<u16> {
    let at =
        |c: usize, z: usize, y: usize, x: usize| f64::from(planes[z][(c * height + y) * width + x]);
    let mix = |a: f64, b: f64, w: f64| if w == 0.0 { a } else { a * (1.0 - w) + b * w };
    let shape = [0, 1, 2].map(|axis| taps[axis].len());
    Array3::from_shape_fn(shape, |(z, y, x)| {
        let [(z0, z1, wz), (y0, y1, wy), (x0, x1, wx)] = [(0, z), (1, y), (2, x)]
            .map(|(a, i)| (taps[a].lower[i], taps[a].upper[i], taps[a].weight_upper[i]));
        let mut best = (0, f32::NEG_INFINITY);
        for c in 0..CLASSES {
            let along_z = |y: usize, x: usize| mix(at(c, z0, y, x), at(c, z1, y, x), wz);
            let line = |x: usize| mix(along_z(y0, x), along_z(y1, x), wy);
            let value = line(x0) * (1.0 - wx) + line(x1) * wx;
            let value = if half { f16::from_f64(value).to_f32() } else { value as f32 };
            if value > best.1 {
                best = (c as u16, value);
            }
        }
        best.0
    })
}

fn restored(
    fakes: &[impl Network],
    shape: [usize; 3],
    recipe: &WindowSettings,
    taps: &[AxisTaps; 3],
    tiles: &[Tile],
) -> (Array3<u16>, SlideReport) {
    let half = recipe.effective_accumulation() == Accumulation::F16;
    let decision = Decision::Largest { labels: (0..CLASSES as u16).collect() };
    let place = Placement::whole([0, 1, 2].map(|axis| taps[axis].len()));
    let mut restore = Restore::new(taps.clone(), half, decision, place, Extras::default());
    let networks: Vec<&dyn Network> = fakes.iter().map(|fake| fake as &dyn Network).collect();
    // Layers that are given up one by one: what is read after that panics.
    let volume = Volume::in_layers(image(shape), 2);
    let report = slide_tiles(&networks, volume, recipe, tiles, &mut restore, &mut |_, _| {
        ControlFlow::Continue(())
    });
    (restore.finish().0.to_words(), report.unwrap())
}

fn needs<'a>(windows: &'a Windows, taps: &'a [AxisTaps; 3], recipe: &WindowSettings) -> Needs<'a> {
    Needs {
        windows,
        taps,
        num_classes: CLASSES,
        num_folds: 1,
        num_passes: mirror::passes(recipe.reference, &recipe.mirror_axes).len(),
        num_features: None,
        averages_features: false,
        accumulation: recipe.effective_accumulation(),
        window_bytes: 0,
        held: Held::default(),
        kept_weights: 0,
        device: None,
        stored: false,
        labels_only: false,
    }
}

fn taps(from: [usize; 3], to: [usize; 3], apart: usize) -> [AxisTaps; 3] {
    std::array::from_fn(|axis| match axis == apart {
        true => AxisTaps::nearest(from[axis], to[axis]),
        false => AxisTaps::linear(from[axis], to[axis]),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn slabs_and_tiles_equal_the_unslabbed_path(
        shape in [1usize..16, 1..16, 1..20],
        to in [1usize..24, 1..24, 1..24],
        window in [2usize..7, 2..7, 2..9],
        step in 0.3f64..1.0,
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 0..=2),
        apart in 0usize..6,
        share in 0.0f64..1.0,
        keep in proptest::sample::select(vec![Keep::Sums, Keep::Features, Keep::FeatureSums]),
    ) {
        let (reference, accumulation) = ALL[which];
        let recipe = WindowSettings { window, step_size: step, ..recipe(reference, accumulation, &axes) };
        let fakes = [Fake { classes: CLASSES, gain: 1.0 }];
        let taps = taps(shape, to, apart);
        let half = recipe.effective_accumulation() == Accumulation::F16;
        let planes = whole_volume(&fakes, shape, &recipe);
        // Elsewhere feature maps are kept, by another plan.
        let averaged = !half && recipe.averages(Outputs::Logits) == Outputs::Logits;
        prop_assume!(keep != Keep::FeatureSums || averaged);
        let expected = unslabbed(&planes, [shape[1], shape[2]], &taps, half);

        let windows = Windows::new(shape, window, step).unwrap();
        let needs = Needs { num_features: Some(CLASSES), ..needs(&windows, &taps, &recipe) };
        let whole = Tile::whole(shape, to);
        let most = needs.plan_for(keep, &whole, None).unwrap();
        prop_assert_eq!(most.tiles.len(), 1);
        let least = match needs.plan_for(keep, &whole, Some(0)).unwrap_err() {
            InferError::Memory { needed, .. } => needed,
            error => panic!("{error}"),
        };
        let allowed = least + ((most.sums_bytes - least) as f64 * share) as u64;
        let plan = needs.plan_for(keep, &whole, Some(allowed)).unwrap();
        prop_assert!(plan.sums_bytes <= allowed);
        let recipe = WindowSettings { keep, ..recipe };
        let apart = [Apart(Fake { classes: CLASSES, gain: 1.0 })];
        for plan in [most, plan] {
            let (found, report) = match keep {
                Keep::Features | Keep::FeatureSums => restored(&apart, shape, &recipe, &taps, &plan.tiles),
                _ => restored(&fakes, shape, &recipe, &taps, &plan.tiles),
            };
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(report.num_windows, plan.num_windows);
            prop_assert!(report.peak_bytes as u64 <= plan.sums_bytes, "{:?} {:?}", report, plan);
        }
    }

    #[test]
    fn tiles_cover_the_output_once(
        shape in [1usize..40, 1..40, 1..40],
        to in [1usize..50, 1..50, 1..50],
        share in 0.0f64..1.0,
        stored in any::<bool>(),
    ) {
        let recipe = recipe(ALL[0].0, ALL[0].1, &[]);
        let windows = Windows::new(shape, recipe.window, 0.5).unwrap();
        let taps = taps(shape, to, 3);
        let needs = Needs { stored, ..needs(&windows, &taps, &recipe) };
        let most = needs.plan(None).unwrap();
        let fixed = most.volume_bytes;
        let allowed = fixed + (most.sums_bytes as f64 * share) as u64;
        let plan = needs.plan(Some(allowed));
        // Too little for a single tile is refused; that is told of elsewhere.
        prop_assume!(plan.is_ok());
        let plan = plan.unwrap();
        let mut seen = Array3::<u8>::zeros([1, to[1], to[2]]);
        for tile in &plan.tiles {
            if stored {
                prop_assert_eq!(&tile.out_columns, &(0..to[2]));
                prop_assert_eq!(tile.out_rows.start % ROWS_PER_PIECE, 0);
            }
            let part = ndarray::s![.., tile.out_rows.clone(), tile.out_columns.clone()];
            seen.slice_mut(part).mapv_inplace(|n| n + 1);
        }
        prop_assert!(seen.iter().all(|n| *n == 1));
    }
}

/// What takes fewer windows is chosen, then what takes less memory.
#[test]
fn the_fewer_of_feature_maps_and_classes_are_kept() {
    let recipe = recipe(ALL[4].0, ALL[4].1, &[]);
    let (shape, to) = ([60, 300, 300], [41, 140, 200]);
    let (windows, taps) = (Windows::new(shape, recipe.window, 0.5).unwrap(), taps(shape, to, 3));
    let plan = |num_classes, features, allowed| {
        let num_features = Some(features);
        let needs = Needs { num_classes, num_features, ..needs(&windows, &taps, &recipe) };
        needs.plan(allowed).unwrap()
    };
    let (narrow, wide) = (plan(105, 4, None), plan(3, 64, None));
    assert_eq!((narrow.keep, wide.keep), (Keep::Features, Keep::Sums));
    // Sums would not fit in one go.
    let least = plan(105, 4, Some(narrow.sums_bytes));
    assert_eq!((least.keep, least.tiles.len()), (Keep::Features, 1));
}

#[test]
fn sums_on_the_device_leave_little_on_the_host() {
    let recipe = WindowSettings { keep: Keep::DeviceSums, ..recipe(ALL[4].0, ALL[4].1, &[0]) };
    let fake = Fake { classes: CLASSES, gain: 1.0 };
    let (shape, to) = ([33, 9, 17], [41, 14, 20]);
    let taps = taps(shape, to, 3);
    let expected = unslabbed(&whole_volume(&[fake], shape, &recipe), [9, 17], &taps, false);
    let windows = Windows::new(shape, recipe.window, 0.5).unwrap();
    let room = |bytes: u64| {
        let device = Device::flex();
        let (most_at_once, window_bytes, largest, taken_at_once) = (u64::MAX, None, None, 1);
        let device =
            DeviceRoom { bytes, most_at_once, window_bytes, largest, taken_at_once, device };
        let device = Some(device);
        Needs { device, ..needs(&windows, &taps, &recipe) }
    };
    let band = (2 * (CLASSES + 1) * recipe.window[0] * 9 * 17 * 4) as u64;
    let plan = room(band).plan(None).unwrap();
    assert_eq!((plan.device_bytes, plan.on_host), (band, None));
    let none = room(10).plan(None).unwrap();
    assert_eq!(none.device_bytes, 0);
    assert_eq!(none.on_host, Some(SumsOnHost::Room { needed: band, room: 10 }));
    let half = Needs { accumulation: Accumulation::F16, ..room(band) }.plan(None).unwrap();
    assert_eq!((half.device_bytes, half.on_host), (0, Some(SumsOnHost::HalfPrecision)));
    let there = [There(Fake { classes: CLASSES, gain: 1.0 })];
    let (found, report) = restored(&there, shape, &recipe, &taps, &plan.tiles);
    assert_eq!(found, expected);
    assert!(report.peak_bytes as u64 <= plan.sums_bytes, "{report:?} {plan:?}");

    // Too little for the whole, not for tiles of it, in which the labels are the same.
    let tiled = room(band * 3 / 4).plan(None).unwrap();
    assert!(tiled.tiles.len() > 1 && tiled.device_bytes > 0, "{tiled:?}");
    assert!(tiled.device_bytes <= band * 3 / 4 && tiled.num_repeated <= windows.len());
    let (found, report) = restored(&there, shape, &recipe, &taps, &tiled.tiles);
    assert_eq!(found, expected);
    assert!(report.peak_bytes as u64 <= tiled.sums_bytes, "{report:?} {tiled:?}");
}

#[test]
fn folds_in_half_precision_are_averaged_in_tiles_too() {
    let recipe = recipe(ALL[1].0, ALL[1].1, &[2]);
    let fakes = [Fake { classes: CLASSES, gain: 1.0 }, Fake { classes: CLASSES, gain: 0.3 }];
    let (shape, to) = ([7, 9, 17], [9, 14, 20]);
    let taps = taps(shape, to, 3);
    let expected = unslabbed(&whole_volume(&fakes, shape, &recipe), [9, 17], &taps, true);
    let windows = Windows::new(shape, recipe.window, 0.5).unwrap();
    let needs = Needs { num_folds: 2, ..needs(&windows, &taps, &recipe) };
    let most = needs.plan(None).unwrap();
    let halves = needs.plan(Some(most.sums_bytes / 2)).unwrap();
    assert!(halves.tiles.len() > 1 && halves.num_repeated > 0);
    for plan in [most, halves] {
        let (found, report) = restored(&fakes, shape, &recipe, &taps, &plan.tiles);
        assert_eq!(found, expected);
        assert_eq!(report.num_passes, mirror::passes(recipe.reference, &[2]).len() * 2);
    }
}

#[test]
fn memory_does_not_grow_with_the_height_of_the_volume() {
    for (reference, accumulation) in ALL {
        let recipe = recipe(reference, accumulation, &[0, 2]);
        let bytes = |height: usize| {
            let shape = [height, 10, 20];
            let windows = Windows::new(shape, recipe.window, 0.5).unwrap();
            let taps = taps(shape, shape, 3);
            needs(&windows, &taps, &recipe).plan(None).unwrap().sums_bytes
        };
        assert_eq!(bytes(20), bytes(5000));
    }
}

#[test]
fn the_shortest_cross_section_is_what_counts() {
    let recipe = WindowSettings { window: [16, 16, 16], ..recipe(ALL[0].0, ALL[0].1, &[]) };
    let bytes = |shape: [usize; 3]| {
        let windows = Windows::new(shape, recipe.window, 0.5).unwrap();
        let taps = taps(shape, shape, 3);
        needs(&windows, &taps, &recipe).plan(None).unwrap().sums_bytes
    };
    // A flat volume, one window high: the front moves along y.
    let row = (CLASSES * 4 + 4) as u64 * 64;
    assert!(bytes([16, 200, 64]) <= row * 16 * 17, "{}", bytes([16, 200, 64]) / row);
    assert_eq!(bytes([16, 200, 64]), bytes([16, 400, 64]));
}

/// Weights are kept where there is room beside all else, and never at the cost of a tile.
#[test]
fn weights_are_kept_where_there_is_room() {
    let recipe = recipe(ALL[0].0, ALL[0].1, &[]);
    let windows = Windows::new([30, 30, 30], recipe.window, 0.5).unwrap();
    let taps = taps([30; 3], [60; 3], 3);
    let plan = |kept_weights, allowed| {
        let needs = Needs { kept_weights, ..needs(&windows, &taps, &recipe) };
        needs.plan(allowed).unwrap()
    };
    let without = plan(0, None);
    let all = without.total_bytes();
    assert_eq!((without.weights_bytes, plan(1000, None).weights_bytes), (0, 1000));
    assert_eq!(plan(1000, None).total_bytes(), all + 1000);
    assert_eq!(plan(1000, Some(all + 1000)).weights_bytes, 1000);
    assert_eq!(plan(1000, Some(all + 999)), without);
    assert_eq!(plan(MOST_WEIGHTS + 1, None), without);
}

#[test]
fn what_does_not_fit_is_told_in_one_line() {
    let recipe = recipe(ALL[0].0, ALL[0].1, &[]);
    let windows = Windows::new([30, 30, 30], recipe.window, 0.5).unwrap();
    let taps = taps([30; 3], [60; 3], 3);
    let needs = Needs { window_bytes: 3_000_000_000, ..needs(&windows, &taps, &recipe) };
    let message = needs.plan(Some(2_000_000_000)).unwrap_err().to_string();
    assert!(message.contains("3.0 GB") && message.contains("2.0 GB"), "{message}");
    assert!(!message.contains('\n'));
}
