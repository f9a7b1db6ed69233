//! RT structure sets: the outline of each label in every plane.

use super::contours::{Contour, contours};
use super::derived::{Common, Derived, Segment, referred};
use super::elements::{Elements, fitted};
use super::file::{self, Encoding, Object};
use super::segments::property;
use crate::error::Result;
use crate::files;
use dicom_dictionary_std::{tags, uids};
use rayon::prelude::*;
use std::io::Write;
use std::path::Path;

/// The class of studies that structure sets refer to: retired, and asked for all the same.
const STUDY_CLASS: &str = "1.2.840.10008.3.1.2.3.1";

impl Derived<'_> {
    /// Writes an RT structure set of the labels that occur: closed polygons in the planes of the series,
    /// holes joined to what lies around them.
    ///
    /// Regions of interest have their label values as numbers. Planes between images, where slices were
    /// interpolated, have polygons that refer to no image.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_structure_set(&self, path: &Path) -> Result<()> {
        files::write(path, |file| self.structure_set(file))
    }

    /// As [`Derived::write_structure_set`], into memory.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn structure_set_to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.structure_set(&mut bytes)?;
        Ok(bytes)
    }

    fn structure_set(&self, to: &mut dyn Write) -> Result<()> {
        const WHAT: &str = "Structure set";
        let class = uids::RT_STRUCTURE_SET_STORAGE;
        let common = Common { class, modality: "RTSTRUCT", what: WHAT, number_from: 3000 };
        let [date, time] = self.when();
        let regions = self.segments.iter().map(|segment| self.region(segment)).collect();
        let before = self
            .common(&common)
            .or_empty(&[tags::OPERATORS_NAME])
            .text(tags::STRUCTURE_SET_LABEL, "stunet")
            .text(tags::STRUCTURE_SET_NAME, &self.algorithm())
            .text(tags::STRUCTURE_SET_DATE, &date)
            .text(tags::STRUCTURE_SET_TIME, &time)
            .items(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, vec![self.frame_of_reference()])
            .items(tags::STRUCTURE_SET_ROI_SEQUENCE, regions);
        let observations = self.segments.iter().map(|segment| self.observation(segment)).collect();
        let behind = Elements::default()
            .items(tags::RTROI_OBSERVATIONS_SEQUENCE, observations)
            .text(tags::APPROVAL_STATUS, "UNAPPROVED");
        let instance = self.uid(WHAT);
        // Polygons of more than 64 KiB are only possible without types.
        let object = Object { class, instance: &instance, encoding: Encoding::Implicit };
        file::write(to, &object, |out| {
            out.elements(&before)?;
            out.begin_sequence(tags::ROI_CONTOUR_SEQUENCE)?;
            for segment in &self.segments {
                out.item(&self.outlined(segment))?;
            }
            out.end_sequence()?;
            out.elements(&behind)
        })
    }

    fn frame_of_reference(&self) -> Elements {
        let source = self.source;
        let images = source.images.iter().map(referred).collect();
        let series = Elements::default()
            .text(tags::SERIES_INSTANCE_UID, &source.series_uid)
            .items(tags::CONTOUR_IMAGE_SEQUENCE, images);
        let study = Elements::default()
            .text(tags::REFERENCED_SOP_CLASS_UID, STUDY_CLASS)
            .text(tags::REFERENCED_SOP_INSTANCE_UID, &source.study_uid)
            .items(tags::RT_REFERENCED_SERIES_SEQUENCE, vec![series]);
        Elements::default()
            .text(tags::FRAME_OF_REFERENCE_UID, &source.frame_of_reference)
            .items(tags::RT_REFERENCED_STUDY_SEQUENCE, vec![study])
    }

    fn region(&self, segment: &Segment) -> Elements {
        let millilitres = segment.voxels as f64 * self.source.grid.voxel_volume_mm3() / 1000.0;
        Elements::default()
            .text(tags::ROI_NUMBER, &segment.value.to_string())
            .text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, &self.source.frame_of_reference)
            .text(tags::ROI_NAME, &self.source.letters(&fitted(&segment.name, 64)))
            .decimals(tags::ROI_VOLUME, &[(millilitres * 1e4).round() / 1e4])
            .text(tags::ROI_GENERATION_ALGORITHM, "AUTOMATIC")
            .text(tags::ROI_GENERATION_DESCRIPTION, &self.algorithm())
    }

    fn outlined(&self, segment: &Segment) -> Elements {
        let colour: Vec<String> = segment.appearance.rgb.iter().map(u8::to_string).collect();
        let contours = contours(self, segment);
        let item = |(index, contour): (usize, Contour)| {
            let elements = Elements::default()
                .text(tags::CONTOUR_GEOMETRIC_TYPE, "CLOSED_PLANAR")
                .text(tags::NUMBER_OF_CONTOUR_POINTS, &contour.num_points.to_string())
                .text(tags::CONTOUR_NUMBER, &(index + 1).to_string())
                .text(tags::CONTOUR_DATA, &contour.data);
            match self.source.planes[contour.plane].own() {
                Some(image) => elements.items(tags::CONTOUR_IMAGE_SEQUENCE, vec![referred(image)]),
                None => elements,
            }
        };
        let items: Vec<Elements> = contours.into_par_iter().enumerate().map(item).collect();
        let elements = Elements::default()
            .text(tags::ROI_DISPLAY_COLOR, &colour.join("\\"))
            .text(tags::REFERENCED_ROI_NUMBER, &segment.value.to_string());
        match items.is_empty() {
            true => elements,
            false => elements.items(tags::CONTOUR_SEQUENCE, items),
        }
    }

    fn observation(&self, segment: &Segment) -> Elements {
        let structure = &segment.appearance.structure;
        let anatomical = structure.is_known() && structure.category.value == "123037004";
        Elements::default()
            .text(tags::OBSERVATION_NUMBER, &segment.value.to_string())
            .text(tags::REFERENCED_ROI_NUMBER, &segment.value.to_string())
            .text(tags::RTROI_INTERPRETED_TYPE, if anatomical { "ORGAN" } else { "" })
            .or_empty(&[tags::ROI_INTERPRETER])
            .and(property(structure, tags::RTROI_IDENTIFICATION_CODE_SEQUENCE, |text| {
                self.source.letters(text)
            }))
    }
}
