//! The configuration of a plain convolutional U-Net, and how nnU-Net's plans spell it.

use crate::ModelError;
use burn::config::Config;
use serde_json::Value;

/// A plain convolutional U-Net: everything that decides its parameters and its arithmetic.
///
/// Lists go from the finest stage to the bottleneck.
///
/// ```
/// use stunet_model::plain_unet::PlainConvUNetConfig;
/// let config = PlainConvUNetConfig::new(
///     1, 3, vec![32, 64, 128],
///     vec![[1, 3, 3], [3; 3], [3; 3]],
///     vec![[1; 3], [1, 2, 2], [2; 3]],
///     vec![2; 3], vec![2; 2],
/// );
/// assert_eq!(config.total_stride(), [2, 4, 4]);
/// # Ok::<(), stunet_model::ModelError>(())
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct PlainConvUNetConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Classes, background included.
    pub num_classes: usize,
    /// Features of each stage.
    pub features: Vec<usize>,
    /// Kernel of the convolutions of each stage, `[z, y, x]`: odd.
    pub kernels: Vec<[usize; 3]>,
    /// Stride into each stage, `[z, y, x]`; that of the first is usually 1.
    pub strides: Vec<[usize; 3]>,
    /// Convolutions of each stage of the encoder.
    pub convs: Vec<usize>,
    /// Convolutions of each stage of the decoder, coarsest first.
    pub decoder_convs: Vec<usize>,
    /// Whether the convolutions have a bias; the heads always have one.
    #[config(default = true)]
    pub conv_bias: bool,
    /// Added to the variance under the root of the instance norms.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Slope of the leaky ReLU for negative values.
    #[config(default = 0.01)]
    pub slope: f64,
}

/// Most features, channels or classes.
const MOST: usize = 1 << 16;

impl PlainConvUNetConfig {
    /// Stages of the encoder, bottleneck included.
    pub fn num_stages(&self) -> usize {
        self.features.len()
    }

    /// The factor by which the bottleneck is smaller than the input, `[z, y, x]`; window sizes are
    /// multiples of it.
    pub fn total_stride(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.strides.iter().map(|stride| stride[axis]).product())
    }

    /// Spatial size of every stage for an input of size `input`, `[z, y, x]`.
    pub fn stage_sizes(&self, input: [usize; 3]) -> Vec<[usize; 3]> {
        let mut size = input;
        let sizes = self.strides.iter().map(|stride| {
            size = [0, 1, 2].map(|axis| size[axis].div_ceil(stride[axis]));
            size
        });
        sizes.collect()
    }

    /// Checks what a network needs.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the field, when a number is beyond reason or lists disagree.
    pub fn validate(&self) -> Result<(), ModelError> {
        let stages = self.num_stages();
        if !(2..=16).contains(&stages) {
            return Err(ModelError::config("features", "2 to 16 stages", stages));
        }
        let lengths = [
            ("kernels", self.kernels.len(), stages),
            ("strides", self.strides.len(), stages),
            ("convs", self.convs.len(), stages),
            ("decoder_convs", self.decoder_convs.len(), stages - 1),
        ];
        for (what, found, expected) in lengths {
            if found != expected {
                return Err(ModelError::config(what, format!("{expected} entries"), found));
            }
        }
        let count = |what, values: &[usize], most| match values
            .iter()
            .find(|value| !(1..=most).contains(*value))
        {
            Some(found) => Err(ModelError::config(what, format!("1 to {most}"), found)),
            None => Ok(()),
        };
        count("in_channels", &[self.in_channels], MOST)?;
        count("num_classes", &[self.num_classes], MOST)?;
        count("features", &self.features, MOST)?;
        count("convs", &self.convs, 64)?;
        count("decoder_convs", &self.decoder_convs, 64)?;
        count("strides", self.strides.as_flattened(), 8)?;
        if let Some(found) =
            self.kernels.as_flattened().iter().find(|k| !matches!(k, 1 | 3 | 5 | 7))
        {
            return Err(ModelError::config("kernels", "1, 3, 5 or 7 voxels", found));
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.epsilon) {
            return Err(ModelError::config("epsilon", "more than 0", self.epsilon));
        }
        if !positive(self.slope) {
            return Err(ModelError::config("slope", "more than 0", self.slope));
        }
        Ok(())
    }

    /// Checks that a window fits the network: every axis a multiple of the total stride, and more
    /// than one voxel left at the bottleneck.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the sizes.
    pub fn validate_patch(&self, patch: [usize; 3]) -> Result<(), ModelError> {
        let total = self.total_stride();
        if (0..3).any(|axis| patch[axis] == 0 || !patch[axis].is_multiple_of(total[axis])) {
            return Err(ModelError::config("patch size", format!("multiples of {total:?}"), patch));
        }
        if [0, 1, 2].iter().all(|&axis| patch[axis] == total[axis]) {
            let expected = "more than one voxel at the bottleneck";
            return Err(ModelError::config("patch size", expected, patch));
        }
        Ok(())
    }

    /// The network that a configuration of nnU-Net 2's `plans.json` describes, with everything it
    /// inherits: `architecture` of 2.4 and later, or the flat keys of 2.2.
    ///
    /// # Errors
    /// When it is another network, a 2-D one, or an entry is missing or not supported.
    ///
    /// # Source
    /// nnU-Net 2.8.1 `get_network_from_plans`, and `ConfigurationManager.__init__` for the flat keys;
    /// dynamic-network-architectures 0.4 `PlainConvUNet`.
    pub fn from_plans(
        configuration: &Value,
        in_channels: usize,
        num_classes: usize,
    ) -> Result<Self, ModelError> {
        let config = match configuration.get("architecture") {
            Some(architecture) => nested(architecture, in_channels, num_classes)?,
            None => flat(configuration, in_channels, num_classes)?,
        };
        config.validate()?;
        Ok(config)
    }
}

