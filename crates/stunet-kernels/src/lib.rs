//! stunet-kernels
