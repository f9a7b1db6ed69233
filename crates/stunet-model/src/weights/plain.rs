//! Checkpoints of nnU-Net's plain U-Net: its parameter names, and loading it.

use super::checkpoint::{Checkpoint, NetworkKind};
use super::digest::Digesting;
use super::key_map::{split_index, unwrapped};
use super::report::LoadReport;
use crate::plain_unet::{PlainConvUNet, PlainConvUNetConfig};
use crate::{ModelError, ParameterSource, ParameterSpec};
use burn::tensor::{Device, TensorData};
use serde_json::Value;

/// What a key of the reference is.
pub(super) enum Key {
    /// A parameter, under our name.
    Parameter(String),
    /// A parameter that stands there under another key, too: blocks list their members twice, and
    /// the decoder has a reference to the encoder.
    Again,
    /// Nothing of this network.
    Unknown,
}

/// What a key of the reference is in a plain U-Net.
///
/// # Source
/// dynamic-network-architectures 0.4 `PlainConvUNet.state_dict()`.
pub(super) fn own_name(key: &str) -> Key {
    let key = unwrapped(key);
    if key.starts_with("decoder.encoder.stages.") || key.contains(".all_modules.") {
        return Key::Again;
    }
    parameter(key).map_or(Key::Unknown, Key::Parameter)
}

fn parameter(key: &str) -> Option<String> {
    let (half, rest) = key.split_once('.')?;
    let (list, rest) = rest.split_once('.')?;
    let (index, rest) = split_index(rest)?;
    let member = match (half, list) {
        ("encoder", "stages") => block(rest.strip_prefix("0.convs.")?)?,
        ("decoder", "stages") => block(rest.strip_prefix("convs.")?)?,
        ("decoder", "transpconvs" | "seg_layers") => leaf(rest)?.to_owned(),
        _ => return None,
    };
    Some(format!("{half}.{list}.{index}.{member}"))
}

fn block(text: &str) -> Option<String> {
    let (index, rest) = split_index(text)?;
    let (member, rest) = rest.split_once('.')?;
    matches!(member, "conv" | "norm").then_some(())?;
    Some(format!("{index}.{member}.{}", leaf(rest)?))
}

fn leaf(text: &str) -> Option<&str> {
    matches!(text, "weight" | "bias").then_some(text)
}

impl Checkpoint {
    /// The plain U-Net that a configuration of the plans describes, with everything it inherits;
    /// channels and classes are read off the tensors.
    ///
    /// # Errors
    /// When the checkpoint holds another network, or the plans do.
    pub fn plain_config(&self, configuration: &Value) -> Result<PlainConvUNetConfig, ModelError> {
        self.expect(NetworkKind::PlainConvUNet)?;
        let channels = self.length("encoder.stages.0.0.conv.weight", 1)?;
        let mut heads = self.tensors().filter(|(name, _)| name.starts_with("decoder.seg_layers."));
        let (head, _) = heads.next().ok_or_else(|| {
            ModelError::checkpoint(self.path(), "segmentation heads", "a checkpoint without any")
        })?;
        let classes =
            self.length(&format!("{}.weight", head.rsplit_once('.').map_or(head, |h| h.0)), 0)?;
        PlainConvUNetConfig::from_plans(configuration, channels, classes)
    }

    /// What loading into a plain U-Net of this configuration would apply; reads no tensor.
    pub fn compare_plain(&self, config: &PlainConvUNetConfig) -> LoadReport {
        self.compare_specs(&config.parameter_specs())
    }

    /// Loads the plain U-Net that the checkpoint holds; every tensor must find its place.
    ///
    /// # Errors
    /// When something is missing, unused or of another shape, or a tensor cannot be read.
    pub fn load_plain(
        &self,
        config: &PlainConvUNetConfig,
        device: &Device,
    ) -> Result<(PlainConvUNet, LoadReport), ModelError> {
        self.expect(NetworkKind::PlainConvUNet)?;
        config.validate()?;
        let mut report = self.compare_plain(config);
        if !report.is_complete() {
            let path = self.path().to_owned();
            return Err(ModelError::Load { report: Box::new(report), path });
        }
        let mut read = Values(self);
        let mut source = Digesting::new(&mut read);
        let network = config.init_from(&mut source, device)?;
        report.digest = Some(source.finish());
        Ok((network, report))
    }
}

/// A checkpoint that is known to have every parameter.
struct Values<'a>(&'a Checkpoint);

impl ParameterSource for Values<'_> {
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        Ok(TensorData::new(self.0.read(&spec.name)?, spec.shape.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |key: &str, expected: Option<&str>| {
            for key in [key.to_owned(), format!("module.{key}"), format!("_orig_mod.{key}")] {
                match (own_name(&key), expected) {
                    (Key::Parameter(found), Some(expected)) => assert_eq!(found, expected),
                    (Key::Again, Some("again")) | (Key::Unknown, None) => {}
                    _ => panic!("{key}"),
                }
            }
        };
        let name = "encoder.stages.0.1.conv.weight";
        check("encoder.stages.0.0.convs.1.conv.weight", Some(name));
        check("encoder.stages.4.0.convs.0.norm.bias", Some("encoder.stages.4.0.norm.bias"));
        check("decoder.stages.2.convs.1.norm.weight", Some("decoder.stages.2.1.norm.weight"));
        check("decoder.transpconvs.0.weight", Some("decoder.transpconvs.0.weight"));
        check("decoder.seg_layers.3.bias", Some("decoder.seg_layers.3.bias"));
        let again = "decoder.encoder.stages.0.0.convs.0.conv.weight";
        assert!(matches!(own_name(again), Key::Again));
        let again = "encoder.stages.0.0.convs.0.all_modules.1.bias";
        assert!(matches!(own_name(again), Key::Again));
        check("encoder.stages.0.0.convs.0.norm.running_mean", None);
        check("encoder.stages.01.0.convs.0.conv.weight", None);
        check("encoder.stages.0.blocks.0.conv1.conv.weight", None);
        check("conv_blocks_context.0.0.conv1.weight", None);
        check("", None);
        use crate::weights::key_map::known_by;
        assert!(known_by("encoder.stem.convs.0.conv.weight").unwrap().contains("ResidualEncoder"));
    }
}
