//! Windows against what the references do with arrays of classes × volume.

use super::*;
use crate::network::{Featured, Head, Resident, WindowCost};
use burn::tensor::{DType, Device, Tensor, TensorData};
use half::f16;
use ndarray::{Array4, s};
use proptest::prelude::*;
use stunet_model::{PointwiseRows, WindowValues};

/// A network whose logits depend on the voxel, its place in the window and the class.
pub(crate) struct Fake {
    pub classes: usize,
    pub gain: f32,
}

/// What a window of a [`Fake`] is said to cost.
pub(crate) fn fake_cost(classes: usize, window: [usize; 3]) -> Result<WindowCost, InferError> {
    let bytes = (classes * window.iter().product::<usize>()) as u64 * 4;
    Ok(WindowCost { peak_bytes: bytes, output_bytes: bytes, work: bytes as f64 })
}

impl Network for Fake {
    fn in_channels(&self) -> usize {
        1
    }

    fn num_classes(&self) -> usize {
        self.classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        fake_cost(self.classes, window)
    }

    /// Three planes at a time, which divide few windows evenly.
    fn predict_window(&self, window: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        let depth = window.dim().1;
        for from in (0..depth).step_by(3) {
            let planes = from..(from + 3).min(depth);
            let piece = self.whole(&window).slice(s![.., planes.clone(), .., ..]).to_owned();
            take(planes, piece.as_slice().expect("in standard layout"));
        }
    }
}

impl Fake {
    /// Logits `[C, z, y, x]` of all planes.
    pub fn whole(&self, window: &Array4<f32>) -> Array4<f32> {
        let (_, z, y, x) = window.dim();
        Array4::from_shape_fn((self.classes, z, y, x), |(c, z, y, x)| {
            let place = (c * 11 + z * 3 + y * 5 + x * 7) as f32;
            self.gain * (window[[0, z, y, x]] * (c as f32 - 1.0) + place.sin())
        })
    }
}

/// A [`Fake`] that leaves its logits on a device.
pub(crate) struct There(pub Fake);

impl Network for There {
    fn in_channels(&self) -> usize {
        1
    }

    fn num_classes(&self) -> usize {
        self.0.classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        fake_cost(self.0.classes, window)
    }

    fn predict_window(&self, _: Array4<f32>, _: &mut dyn FnMut(Range<usize>, &[f32])) {
        panic!("read back")
    }

    fn resident(&self) -> Option<&dyn Resident> {
        Some(self)
    }
}

impl Resident for There {
    fn device(&self) -> Device {
        Device::flex()
    }

    fn predict_window_on_device(&self, window: Tensor<5>) -> WindowValues {
        let [n, c, z, y, x] = window.dims();
        let values = window.into_data().try_into_vec::<f32>().unwrap();
        let one = |values: &[f32]| {
            let window = Array4::from_shape_vec((c, z, y, x), values.to_vec()).unwrap();
            self.0.whole(&window).into_raw_vec_and_offset().0
        };
        let values: Vec<f32> = values.chunks(c * z * y * x).flat_map(one).collect();
        let classes = values.len() / (n * z * y * x);
        let data = TensorData::new(values, [n, classes, z, y, x]);
        WindowValues::Ready(Tensor::from_data(data, (&self.device(), DType::F32)))
    }

    fn windows_at_once(&self) -> usize {
        2
    }
}

/// A [`Fake`] whose logits are feature maps, and whose head hands them on.
pub(crate) struct Apart(pub Fake);

impl Network for Apart {
    fn in_channels(&self) -> usize {
        1
    }

    fn num_classes(&self) -> usize {
        self.0.classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        fake_cost(self.0.classes, window)
    }

    fn predict_window(&self, _: Array4<f32>, _: &mut dyn FnMut(Range<usize>, &[f32])) {
        panic!("of all classes")
    }

    fn featured(&self) -> Option<&dyn Featured> {
        Some(self)
    }
}

impl Featured for Apart {
    fn features(&self, window: Array4<f32>) -> Tensor<5> {
        let maps = self.0.whole(&window);
        let (f, z, y, x) = maps.dim();
        let data = TensorData::new(maps.into_raw_vec_and_offset().0, [1, f, z, y, x]);
        Tensor::from_data(data, (&Device::flex(), DType::F32))
    }

    fn head(&self) -> Option<Head> {
        let run: crate::network::HeadFn = Box::new(|from, width, columns, to| {
            let rows = from.chunks_exact(width);
            to.chunks_exact_mut(columns.len())
                .zip(rows)
                .for_each(|(to, row)| to.copy_from_slice(&row[columns.clone()]));
        });
        Some(Head { num_features: self.0.classes, is_affine: true, run, add_to_halves: None })
    }
}

