//! STU-Net in eight bits as a network of predictions.

use super::{Featured, Head, Network, Outputs, WindowCost, upload, window_cost};
use crate::architecture::Architecture;
use crate::error::InferError;
use burn::tensor::Tensor;
use ndarray::Array4;
use std::ops::Range;
use stunet_model::cost;
use stunet_model::eight_bit::EightBitStuNet;

impl Network for EightBitStuNet {
    fn in_channels(&self) -> usize {
        self.config().in_channels
    }

    fn num_classes(&self) -> usize {
        self.config().num_classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        let config = self.config();
        config.validate_patch(window)?;
        let macs = cost::cost(config, window).conv_macs_predict;
        let peak_bytes = Self::peak_bytes(config, window);
        let mut cost = window_cost(config.num_classes, window, peak_bytes, macs);
        cost.peak_bytes += cost.output_bytes;
        Ok(cost)
    }

    fn predict_window(&self, window: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        let (_, depth, height, width) = window.dim();
        let classes = self.num_classes();
        let features = self.features(window).into_data();
        let features = features.as_slice::<f32>().expect("features are f32");
        let (plane, voxels) = (height * width, depth * height * width);
        let step = cost::planes_per_piece(classes, [height, width]);
        let mut values = Vec::new();
        for from in (0..depth).step_by(step) {
            let planes = from..(from + step).min(depth);
            values.resize(classes * planes.len() * plane, 0.0);
            let columns = planes.start * plane..planes.end * plane;
            self.finest_head_rows().run(features, voxels, columns, &mut values);
            take(planes, &values);
        }
    }

    fn architecture(&self) -> Architecture {
        Architecture::StuNet(self.config().clone())
    }

    fn identity(&self) -> Option<String> {
        Some(self.digest().to_owned())
    }

    fn featured(&self) -> Option<&dyn Featured> {
        Some(self)
    }
}

impl Featured for EightBitStuNet {
    fn features(&self, window: Array4<f32>) -> Tensor<5> {
        self.finest_features(upload(window, self.device()))
    }

    fn head(&self) -> Option<Head> {
        Some(Head::of(self.finest_head_rows().clone()))
    }
}
