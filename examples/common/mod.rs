//! What the examples share: phantoms as images, the demo model, pictures.
// Every example uses a part of this.
#![allow(dead_code)]

pub mod demo;
pub mod overlay;
pub mod phantoms;
pub mod training;
