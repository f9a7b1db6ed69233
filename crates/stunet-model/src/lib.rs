//! stunet-model
