use super::*;
use burn::tensor::Device;
use burn::tensor::{Distribution, TensorData, Tolerance, activation};

const SHAPE: [usize; 5] = [2, 5, 6, 10, 7];

fn logits(shape: [usize; 5], scale: f64, device: &Device) -> Tensor<5> {
    device.seed(7);
    Tensor::random(shape, Distribution::Uniform(-scale, scale), device)
}

/// Labels of all classes, `extra` among them, seeded by arithmetic.
fn labels([n, c, z, y, x]: [usize; 5], extra: Option<i32>, device: &Device) -> Tensor<4, Int> {
    let values = (0..n * z * y * x).map(|i| {
        let r = (i * 7919 + i / 13 * 31) % (c + 2);
        if r >= c { extra.unwrap_or(0) } else { r as i32 }
    });
    Tensor::from_data(TensorData::new(values.collect::<Vec<i32>>(), [n, z, y, x]), device)
}

/// Value and gradient at one scale, under some evaluation.
fn run(
    config: &LossConfig,
    evaluation: LossRoute,
    logits: &Tensor<5>,
    labels: &Tensor<4, Int>,
) -> (LossValue, TensorData) {
    let config = LossConfig { evaluation, weights: vec![1.0], ..config.clone() };
    let loss = Loss::new(config).unwrap();
    let leaf = logits.clone().autodiff().require_grad();
    let (value, grads) = loss.backward(vec![leaf.clone()], std::slice::from_ref(labels));
    assert_eq!(loss.value(std::slice::from_ref(logits), std::slice::from_ref(labels)), value);
    (value, leaf.grad(&grads).unwrap().into_data())
}

/// A plain composition of operators under autodiff, in f64: the truth.
fn composition(
    config: &LossConfig,
    logits: &Tensor<5>,
    labels: &Tensor<4, Int>,
) -> (f64, f64, TensorData) {
    let [n, c, z, y, x] = logits.dims();
    let leaf = logits.clone().cast(DType::F64).autodiff().require_grad();
    let labels: Tensor<5, Int> = labels.clone().reshape([n, 1, z, y, x]);
    let float = |mask: Tensor<5, burn::tensor::Bool>| mask.float().cast(DType::F64).autodiff();
    let valid = match config.ignore_label {
        Some(ignore) => float(labels.clone().equal_elem(ignore).bool_not()),
        None => float(labels.clone().equal_elem(i32::MIN).bool_not()),
    };
    let sum = |t: Tensor<5>| -> Tensor<2> {
        let t = if config.batch_dice { t.sum_dim(0) } else { t };
        t.sum_dim(4).sum_dim(3).sum_dim(2).flatten::<3>(2, 4).squeeze_dim(2)
    };
    let (p, one_hot, cross_entropy, first) = match &config.regions {
        None => {
            let one_hot: Vec<_> =
                (0..c as i32).map(|k| float(labels.clone().equal_elem(k))).collect();
            let one_hot = Tensor::cat(one_hot, 1);
            let loss =
                (activation::log_softmax(leaf.clone(), 1) * one_hot.clone()).sum_dim(1).neg();
            let loss = (loss * valid.clone()).sum() / valid.clone().sum();
            (activation::softmax(leaf.clone(), 1), one_hot, loss, 1)
        }
        Some(regions) => {
            let inside = regions.iter().map(|r| {
                r.iter().map(|&k| float(labels.clone().equal_elem(k))).reduce(|a, b| a + b).unwrap()
            });
            let inside = Tensor::cat(inside.collect(), 1);
            let p = activation::sigmoid(leaf.clone());
            let loss = inside.clone() * p.clone().log()
                + (inside.clone().neg() + 1.0) * (p.clone().neg() + 1.0).log();
            let loss = match config.ignore_label {
                None => loss.mean().neg(),
                Some(_) => (loss * valid.clone()).sum().neg() / valid.clone().sum(),
            };
            (p, inside, loss, 0)
        }
    };
    let overlap = sum(p.clone() * one_hot.clone() * valid.clone());
    let total = sum(p * valid.clone()) + sum(one_hot * valid);
    let smooth =
        config.smooth + if config.denominator == DiceDenominator::Added { 1e-8 } else { 0.0 };
    let dice = (overlap * 2.0 + config.smooth) / (total + smooth);
    let dice = dice.narrow(1, first, c - first).mean().neg();
    let grads = (dice.clone() + cross_entropy.clone()).backward();
    let number = |t: Tensor<1>| t.into_data().iter::<f64>().next().unwrap();
    (number(dice), number(cross_entropy), leaf.grad(&grads).unwrap().into_data())
}

