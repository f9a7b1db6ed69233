//! stunet-data