/// A [`Fake`] whose logits are feature maps, of which a convolution of single voxels makes five classes.
struct Convolved {
    features: Apart,
    /// Whether the head may add them to sums as it computes them.
    at_once: bool,
}

impl Network for Convolved {
    fn in_channels(&self) -> usize {
        1
    }

    fn num_classes(&self) -> usize {
        5
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        fake_cost(5, window)
    }

    fn predict_window(&self, _: Array4<f32>, _: &mut dyn FnMut(Range<usize>, &[f32])) {
        panic!("of all classes")
    }

    fn featured(&self) -> Option<&dyn Featured> {
        Some(self)
    }
}

impl Featured for Convolved {
    fn features(&self, window: Array4<f32>) -> Tensor<5> {
        self.features.features(window)
    }

    fn head(&self) -> Option<Head> {
        let inputs = self.features.0.classes;
        let values = |len: usize| (0..len).map(|i| (i as f32 * 1.7).sin()).collect::<Vec<_>>();
        let weight = TensorData::new(values(5 * inputs), [5, inputs, 1, 1, 1]);
        let (device, bias) = (Device::flex(), TensorData::new(values(5), [5]));
        let weight = Tensor::from_data(weight, (&device, DType::F32));
        let bias = Tensor::from_data(bias, (&device, DType::F32));
        let head = Head::of(PointwiseRows::new(weight, bias)?);
        let add_to_halves = head.add_to_halves.filter(|_| self.at_once);
        Some(Head { add_to_halves, ..head })
    }
}

/// Collects all planes.
#[derive(Default)]
struct Collect(Vec<Vec<f32>>);

impl PlaneSink for Collect {
    fn plane(&mut self, z: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        assert_eq!(z, self.0.len(), "planes come in order");
        self.0.push(plane.clone());
        Ok(())
    }
}

pub(crate) fn image(shape: [usize; 3]) -> Array4<f32> {
    Array4::from_shape_fn((1, shape[0], shape[1], shape[2]), |(_, z, y, x)| {
        ((z * 31 + y * 17 + x * 13) % 23) as f32 / 11.0 - 1.0
    })
}

pub(crate) fn recipe(
    reference: Reference,
    accumulation: Accumulation,
    axes: &[usize],
) -> WindowSettings {
    WindowSettings {
        window: [4, 6, 8],
        step_size: 0.5,
        mirror_axes: axes.to_vec(),
        reference,
        accumulation,
        keep: Keep::Sums,
        windows_at_once: 1,
        average_passes: false,
        part_of: None,
    }
}

fn run(fakes: &[impl Network], shape: [usize; 3], recipe: &WindowSettings) -> Vec<Vec<f32>> {
    let networks: Vec<&dyn Network> = fakes.iter().map(|f| f as &dyn Network).collect();
    let mut sink = Collect::default();
    let image = image(shape);
    slide(&networks, image.view(), recipe, &mut sink, &mut |_, _| ControlFlow::Continue(()))
        .unwrap();
    sink.0
}