/// The name of the class, whatever module it stands in.
const CLASS: &str = "PlainConvUNet";

fn nested(
    architecture: &Value,
    in_channels: usize,
    num_classes: usize,
) -> Result<PlainConvUNetConfig, ModelError> {
    is_class(architecture, "network_class_name")?;
    let arguments = architecture.get("arch_kwargs").unwrap_or(&Value::Null);
    class(arguments, "conv_op", "Conv3d", "a 3-D network; 2-D configurations are not supported")?;
    class(arguments, "norm_op", "InstanceNorm3d", "instance norm")?;
    class(arguments, "nonlin", "LeakyReLU", "leaky ReLU")?;
    if arguments.get("nonlin_first").is_some_and(|value| *value == true) {
        let expected = "the norm before the activation";
        return Err(ModelError::config("arch_kwargs.nonlin_first", expected, true));
    }
    let norm = arguments.get("norm_op_kwargs").unwrap_or(&Value::Null);
    if norm.get("affine").is_none_or(|value| *value != true) {
        let found = norm.get("affine");
        return Err(ModelError::config("arch_kwargs.norm_op_kwargs.affine", "true", found));
    }
    let stages: usize = entry(arguments, "n_stages")?;
    // What has one value for all stages may be written once.
    let per_stage = |key: &'static str, stages: usize| -> Result<Vec<usize>, ModelError> {
        match arguments.get(key).and_then(Value::as_u64) {
            Some(_) => Ok(vec![entry(arguments, key)?; stages.min(16)]),
            None => entry(arguments, key),
        }
    };
    let number = |at: &Value, key: &str, default: f64| match at.get(key) {
        None => Ok(default),
        Some(value) => value.as_f64().ok_or_else(|| wrong("arch_kwargs", "numbers", value)),
    };
    let activation = arguments.get("nonlin_kwargs").unwrap_or(&Value::Null);
    Ok(PlainConvUNetConfig {
        in_channels,
        num_classes,
        features: per_stage("features_per_stage", stages)?,
        kernels: entry(arguments, "kernel_sizes")?,
        strides: entry(arguments, "strides")?,
        convs: per_stage("n_conv_per_stage", stages)?,
        decoder_convs: per_stage("n_conv_per_stage_decoder", stages.saturating_sub(1))?,
        conv_bias: match arguments.get("conv_bias") {
            None => false,
            Some(_) => entry(arguments, "conv_bias")?,
        },
        epsilon: number(norm, "eps", 1e-5)?,
        slope: number(activation, "negative_slope", 0.01)?,
    })
}