/// Holds every evaluation against the composition.
fn check(config: &LossConfig, scale: f64) {
    let device = Device::flex();
    let (logits, labels) =
        (logits(SHAPE, scale, &device), labels(SHAPE, config.ignore_label, &device));
    let (dice, cross_entropy, gradient) = composition(config, &logits, &labels);
    let largest = gradient.iter::<f64>().fold(0.0, |a: f64, b| a.max(b.abs()));
    for (evaluation, input, bound) in [
        (LossRoute::Host, logits.clone(), 2e-6),
        (LossRoute::Device, logits.clone(), 2e-6),
        (LossRoute::Device, logits.clone().cast(DType::F64), 1e-12),
    ] {
        let (value, found) = run(config, evaluation, &input, &labels);
        let close = |a: f64, b: f64| (a - b).abs() <= bound * b.abs().max(1e-3);
        assert!(close(value.dice, dice), "{evaluation:?}: {value:?}, expected {dice}");
        let expected = cross_entropy;
        assert!(close(value.cross_entropy, expected), "{evaluation:?}: {value:?}, {expected}");
        assert_eq!(found.shape(), gradient.shape());
        let worst = found
            .iter::<f64>()
            .zip(gradient.iter::<f64>())
            .fold(0.0, |w: f64, (a, b)| w.max((a - b).abs()));
        assert!(worst <= bound * largest, "{evaluation:?}: {worst:e} of {largest:e}");
    }
}

#[test]
fn v1_batch_dice() {
    check(&LossConfig::v1(true), 2.0);
}

#[test]
fn v1_dice_per_sample() {
    check(&LossConfig::v1(false), 2.0);
}

#[test]
fn v2_batch_dice() {
    check(&LossConfig::v2(true), 2.0);
}

#[test]
fn v2_ignores_a_label() {
    check(&LossConfig { ignore_label: Some(9), ..LossConfig::v2(true) }, 2.0);
    check(&LossConfig { ignore_label: Some(-1), ..LossConfig::v2(false) }, 2.0);
}

#[test]
fn v1_ignores_a_label() {
    check(&LossConfig { ignore_label: Some(5), ..LossConfig::v1(true) }, 2.0);
}

#[test]
fn large_logits() {
    check(&LossConfig::v2(true), 60.0);
}

fn regions() -> Vec<Vec<i32>> {
    vec![vec![1, 2, 3], vec![2, 3], vec![3], vec![4], vec![1, 4]]
}

#[test]
fn overlapping_regions() {
    check(&LossConfig { regions: Some(regions()), ..LossConfig::v2(true) }, 2.0);
    check(&LossConfig { regions: Some(regions()), ..LossConfig::v2(false) }, 2.0);
}

#[test]
fn regions_with_an_ignored_label() {
    let config =
        LossConfig { regions: Some(regions()), ignore_label: Some(7), ..LossConfig::v2(true) };
    check(&config, 2.0);
}

#[test]
fn everything_ignored() {
    let device = Device::flex();
    let logits = logits(SHAPE, 2.0, &device);
    let [n, _, z, y, x] = SHAPE;
    let labels = Tensor::<4, Int>::full([n, z, y, x], 3, &device);
    for regions in [None, Some(regions())] {
        let config = LossConfig { ignore_label: Some(3), regions, ..LossConfig::v2(true) };
        for evaluation in [LossRoute::Host, LossRoute::Device] {
            let (value, gradient) = run(&config, evaluation, &logits, &labels);
            assert_eq!((value.dice, value.cross_entropy), (-1.0, 0.0), "{evaluation:?}");
            assert!(gradient.iter::<f32>().all(|v| v == 0.0), "{evaluation:?}");
        }
    }
}

#[test]
fn one_class_chunk_or_many_agree() {
    // 37 classes make chunks of three, the last of one.
    let (device, shape) = (Device::flex(), [1, 37, 3, 20, 30]);
    let (logits, labels) = (logits(shape, 3.0, &device), labels(shape, None, &device));
    let config = LossConfig::v2(true);
    let (a, grad_a) = run(&config, LossRoute::Host, &logits, &labels);
    let (b, grad_b) = run(&config, LossRoute::Device, &logits, &labels);
    assert!((a.total - b.total).abs() < 1e-6, "{a:?} {b:?}");
    grad_a.assert_approx_eq::<f32>(&grad_b, Tolerance::absolute(1e-9));
}

#[test]
fn threads_do_not_matter() {
    let (device, shape) = (Device::flex(), [2, 11, 8, 30, 31]);
    let (logits, labels) = (logits(shape, 3.0, &device), labels(shape, None, &device));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&LossConfig::v1(false), LossRoute::Host, &logits, &labels))
    };
    let (one, four) = (with(1), with(4));
    assert_eq!(one.0, four.0);
    one.1.assert_eq(&four.1, true);
}