/// What the references do: arrays of classes × volume, fold after fold.
pub(crate) fn whole_volume(
    fakes: &[Fake],
    shape: [usize; 3],
    recipe: &WindowSettings,
) -> Vec<Vec<f32>> {
    let windows = Windows::new(shape, recipe.window, recipe.step_size).unwrap();
    let half = recipe.effective_accumulation() == Accumulation::F16;
    let round = |v: f32| if half { f16::from_f32(v).to_f32() } else { v };
    let v1 = recipe.reference == Reference::NnUNetV1;
    let [z, y, x] = windows.padded_shape();
    let classes = fakes[0].classes;
    let image = image(shape);
    let passes = mirror::passes(recipe.reference, &recipe.mirror_axes);
    let count = passes.len() as f32;
    let importance = recipe.importance(windows.len());
    let mut mean = Array4::<f32>::zeros((classes, z, y, x));
    for fake in fakes {
        let mut sums = Array4::<f32>::zeros((classes, z, y, x));
        let mut weights = ndarray::Array3::<f32>::zeros((z, y, x));
        for start in windows.iter() {
            let [d, h, w] = recipe.window;
            let mut prediction = Array4::<f32>::zeros((classes, d, h, w));
            for &flips in &passes {
                let logits = fake.whole(&windows.cut(&image.view().into(), start, flips));
                let mut pass = mirror::mirrored(logits, flips);
                if v1 {
                    for mut voxel in pass.lanes_mut(ndarray::Axis(0)) {
                        let mut block = voxel.to_vec();
                        crate::blend::softmax(&mut block, 1);
                        voxel.assign(&ndarray::Array1::from(block));
                    }
                    prediction = prediction + pass * (1.0 / count);
                } else {
                    prediction += &pass;
                }
            }
            for ((c, k, j, i), v) in prediction.indexed_iter() {
                let v = if v1 { *v } else { v / count };
                let at = [start[0] + k, start[1] + j, start[2] + i];
                let weight = importance.as_ref().map_or(1.0, |m| m[(k * h + j) * w + i]);
                let sum = &mut sums[[c, at[0], at[1], at[2]]];
                *sum = round(*sum + v * weight);
                if c == 0 {
                    weights[at] = round(weights[at] + weight);
                }
            }
        }
        for (at, v) in sums.indexed_iter() {
            mean[at] = round(mean[at] + round(v / weights[[at.1, at.2, at.3]]));
        }
    }
    let mean = mean.mapv(|v| if fakes.len() > 1 { round(v / fakes.len() as f32) } else { v });
    let [b0, b1, b2] = windows.padding_below();
    let cropped =
        mean.slice_move(ndarray::s![.., b0..b0 + shape[0], b1..b1 + shape[1], b2..b2 + shape[2]]);
    cropped.axis_iter(ndarray::Axis(1)).map(|p| p.iter().copied().collect()).collect()
}

