//! stunet-train
