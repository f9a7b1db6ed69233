use super::*;
use crate::Initialisation;
use burn::tensor::Distribution;

fn config() -> StuNetConfig {
    StuNetConfig::small(2, 3).with_width([16, 24, 32, 32, 40, 16])
}

fn image(size: [usize; 3], device: &Device) -> Tensor<5> {
    let [z, y, x] = size;
    device.seed(7);
    Tensor::random([1, 2, z, y, x], Distribution::Normal(0.0, 1.0), device)
}

fn numbers(tensor: Tensor<5>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Root of the mean square difference, relative to the expected values without their mean.
fn error(found: &[f32], expected: &[f32]) -> f64 {
    let mean = expected.iter().map(|v| f64::from(*v)).sum::<f64>() / expected.len() as f64;
    let square = |v: f64| v * v;
    let pairs = found.iter().zip(expected);
    let wrong: f64 = pairs.map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (wrong / expected.iter().map(|v| square(f64::from(*v) - mean)).sum::<f64>()).sqrt()
}

/// Features lie close to those in `f32`, for one block in each stage, and for several.
#[test]
fn features_are_close() {
    let device = Device::flex();
    for (depth, strides) in [
        ([1; 6], [[2; 3], [2; 3], [2; 3], [2; 3], [1, 1, 2]]),
        ([2, 1, 2, 1, 1, 1], [[1, 2, 2], [2; 3], [2; 3], [2; 3], [1, 1, 2]]),
    ] {
        let config = StuNetConfig { strides, ..config().with_depth(depth) };
        let network = config.init_seeded(Initialisation::NnUNetV1, 3, &device).unwrap();
        let eight_bits = EightBitStuNet::new(&network).unwrap();
        assert_eq!(eight_bits.config(), &config);
        let x = image([16, 32, 64], &device);
        let expected = network.finest_features(x.clone());
        let found = eight_bits.finest_features(x.clone());
        assert_eq!(found.dims(), expected.dims());
        let found = numbers(found);
        let error = error(&found, &numbers(expected));
        assert!(error < 0.1, "{depth:?}: {error}");
        assert!(error > 1e-4, "eight bits cannot be exact: {error}");
        // Whatever the number of threads.
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(numbers(alone.install(|| eight_bits.finest_features(x))), found);
    }
}

#[test]
fn what_is_not_finite_spoils_all() {
    let device = Device::flex();
    let network = config().init_seeded(Initialisation::NnUNetV1, 3, &device).unwrap();
    let eight_bits = EightBitStuNet::new(&network).unwrap();
    let mut values = numbers(image([16, 16, 64], &device));
    values[5000] = f32::NAN;
    let x = Tensor::from_data(TensorData::new(values, [1, 2, 16, 16, 64]), &device);
    let found = eight_bits.finest_features(x);
    assert_eq!(found.dims(), [1, 16, 16, 16, 64]);
    assert!(numbers(found).iter().all(|value| value.is_nan()));
}