pub(crate) const ALL: [(Reference, Accumulation); 5] = [
    (Reference::NnUNetV1, Accumulation::F32),
    (Reference::NnUNetV22, Accumulation::F16),
    (Reference::NnUNetV22, Accumulation::F32),
    (Reference::NnUNetV28, Accumulation::F16),
    (Reference::NnUNetV28, Accumulation::F32),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn slab_equals_whole_volume(
        shape in [1usize..14, 1..14, 1..14],
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3),
    ) {
        let (reference, accumulation) = ALL[which];
        let recipe = recipe(reference, accumulation, &axes);
        let fakes = [Fake { classes: 3, gain: 1.0 }];
        prop_assert_eq!(run(&fakes, shape, &recipe), whole_volume(&fakes, shape, &recipe));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sums_on_the_device_are_those_on_the_host(
        shape in [1usize..14, 1..14, 1..14],
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3),
        folds in 1usize..3,
    ) {
        let (reference, _) = ALL[which];
        let recipe = recipe(reference, Accumulation::F32, &axes);
        let gains = &[1.0, 0.3][..folds];
        let fakes: Vec<_> = gains.iter().map(|gain| Fake { classes: 3, gain: *gain }).collect();
        let there: Vec<_> = gains.iter().map(|gain| There(Fake { classes: 3, gain: *gain })).collect();
        let host = run(&fakes, shape, &recipe).concat();
        let device = WindowSettings { keep: Keep::DeviceSums, ..recipe.clone() };
        let two = WindowSettings { windows_at_once: 2, ..device.clone() };
        let device = run(&there, shape, &device).concat();
        prop_assert_eq!(&run(&there, shape, &two).concat(), &device);
        // v1's probabilities go through the device's own exponential.
        let bound = if reference == Reference::NnUNetV1 { 1e-6 } else { 0.0 };
        let most = host.iter().zip(&device).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        prop_assert!(most <= bound, "{}", most);
        prop_assert_eq!(host.len(), device.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn kept_feature_maps_give_the_sums_bit_by_bit(
        shape in [1usize..14, 1..14, 1..14],
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3),
        folds in 1usize..3,
    ) {
        let (reference, accumulation) = ALL[which];
        let recipe = recipe(reference, accumulation, &axes);
        let gains = &[1.0, 0.3][..folds];
        let fakes: Vec<_> = gains.iter().map(|gain| Fake { classes: 3, gain: *gain }).collect();
        let apart: Vec<_> = gains.iter().map(|gain| Apart(Fake { classes: 3, gain: *gain })).collect();
        let kept = run(&apart, shape, &WindowSettings { keep: Keep::Features, ..recipe.clone() });
        prop_assert_eq!(kept, run(&fakes, shape, &recipe));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn values_that_are_added_as_they_are_computed_are_the_same(
        shape in [1usize..14, 1..14, 1..90],
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3),
        average_passes in any::<bool>(),
        wide in any::<bool>(),
        folds in 1usize..3,
    ) {
        let (reference, accumulation) = ALL[which];
        let mut recipe = recipe(reference, accumulation, &axes);
        if wide {
            recipe.window[2] = 70;
        }
        let recipe = WindowSettings { keep: Keep::Features, average_passes, ..recipe };
        let gains = &[1.0, 0.3][..folds];
        let [fused, plain] = [true, false].map(|at_once| {
            let network = |gain: &f32| {
                let features = Apart(Fake { classes: 3, gain: *gain });
                Convolved { features, at_once }
            };
            let networks: Vec<_> = gains.iter().map(network).collect();
            let planes = run(&networks, shape, &recipe).concat();
            planes.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        prop_assert_eq!(fused, plain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Where logits are averaged in f32; elsewhere they are kept.
    #[test]
    fn sums_of_feature_maps_give_the_sums_but_for_rounding(
        shape in [1usize..14, 1..14, 1..14],
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3),
        folds in 1usize..3,
    ) {
        let (reference, accumulation) = ALL[which];
        let recipe = recipe(reference, accumulation, &axes);
        let gains = &[1.0, 0.3][..folds];
        let fakes: Vec<_> = gains.iter().map(|gain| Fake { classes: 3, gain: *gain }).collect();
        let apart: Vec<_> = gains.iter().map(|gain| Apart(Fake { classes: 3, gain: *gain })).collect();
        let sums = run(&fakes, shape, &recipe).concat();
        let averaged = WindowSettings { keep: Keep::FeatureSums, ..recipe.clone() };
        let averaged = run(&apart, shape, &averaged).concat();
        prop_assert_eq!(averaged.len(), sums.len());
        let kept = recipe.effective_accumulation() == Accumulation::F16
            || recipe.averages(Outputs::Logits) != Outputs::Logits;
        let bound = if kept { 0.0 } else { 1e-6 };
        let most = averaged.iter().zip(&sums).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        prop_assert!(most <= bound, "{} of at most {}", most, bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// One head for all mirrored passes: the same but for rounding, and the same bits whether windows are kept or
    /// summed.
    #[test]
    fn passes_averaged_before_the_head_are_averaged_passes(
        shape in [1usize..14, 1..14, 1..14],
        which in 0usize..5,
        axes in proptest::sample::subsequence(vec![0usize, 1, 2], 1..=3),
        folds in 1usize..3,
    ) {
        let (reference, accumulation) = ALL[which];
        let recipe = recipe(reference, accumulation, &axes);
        let gains = &[1.0, 0.3][..folds];
        let fakes: Vec<_> = gains.iter().map(|gain| Fake { classes: 3, gain: *gain }).collect();
        let apart: Vec<_> = gains.iter().map(|gain| Apart(Fake { classes: 3, gain: *gain })).collect();
        let each = run(&fakes, shape, &recipe).concat();
        if recipe.averages(Outputs::Logits) == Outputs::Logits {
            let with = |keep| WindowSettings { average_passes: true, keep, ..recipe.clone() };
            let summed = run(&apart, shape, &with(Keep::Sums)).concat();
            let kept = run(&apart, shape, &with(Keep::Features)).concat();
            prop_assert_eq!(&kept, &summed);
            // A last place of half precision may be decided by it.
            let bound = match recipe.effective_accumulation() {
                Accumulation::F16 => 4e-3,
                Accumulation::F32 => 1e-6,
            };
            let most = summed.iter().zip(&each).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert!(most <= bound, "{}", most);
        }
        // Probabilities are made of every pass; a network without a head that can wait is asked for every pass.
        let keep = if recipe.averages(Outputs::Logits) == Outputs::Logits { Keep::Sums } else { Keep::Features };
        let asked = WindowSettings { average_passes: true, keep, ..recipe.clone() };
        let found = match keep {
            Keep::Sums => run(&fakes, shape, &asked),
            _ => run(&apart, shape, &asked),
        };
        prop_assert_eq!(found.concat(), each);
    }
}

#[test]
fn feature_maps_that_are_not_finite_are_noticed() {
    let both = ALL.into_iter().flat_map(|all| [(all, Keep::Features), (all, Keep::FeatureSums)]);
    for ((reference, accumulation), keep) in both {
        let apart = Apart(Fake { classes: 2, gain: f32::INFINITY });
        let recipe = WindowSettings { keep, ..recipe(reference, accumulation, &[]) };
        let networks: [&dyn Network; 1] = [&apart];
        let (mut sink, image) = (Collect::default(), image([8, 9, 10]));
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let result = slide(&networks, image.view(), &recipe, &mut sink, go_on);
        let overflow = matches!(result, Err(InferError::HalfPrecisionOverflow { plane: 0 }));
        let expected = match recipe.effective_accumulation() {
            Accumulation::F16 => overflow,
            Accumulation::F32 => matches!(result, Err(InferError::NotFinite { plane: 0 })),
        };
        assert!(expected, "{reference:?}: {result:?}");
    }
}

/// A network without a head of its own is summed.
#[test]
fn what_cannot_be_kept_apart_is_summed() {
    let fakes = [Fake { classes: 3, gain: 1.0 }];
    let recipe = recipe(ALL[4].0, ALL[4].1, &[2]);
    let kept = WindowSettings { keep: Keep::Features, ..recipe.clone() };
    assert_eq!(run(&fakes, [7, 9, 11], &kept), run(&fakes, [7, 9, 11], &recipe));
}

#[test]
fn what_fails_beside_the_device_stops_the_windows() {
    let there = There(Fake { classes: 2, gain: f32::INFINITY });
    let recipe = WindowSettings { keep: Keep::DeviceSums, ..recipe(ALL[4].0, ALL[4].1, &[]) };
    let networks: [&dyn Network; 1] = [&there];
    let image = image([30, 9, 10]);
    let mut done = 0;
    let result =
        slide(&networks, image.view(), &recipe, &mut Collect::default(), &mut |n, total| {
            done = total - n;
            ControlFlow::Continue(())
        });
    assert!(matches!(result, Err(InferError::NotFinite { plane: 0 })), "{result:?}");
    assert!(done > 0, "stopped before the last window");
}

#[test]
fn folds_are_averaged() {
    let fakes = [Fake { classes: 3, gain: 1.0 }, Fake { classes: 3, gain: 0.3 }];
    for (reference, accumulation) in ALL {
        let recipe = recipe(reference, accumulation, &[2]);
        let found = run(&fakes, [7, 9, 11], &recipe).concat();
        let expected = whole_volume(&fakes, [7, 9, 11], &recipe).concat();
        let bound = if accumulation == Accumulation::F16 { 0.0 } else { 2e-6 };
        assert_eq!(found.len(), expected.len());
        let differ = found.iter().zip(&expected).any(|(a, b)| (a - b).abs() > bound);
        assert!(!differ, "{reference:?} {accumulation:?}");
    }
}

#[test]
fn threads_do_not_matter() {
    let fakes = [Fake { classes: 5, gain: 1.0 }];
    for (reference, accumulation) in ALL {
        let recipe = recipe(reference, accumulation, &[0, 1, 2]);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&fakes, [9, 10, 11], &recipe))
        };
        assert_eq!(on(1), on(3), "{reference:?} {accumulation:?}");
    }
}

#[test]
fn overflow_of_half_precision_names_the_remedy() {
    let fake = Fake { classes: 3, gain: 1e4 };
    for reference in [Reference::NnUNetV22, Reference::NnUNetV28] {
        let slide_with =
            |accumulation| {
                let recipe = recipe(reference, accumulation, &[]);
                let mut sink = Collect::default();
                let image = image([8, 9, 10]);
                let networks: [&dyn Network; 1] = [&fake];
                slide(&networks, image.view(), &recipe, &mut sink, &mut |_, _| {
                    ControlFlow::Continue(())
                })
            };
        let message = slide_with(Accumulation::F16).unwrap_err().to_string();
        assert!(message.contains("f32 accumulation"), "{message}");
        slide_with(Accumulation::F32).unwrap();
    }
}

#[test]
fn weights_that_are_not_finite_are_noticed() {
    let fake = Fake { classes: 2, gain: f32::INFINITY };
    for (reference, accumulation) in ALL {
        let recipe = recipe(reference, accumulation, &[]);
        let networks: [&dyn Network; 1] = [&fake];
        let mut sink = Collect::default();
        let image = image([8, 9, 10]);
        let result = slide(&networks, image.view(), &recipe, &mut sink, &mut |_, _| {
            ControlFlow::Continue(())
        });
        assert!(result.is_err(), "{reference:?}");
    }
}

#[test]
fn a_break_interrupts() {
    let fake = Fake { classes: 2, gain: 1.0 };
    let recipe = recipe(Reference::NnUNetV1, Accumulation::F32, &[]);
    let networks: [&dyn Network; 1] = [&fake];
    let mut heard = Vec::new();
    let image = image([8, 9, 10]);
    let result =
        slide(&networks, image.view(), &recipe, &mut Collect::default(), &mut |done, total| {
            heard.push((done, total));
            if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    assert!(matches!(result, Err(InferError::Interrupted)));
    assert_eq!(heard, [(0, 12), (1, 12), (2, 12)]);
}
