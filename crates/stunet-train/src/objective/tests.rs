use super::*;
use crate::loss::{Loss, LossConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Distribution, TensorData};

const SHAPE: [usize; 5] = [2, 3, 4, 6, 8];

/// Cross-entropy of the finest output.
#[derive(Debug)]
struct CrossEntropy;

impl Objective for CrossEntropy {
    fn describe(&self) -> String {
        "cross-entropy".to_owned()
    }

    fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1> {
        assert_eq!(logits[0].dtype(), DType::F32);
        let labels: Tensor<5, Int> = targets[0].clone().unsqueeze_dim(1);
        -log_softmax(logits[0].clone(), 1).gather(1, labels).mean()
    }
}

fn batch(device: &Device) -> (Tensor<5>, Vec<Tensor<4, Int>>) {
    device.seed(1);
    let logits = Tensor::<5>::random(SHAPE, Distribution::Normal(0.0, 2.0), &Device::flex());
    let [n, classes, z, y, x] = SHAPE;
    let labels: Vec<i32> = (0..n * z * y * x).map(|i| (i / 5 % classes) as i32).collect();
    let labels = Tensor::from_data(TensorData::new(labels, [n, z, y, x]), device);
    (logits, vec![labels])
}

fn gradient(of: &dyn Objective, dtype: DType, scale: f64) -> (f64, Vec<f64>) {
    let device = Device::flex().autodiff();
    let (logits, targets) = batch(&device);
    let leaf = logits.cast(dtype).autodiff().require_grad();
    let (value, grads) = backward(of, vec![leaf.clone()], &targets, scale).unwrap();
    let gradient = leaf.grad(&grads).unwrap();
    assert_eq!(gradient.dtype(), dtype);
    (value, gradient.into_data().iter::<f64>().collect())
}

/// The softmax less the label, over the number of voxels.
#[test]
fn the_gradient_is_autodiffs() {
    let (value, found) = gradient(&CrossEntropy, DType::F32, 256.0);
    let (logits, targets) = batch(&Device::flex());
    let [n, classes, z, y, x] = SHAPE;
    let voxels = (n * z * y * x) as f64;
    let softmax: Vec<f64> =
        log_softmax(logits.cast(DType::F64), 1).exp().into_data().iter::<f64>().collect();
    let labels: Vec<i64> = targets[0].clone().into_data().iter::<i64>().collect();
    let (mut worst, mut expected) = (0f64, 0.0);
    for (i, p) in softmax.iter().enumerate() {
        let (sample, class) = (i / (classes * z * y * x), i / (z * y * x) % classes);
        let label = labels[sample * z * y * x + i % (z * y * x)] as usize == class;
        worst = worst.max((found[i] - 256.0 * (p - f64::from(u8::from(label))) / voxels).abs());
        expected -= if label { p.ln() / voxels } else { 0.0 };
    }
    assert!(worst < 1e-6, "{worst:e}");
    assert!((value / expected - 1.0).abs() < 1e-6, "{value} {expected}");
    assert_eq!(CrossEntropy.value(&[batch(&Device::flex()).0], &targets), value);
}

/// The loss sees f32, the network gets its own precision back.
#[test]
fn half_precision_is_cast() {
    let (_, single) = gradient(&CrossEntropy, DType::F32, 65536.0);
    for dtype in [DType::F16, DType::BF16] {
        let (_, half) = gradient(&CrossEntropy, dtype, 65536.0);
        let worst = single.iter().zip(&half).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
        let largest = single.iter().fold(0f64, |most, v| most.max(v.abs()));
        assert!(worst < 0.02 * largest, "{dtype:?}: {worst} of {largest}");
    }
}

/// nnU-Net's loss with a term of one's own, and without one.
#[test]
fn the_built_in_loss_is_a_term_like_others() {
    #[derive(Debug)]
    struct Sum(Loss, f64);
    impl Objective for Sum {
        fn describe(&self) -> String {
            format!("{} and {} of the cross-entropy", Objective::describe(&self.0), self.1)
        }
        fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1> {
            self.0.loss(logits, targets) + CrossEntropy.loss(logits, targets) * self.1
        }
    }
    let config = LossConfig { weights: vec![1.0], ..LossConfig::v2(true) };
    let own = Loss::new(config).unwrap();
    let (value, expected) = gradient(&own, DType::F32, 8.0);
    let (cross_entropy, slope) = gradient(&CrossEntropy, DType::F32, 8.0);
    for weight in [0.0, 0.5] {
        let (sum, found) = gradient(&Sum(own.clone(), weight), DType::F32, 8.0);
        assert!((sum - value - weight * cross_entropy).abs() < 1e-6, "{sum} {value}");
        for ((found, a), b) in found.iter().zip(&expected).zip(&slope) {
            assert!((found - a - weight * b).abs() < 1e-7, "{found} {a} {b}");
        }
    }
}

#[test]
fn a_loss_without_gradient_is_an_error() {
    #[derive(Debug)]
    struct Detached;
    impl Objective for Detached {
        fn describe(&self) -> String {
            "detached".to_owned()
        }
        fn loss(&self, logits: &[Tensor<5>], _targets: &[Tensor<4, Int>]) -> Tensor<1> {
            logits[0].clone().inner().mean()
        }
    }
    let device = Device::flex().autodiff();
    let (logits, targets) = batch(&device);
    let leaf = logits.autodiff().require_grad();
    let error = backward(&Detached, vec![leaf], &targets, 1.0).err().unwrap().to_string();
    assert!(error.starts_with("the loss (detached) carries no gradient: expected"), "{error}");
}
