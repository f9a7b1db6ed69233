//! The losses of nnU-Net's trainer variants, beside what nnU-Net 2.8.1's own objects computed
//! (`scripts/reference/record_variants.py`).
#![allow(clippy::unwrap_used)]

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::Deserialize;
use std::collections::BTreeMap;
use stunet_testing::prng;
use stunet_train::loss::{Loss, LossConfig, LossRoute, LossTerms, ZeroWeight, deep_supervision};

/// On values relative to 1 or to themselves, on gradients relative to the largest of their scale.
const BOUND: f64 = 1e-6;

#[derive(Deserialize)]
struct Recorded {
    seed: u64,
    scales: Vec<[usize; 3]>,
    classes: usize,
    ignore: i32,
    regions: Vec<Vec<i32>>,
    labels: BTreeMap<bool, Vec<Vec<i32>>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    loss: String,
    batch_dice: bool,
    ignored: bool,
    regions: bool,
    value: f64,
    norms: Vec<f64>,
    sampled: Vec<Vec<f64>>,
}

impl Case {
    fn config(&self, recorded: &Recorded) -> LossConfig {
        let stock = LossConfig::v2(self.batch_dice);
        let (terms, smooth) = match self.loss.as_str() {
            "dice-ce" => (LossTerms::DiceAndCrossEntropy, 1e-5),
            "dice-ce-no-smooth" => (LossTerms::DiceAndCrossEntropy, 0.0),
            "dice" => (LossTerms::Dice, 1e-5),
            "ce" => (LossTerms::CrossEntropy, 1e-5),
            "topk10" => (LossTerms::TopK { percent: 10.0, label_smoothing: 0.0 }, 1e-5),
            "topk10-ls01" => (LossTerms::TopK { percent: 10.0, label_smoothing: 0.1 }, 1e-5),
            "dice-topk10" => (LossTerms::DiceAndTopK { percent: 10.0 }, 1e-5),
            other => panic!("unknown loss {other}"),
        };
        LossConfig {
            terms,
            smooth,
            weights: deep_supervision::weights(recorded.scales.len()),
            zero_weight: ZeroWeight::Skip,
            ignore_label: self.ignored.then_some(recorded.ignore),
            regions: self.regions.then(|| recorded.regions.clone()),
            ..stock
        }
    }

    fn check(&self, recorded: &Recorded, route: LossRoute, dtype: DType) {
        let device = Device::flex().autodiff();
        let told = format!(
            "{} {} {} {} {route:?}",
            self.loss, self.batch_dice, self.ignored, self.regions
        );
        let channels = if self.regions { recorded.regions.len() } else { recorded.classes };
        let scales = || recorded.scales.iter().enumerate();
        let logits: Vec<_> = scales()
            .map(|(scale, &[z, y, x])| {
                let values =
                    prng::uniform(recorded.seed, 10 + scale as u64, 2 * channels * z * y * x);
                let values: Vec<f32> = values.into_iter().map(|v| 3.0 * v).collect();
                let data = TensorData::new(values, [2, channels, z, y, x]).convert_dtype(dtype);
                Tensor::<5>::from_data(data, (&device, dtype)).require_grad()
            })
            .collect();
        let targets: Vec<Tensor<4, Int>> = scales()
            .map(|(scale, &[z, y, x])| {
                let labels = recorded.labels[&self.ignored][scale].clone();
                Tensor::from_data(TensorData::new(labels, [2, z, y, x]), &device)
            })
            .collect();
        let loss = Loss::new(LossConfig { evaluation: route, ..self.config(recorded) }).unwrap();
        let (value, grads) = loss.backward(logits.clone(), &targets);
        let close =
            |found: f64, expected: f64, scale: f64| (found - expected).abs() <= BOUND * scale;
        assert!(
            close(value.total, self.value, self.value.abs().max(1.0)),
            "{told}: {} {}",
            value.total,
            self.value
        );
        for (scale, expected) in self.sampled.iter().enumerate() {
            let found: Vec<f64> =
                logits[scale].grad(&grads).unwrap().into_data().iter::<f64>().collect();
            let norm = found.iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!(
                close(norm, self.norms[scale], self.norms[scale]),
                "{told}: {norm} {}",
                self.norms[scale]
            );
            let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            for (found, expected) in found.iter().step_by(3).zip(expected) {
                assert!(
                    close(*found, *expected, largest),
                    "{told}, scale {scale}: {found} {expected}"
                );
            }
        }
        assert!(logits[2].grad(&grads).is_none(), "{told}: the coarsest scale");
        let plain: Vec<_> = logits.into_iter().map(Tensor::inner).collect();
        let targets: Vec<_> = targets.into_iter().map(Tensor::inner).collect();
        assert_eq!(loss.value(&plain, &targets), value, "{told}");
    }
}

#[test]
fn every_variant_is_nnunets() {
    let recorded = include_str!("../../../tests/data/variants/losses.json");
    let recorded: Recorded = serde_json::from_str(recorded).unwrap();
    assert!(recorded.cases.len() >= 24, "{}", recorded.cases.len());
    for case in &recorded.cases {
        for route in [LossRoute::Automatic, LossRoute::Device] {
            case.check(&recorded, route, DType::F32);
        }
        case.check(&recorded, LossRoute::Device, DType::F64);
    }
}

fn message(terms: LossTerms, regions: bool) -> String {
    let regions = regions.then(|| vec![vec![1]]);
    Loss::new(LossConfig { terms, regions, ..LossConfig::v2(true) }).unwrap_err().to_string()
}

#[test]
fn what_has_no_meaning_is_refused() {
    let top = |percent, label_smoothing| LossTerms::TopK { percent, label_smoothing };
    assert!(message(LossTerms::CrossEntropy, true).contains("where there are regions"));
    assert!(message(top(10.0, 0.0), true).contains("where there are regions"));
    assert!(
        message(LossTerms::DiceAndTopK { percent: 10.0 }, true).contains("where there are regions")
    );
    assert!(message(top(0.0, 0.0), false).contains("above 0 and at most 100"));
    assert!(message(top(101.0, 0.0), false).contains("above 0 and at most 100"));
    assert!(message(top(10.0, 1.0), false).contains("label smoothing"));
}

/// Where every voxel is ignored there is nothing to learn: the reference's CE would be 0 / 0.
#[test]
fn everything_ignored_is_no_loss() {
    let device = Device::flex().autodiff();
    let targets = [Tensor::<4, Int>::full([1, 2, 2, 2], 3, &device)];
    for terms in [
        LossTerms::CrossEntropy,
        LossTerms::Dice,
        LossTerms::TopK { percent: 10.0, label_smoothing: 0.1 },
        LossTerms::DiceAndTopK { percent: 10.0 },
    ] {
        let config =
            LossConfig { terms, ignore_label: Some(3), weights: vec![1.0], ..LossConfig::v2(true) };
        let logits = Tensor::<5>::ones([1, 3, 2, 2, 2], &device).require_grad();
        let (value, grads) = Loss::new(config).unwrap().backward(vec![logits.clone()], &targets);
        assert_eq!(value.cross_entropy, 0.0, "{terms:?}");
        assert!(
            logits.grad(&grads).unwrap().into_data().iter::<f32>().all(|v| v == 0.0),
            "{terms:?}"
        );
    }
}
