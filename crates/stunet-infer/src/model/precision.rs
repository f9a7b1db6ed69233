//! What the networks of a model compute in.

use super::Model;
use crate::error::InferError;
use crate::network::Network;
use serde::Serialize;
use std::any::Any;
use std::sync::OnceLock;
use stunet_model::StuNet;
use stunet_model::eight_bit::EightBitStuNet;

/// What a network's convolutions are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPrecision {
    /// Single precision.
    #[default]
    F32,
    /// Integers of eight bits: an approximation.
    Int8,
}

impl Model {
    /// The model with its networks in eight bits, which are faster on processors that multiply such numbers
    /// ([`has_eight_bit_products`](stunet_model::has_eight_bit_products)), and whose labels differ from those of the
    /// model: see `stunet_model::eight_bit`. It can predict, and can no longer be saved. Its [digest](Self::digest) is that
    /// of the model; a [`Record`](crate::Record) says the precision beside it.
    ///
    /// # Errors
    /// When a network is no STU-Net on the processor.
    pub fn in_eight_bits(self) -> Result<Self, InferError> {
        let digest = OnceLock::from(self.digest().map(str::to_owned));
        let Self { networks, description, .. } = self;
        let found = || InferError::EightBits { found: description.config.to_string() };
        let networks = networks.into_iter().map(|network| eight_bits(network).ok_or_else(found));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { networks, description, digest })
    }

    /// What its networks compute in.
    pub fn precision(&self) -> NetworkPrecision {
        let network: &dyn Any = &*self.networks[0];
        match network.is::<EightBitStuNet>() {
            true => NetworkPrecision::Int8,
            false => NetworkPrecision::F32,
        }
    }
}

fn eight_bits(network: Box<dyn Network>) -> Option<Box<dyn Network>> {
    let network: Box<dyn Any> = network;
    let stunet = network.downcast::<StuNet>().ok()?;
    Some(Box::new(EightBitStuNet::new(&stunet)?))
}

#[cfg(test)]
mod tests;
