//! stunet-infer
