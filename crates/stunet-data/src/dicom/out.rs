//! Labels as DICOM objects: segmentations and structure sets.

mod contours;
mod copied;
mod derived;
mod elements;
mod file;
mod lab;
mod note;
mod outline;
mod packed;
mod segmentation;
mod segments;
mod source;
mod structure_set;

pub use derived::{Derived, DicomProvenance};
pub use note::{note_in_memory, read_note};
pub use segments::SegmentationKind;
pub use source::Source;
