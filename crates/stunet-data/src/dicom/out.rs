//! Labels as DICOM objects: segmentations and structure sets.

mod contours;
mod copied;
mod derived;
mod elements;
mod file;
mod lab;
mod note;
mod outline;
mod segmentation;
mod source;
mod structure_set;

pub use derived::{Derived, Provenance};
pub use note::read_note;
pub use segmentation::SegmentationKind;
pub use source::Source;
