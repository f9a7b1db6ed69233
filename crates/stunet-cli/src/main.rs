//! stunet
fn main() {}