fn flat(
    configuration: &Value,
    in_channels: usize,
    num_classes: usize,
) -> Result<PlainConvUNetConfig, ModelError> {
    is_class(configuration, "UNet_class_name")?;
    let patch: Vec<usize> = entry(configuration, "patch_size")?;
    if patch.len() != 3 {
        let expected = "three lengths; 2-D configurations are not supported";
        return Err(ModelError::config("patch_size", expected, patch));
    }
    let convs: Vec<usize> = entry(configuration, "n_conv_per_stage_encoder")?;
    let base: usize = entry(configuration, "UNet_base_num_features")?;
    let most: usize = entry(configuration, "unet_max_num_features")?;
    let doubled = |stage: usize| base.saturating_mul(1 << stage.min(32)).min(most);
    Ok(PlainConvUNetConfig {
        features: (0..convs.len()).map(doubled).collect(),
        kernels: entry(configuration, "conv_kernel_sizes")?,
        strides: entry(configuration, "pool_op_kernel_sizes")?,
        decoder_convs: entry(configuration, "n_conv_per_stage_decoder")?,
        convs,
        ..PlainConvUNetConfig::new(
            in_channels,
            num_classes,
            Vec::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        )
    })
}

fn is_class(at: &Value, key: &'static str) -> Result<(), ModelError> {
    class(at, key, CLASS, "PlainConvUNet, the only one of nnU-Net's networks that is known here")
}

/// An entry that names a class in some module.
fn class(
    at: &Value,
    key: &'static str,
    expected: &str,
    told: &'static str,
) -> Result<(), ModelError> {
    let found = at.get(key).and_then(Value::as_str).unwrap_or("nothing");
    match found.rsplit('.').next() == Some(expected) {
        true => Ok(()),
        false => {
            Err(ModelError::Config { what: key, expected: told.to_owned(), found: shown(found) })
        }
    }
}

fn entry<T: serde::de::DeserializeOwned>(at: &Value, key: &'static str) -> Result<T, ModelError> {
    let found = at.get(key).unwrap_or(&Value::Null);
    serde_json::from_value(found.clone())
        .map_err(|_| wrong(key, "an entry of a 3-D network", found))
}

fn wrong(what: &'static str, expected: &str, found: &Value) -> ModelError {
    let expected = expected.to_owned();
    ModelError::Config { what, expected, found: shown(&found.to_string()) }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plans() -> Value {
        json!({
            "patch_size": [16, 32, 32],
            "architecture": {
                "network_class_name":
                    "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [32, 64, 128],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                    "n_conv_per_stage": [2, 2, 2],
                    "n_conv_per_stage_decoder": [2, 2],
                    "conv_bias": true,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": true},
                    "dropout_op": null,
                    "dropout_op_kwargs": null,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": true},
                },
            },
        })
    }

    #[test]
    fn both_spellings_are_the_same_network() {
        let nested = PlainConvUNetConfig::from_plans(&plans(), 2, 4).unwrap();
        let flat = json!({
            "patch_size": [16, 32, 32],
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 32,
            "unet_max_num_features": 320,
            "n_conv_per_stage_encoder": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "num_pool_per_axis": [1, 2, 2],
            "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        });
        assert_eq!(PlainConvUNetConfig::from_plans(&flat, 2, 4).unwrap(), nested);
        assert_eq!(nested.stage_sizes([16, 32, 32]), [[16, 32, 32], [16, 16, 16], [8, 8, 8]]);
        nested.validate_patch([16, 32, 32]).unwrap();
        assert!(nested.validate_patch([15, 32, 32]).is_err());
        assert!(nested.validate_patch([2, 4, 4]).is_err());
    }

    #[test]
    fn other_networks_are_refused_by_name() {
        let check = |key: &str, value: Value, words: &str| {
            let mut plans = plans();
            match key {
                "network_class_name" => plans["architecture"][key] = value,
                _ => plans["architecture"]["arch_kwargs"][key] = value,
            }
            let message = PlainConvUNetConfig::from_plans(&plans, 1, 2).unwrap_err().to_string();
            assert!(message.contains(words), "expected {words:?}, found {message:?}");
        };
        check("network_class_name", json!("a.b.ResidualEncoderUNet"), "a.b.ResidualEncoderUNet");
        check("conv_op", json!("torch.nn.modules.conv.Conv2d"), "2-D");
        check("norm_op", json!("torch.nn.BatchNorm3d"), "instance norm");
        check("norm_op_kwargs", json!({"affine": false}), "affine");
        check("nonlin", json!("torch.nn.ReLU"), "leaky ReLU");
        check("nonlin_first", json!(true), "norm before the activation");
        check("strides", json!([[1, 1], [2, 2], [2, 2]]), "strides");
        check("strides", json!([[1, 1, 1]]), "3 entries");
        check("features_per_stage", json!([0, 1, 2]), "features");
        check("kernel_sizes", json!([[2, 2, 2], [3, 3, 3], [3, 3, 3]]), "1, 3, 5 or 7");
        check("n_conv_per_stage", json!(null), "n_conv_per_stage");
    }
}