#[test]
fn an_f32_sum_over_a_volume_does_not_drift() {
    // Equal terms are the worst case: every rounding error points the same way.
    let (device, shape) = (Device::flex(), [1, 2, 128, 128, 128]);
    let logits = Tensor::<5>::zeros(shape, &device);
    let labels = Tensor::<4, Int>::ones([1, 128, 128, 128], &device);
    let dice = -(2.0 * 0.5 + 0.0) / 1.5;
    // Three sums of 128 equal f32 terms; a flat one is off by 1e-4 and more.
    for (evaluation, bound) in [(LossRoute::Host, 1e-7), (LossRoute::Device, 4e-6)] {
        let config =
            LossConfig { evaluation, weights: vec![1.0], smooth: 0.0, ..LossConfig::v2(true) };
        let value = Loss::new(config)
            .unwrap()
            .value(std::slice::from_ref(&logits), std::slice::from_ref(&labels));
        assert!((value.dice - dice).abs() < bound, "{evaluation:?}: {value:?}");
        assert!((value.cross_entropy - 2f64.ln()).abs() < bound, "{evaluation:?}: {value:?}");
    }
}

/// The coarsest head: untouched in v1 and 2.8, a gradient of exactly 0 in 2.2.
#[test]
fn a_scale_without_weight() {
    let device = Device::flex().autodiff();
    let shapes = [[1, 3, 4, 4, 4], [1, 3, 2, 2, 2]];
    let labels: Vec<_> = shapes.iter().map(|s| labels(*s, None, &device)).collect();
    let gradient = |config: LossConfig| {
        let outputs: Vec<_> =
            shapes.iter().map(|s| logits(*s, 1.0, &device).require_grad()).collect();
        let loss = Loss::new(LossConfig { weights: vec![1.0, 0.0], ..config }).unwrap();
        let (value, grads) = loss.backward(outputs.clone(), &labels);
        assert_eq!(value.scales.len(), 1);
        assert!(outputs[0].grad(&grads).is_some());
        outputs[1].grad(&grads).map(|g| g.into_data().try_to_vec::<f32>().unwrap())
    };
    assert_eq!(gradient(LossConfig::v1(true)), None);
    assert_eq!(gradient(LossConfig::v2(true)), Some(vec![0.0; 24]));
}

#[test]
fn a_scale_multiplies_gradients_only() {
    let device = Device::flex();
    let shape = [1, 3, 4, 5, 6];
    let (logits, labels) = (logits(shape, 1.0, &device), [labels(shape, None, &device)]);
    let loss = Loss::new(LossConfig { weights: vec![1.0], ..LossConfig::v1(true) }).unwrap();
    let run = |scale| {
        let leaf = logits.clone().autodiff().require_grad();
        let (value, grads) = loss.backward_scaled(vec![leaf.clone()], &labels, scale);
        (value, leaf.grad(&grads).unwrap())
    };
    let ((one, g1), (many, g1024)) = (run(1.0), run(1024.0));
    assert_eq!(one, many);
    (g1 * 1024.0).into_data().assert_eq(&g1024.into_data(), true);
}

#[test]
fn half_precision_logits_get_half_precision_gradients() {
    let device = Device::flex();
    let shape = [1, 3, 4, 5, 6];
    let (logits, labels) = (logits(shape, 1.0, &device), labels(shape, None, &device));
    let (_, exact) = run(&LossConfig::v1(true), LossRoute::Device, &logits, &labels);
    for dtype in [DType::F16, DType::BF16] {
        for evaluation in [LossRoute::Host, LossRoute::Device] {
            let half = logits.clone().cast(dtype);
            let (_, found) = run(&LossConfig::v1(true), evaluation, &half, &labels);
            assert_eq!(found.dtype(), dtype);
            let found = found.convert::<f32>();
            found.assert_approx_eq::<f32>(&exact, Tolerance::absolute(2e-4));
        }
    }
}

#[test]
#[should_panic(expected = "label 5 is none of the 5 classes")]
fn a_label_beyond_the_classes() {
    let device = Device::flex();
    let labels = labels(SHAPE, Some(5), &device);
    run(&LossConfig::v1(true), LossRoute::Host, &logits(SHAPE, 1.0, &device), &labels);
}

#[test]
#[should_panic(expected = "label 5 is none of the 5 classes")]
fn a_label_beyond_the_classes_on_a_device() {
    let device = Device::flex();
    let labels = labels(SHAPE, Some(5), &device);
    run(&LossConfig::v1(true), LossRoute::Device, &logits(SHAPE, 1.0, &device), &labels);
}

#[test]
fn settings_out_of_range_are_named() {
    let message = |config| Loss::new(config).unwrap_err().to_string();
    let v1 = LossConfig::v1(true);
    assert!(message(LossConfig { weights: vec![], ..v1.clone() }).contains("weights"));
    assert!(message(LossConfig { weights: vec![-1.0], ..v1.clone() }).contains("[-1.0]"));
    assert!(message(LossConfig { smooth: f64::NAN, ..v1.clone() }).contains("smooth"));
    assert!(message(LossConfig { regions: Some(regions()), ..v1 }).contains("that of nnU-Net 1"));
    let empty = LossConfig { regions: Some(vec![vec![]]), ..LossConfig::v2(true) };
    assert!(message(empty).contains("at least one label"));
}
