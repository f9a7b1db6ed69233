//! Where a stage runs, and what goes into it: seeded values, the same on every machine.

use burn::tensor::{DType, Device, Tensor, TensorData};
use stunet_kernels::Readable;
use stunet_model::{ModelError, ParameterKind, ParameterSpec, StuNet, StuNetConfig};

/// What a stage computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Compared within a bound.
    Numbers(Vec<f64>),
    /// Compared exactly.
    Labels(Vec<i64>),
}

/// Results of a stage by their names.
pub(super) type Found = Vec<(String, Values)>;

/// Why a stage could not be run: a library's own words.
pub(super) type Reason = Box<dyn std::error::Error>;

/// A device, a precision, and the inputs of one stage.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    pub device: Device,
    pub dtype: DType,
    seed: u64,
    /// Whether one value of the first input is another one, so that what is compared must differ.
    fault: bool,
    /// Which of many roundings all inputs have, if any.
    rounding: Option<u64>,
}

/// Of what is rounded: some last digits of single precision.
const ROUNDING: f64 = 1e-6;

/// Each value is a hash of its number: inputs do not depend on what was drawn before them.
fn hash(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash of a place in a list.
pub(super) fn hash_of(seed: u64, index: usize) -> u64 {
    hash(hash(seed) ^ index as u64)
}

impl Bench {
    /// The inputs of a stage depend on its name alone.
    pub(super) fn new(device: &Device, dtype: DType, stage: &str, fault: bool) -> Self {
        let seed = stage.bytes().fold(7, |seed, byte| hash(seed ^ u64::from(byte)));
        Self { device: device.clone(), dtype, seed, fault, rounding: None }
    }

    /// The same with inputs that are off by up to `ROUNDING` of themselves.
    #[cfg(test)]
    pub(super) fn rounded(self, which: u64) -> Self {
        Self { rounding: Some(which), ..self }
    }

    /// The same with gradients.
    pub(super) fn tracked(&self) -> Self {
        Self { device: self.device.clone().autodiff(), ..self.clone() }
    }

    /// Values in [-1, 1), exact in single precision, and in no fewer bits.
    pub(super) fn values(&self, id: u64, count: usize) -> Vec<f64> {
        let seed = hash(self.seed ^ id.wrapping_mul(0xD134_2543_DE82_EF95));
        let value = |index| (hash_of(seed, index) >> 40) as f64 / f64::from(1 << 23) - 1.0;
        let mut values: Vec<f64> = (0..count).map(value).collect();
        if let Some(which) = self.rounding {
            for (index, value) in values.iter_mut().enumerate() {
                let turn = if hash_of(seed ^ hash(which), index) & 1 == 0 { 1.0 } else { -1.0 };
                *value *= 1.0 + turn * ROUNDING;
            }
        }
        if self.fault && id == 0 && count > 0 {
            let wrong = &mut values[count / 2];
            *wrong += if *wrong > 0.0 { -0.5 } else { 0.5 };
        }
        values
    }

    /// Whole numbers below `high`.
    pub(super) fn labels(&self, id: u64, count: usize, high: u32) -> Vec<i64> {
        let label = |value: f64| ((value + 1.0) / 2.0 * f64::from(high)) as i64;
        let high = i64::from(high) - 1;
        let exact = Self { rounding: None, ..self.clone() };
        exact.values(id, count).into_iter().map(|value| label(value).clamp(0, high)).collect()
    }

    /// A tensor of [`values`](Self::values), in the precision of the bench.
    pub(super) fn tensor<const D: usize>(&self, id: u64, shape: [usize; D]) -> Tensor<D> {
        self.tensor_of(self.values(id, shape.iter().product()), shape)
    }

    /// A tensor of given values, in the precision of the bench.
    pub(super) fn tensor_of<const D: usize>(
        &self,
        values: Vec<f64>,
        shape: [usize; D],
    ) -> Tensor<D> {
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        Tensor::from_data(data, (&self.device, self.dtype))
    }

    /// A network with seeded weights, in single precision unless the bench has double.
    pub(super) fn network(&self, config: &StuNetConfig) -> Result<StuNet, ModelError> {
        let dtype = if self.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let mut id = 1000;
        let mut source = |spec: &ParameterSpec| {
            id += 1;
            let values = self.values(id, spec.shape.iter().product());
            let fan_in: usize = spec.shape.iter().skip(1).product();
            let [mean, spread] = match spec.kind {
                ParameterKind::NormWeight => [1.0, 0.5],
                ParameterKind::ConvWeight => [0.0, (6.0 / fan_in as f64).sqrt()],
                _ => [0.0, 0.1],
            };
            // Rounded, so that every precision begins with the same weights.
            let rounds = self.rounding.is_none();
            let rounded = |v: f64| if rounds { f64::from(v as f32) } else { v };
            let value = |v: f64| rounded(mean + spread * v);
            let values: Vec<f64> = values.into_iter().map(value).collect();
            Ok(TensorData::new(values, spec.shape.clone()).convert_dtype(dtype))
        };
        StuNet::from_source(config, &mut source, &self.device)
    }
}

/// The values of a tensor, as a stage gives them.
pub(super) fn numbers(tensor: impl Readable) -> Values {
    let data = stunet_kernels::read(tensor).convert_dtype(DType::F64);
    Values::Numbers(data.iter::<f64>().collect())
}
