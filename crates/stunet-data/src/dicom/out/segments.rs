//! What segmentations say of their segments.

use super::derived::{Derived, Segment};
use super::elements::{Elements, fitted};
use super::lab::lab_of;
use crate::labels::{Code, Structure};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// How a segmentation holds its voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentationKind {
    /// A frame for each segment and plane, one bit per voxel (`BINARY`): what every reader knows.
    #[default]
    Binary,
    /// A frame for each plane, the numbers of the segments as its voxels (`LABELMAP`, DICOM 2024d): a
    /// fraction of the size, for readers of the newer kind.
    Labelmap,
}

/// A concept of DICOM's own.
pub(super) fn dcm(value: &str, meaning: &str) -> Code {
    Code { value: value.to_owned(), scheme: "DCM", meaning: meaning.to_owned() }
}

impl Derived<'_> {
    /// The segments, each described.
    pub(super) fn described(&self, kind: SegmentationKind) -> Vec<Elements> {
        let numbers = (1..=u16::MAX).zip(&self.segments);
        match kind {
            SegmentationKind::Binary => {
                numbers.map(|(number, segment)| self.segment(number, segment)).collect()
            }
            // Every value that occurs is described, that of the background too.
            SegmentationKind::Labelmap => [self.background()]
                .into_iter()
                .chain(self.segments.iter().map(|segment| self.segment(segment.value, segment)))
                .collect(),
        }
    }

    fn background(&self) -> Elements {
        let code = dcm("125040", "Background");
        Elements::default()
            .words(tags::SEGMENT_NUMBER, &[0])
            .text(tags::SEGMENT_LABEL, "Background")
            .text(tags::SEGMENT_ALGORITHM_TYPE, "AUTOMATIC")
            .text(tags::SEGMENT_ALGORITHM_NAME, &self.algorithm())
            .code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &code)
            .code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, &code)
    }

    fn segment(&self, number: u16, segment: &Segment) -> Elements {
        let name = self.source.letters(&fitted(&segment.name, 64));
        let algorithm = Elements::default()
            .code(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, &dcm("123110", "Artificial Intelligence"))
            .text(tags::ALGORITHM_NAME, &self.algorithm())
            .text(tags::ALGORITHM_VERSION, env!("CARGO_PKG_VERSION"));
        Elements::default()
            .words(tags::SEGMENT_NUMBER, &[number])
            .text(tags::SEGMENT_LABEL, &name)
            .text(tags::SEGMENT_DESCRIPTION, &format!("label {}", segment.value))
            .text(tags::SEGMENT_ALGORITHM_TYPE, "AUTOMATIC")
            .text(tags::SEGMENT_ALGORITHM_NAME, &self.algorithm())
            .items(tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE, vec![algorithm])
            .words(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &lab_of(segment.appearance.rgb))
            .text(tags::TRACKING_ID, &name)
            .text(tags::TRACKING_UID, &self.uid(&format!("label {}", segment.value)))
            .and(property(
                &segment.appearance.structure,
                tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE,
                |text| self.source.letters(text),
            ))
    }
}

/// The concepts of a structure: its category, what it is (in an element of that name), of which side,
/// and where it lies.
pub(super) fn property(
    structure: &Structure,
    name: Tag,
    letters: impl Fn(&str) -> String,
) -> Elements {
    let Structure { category, kind, side, region } = structure;
    let mut kind = Elements::of_code(kind).text(tags::CODE_MEANING, &letters(&kind.meaning));
    if let Some(side) = side {
        kind = kind.code(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, &side.code());
    }
    let elements = Elements::default()
        .code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, category)
        .items(name, vec![kind]);
    let Some(region) = region else { return elements };
    let mut part = Elements::of_code(&region.part);
    if let Some(side) = region.side {
        part = part.code(tags::ANATOMIC_REGION_MODIFIER_SEQUENCE, &side.code());
    }
    elements.items(tags::ANATOMIC_REGION_SEQUENCE, vec![part])
}
