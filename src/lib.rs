//! stunet
