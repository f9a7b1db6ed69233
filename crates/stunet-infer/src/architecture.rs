//! What kind of network a model has.

use serde::Serialize;
use std::fmt;
use stunet_model::StuNetConfig;
use stunet_model::plain_unet::PlainConvUNetConfig;

/// What kind of network a model has, and its configuration where that is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Architecture {
    /// STU-Net.
    StuNet(StuNetConfig),
    /// nnU-Net's plain convolutional U-Net.
    PlainConvUNet(PlainConvUNetConfig),
    /// A network that is not from here.
    Other {
        /// Its name.
        name: String,
    },
}

impl Architecture {
    /// The name of the kind, such as `STU-Net`.
    pub fn name(&self) -> &str {
        match self {
            Self::StuNet(_) => "STU-Net",
            Self::PlainConvUNet(_) => "PlainConvUNet",
            Self::Other { name } => name,
        }
    }

    /// The configuration, if the network is an STU-Net.
    pub fn stunet(&self) -> Option<&StuNetConfig> {
        match self {
            Self::StuNet(config) => Some(config),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
