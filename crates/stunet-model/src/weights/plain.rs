//! Checkpoints of nnU-Net's plain U-Net: what it is, and loading it.

use super::checkpoint::{Checkpoint, NetworkKind};
use super::digest::Digesting;
use super::report::LoadReport;
use crate::plain_unet::{PlainConvUNet, PlainConvUNetConfig};
use crate::{ModelError, ParameterSource, ParameterSpec};
use burn::tensor::{Device, TensorData};
use serde_json::Value;

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
