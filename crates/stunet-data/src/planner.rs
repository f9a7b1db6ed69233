//! x
mod memory;
mod pooling;
