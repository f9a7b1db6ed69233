//! stunet-testing
