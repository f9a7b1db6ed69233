//! DICOM segmentations: a bit for each voxel and segment, or a label map.

use super::derived::{Common, Derived, Segment, referred};
use super::elements::{Elements, Output};
use super::file::{self, Encoding, Object};
use super::packed::Packed;
use super::segments::{SegmentationKind, dcm};
use super::source::{Plane, Reference};
use crate::error::{DataError, Result};
use crate::files;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// A frame: the segment that it shows (of a label map all of them), and its plane.
struct Frame<'a> {
    segment: Option<(u16, &'a Segment)>,
    plane: usize,
}

impl Derived<'_> {
    /// Writes a segmentation of the labels that occur; planes without any are left out.
    ///
    /// Segments of the binary kind are numbered from 1, as the standard wants; those of a label map have
    /// their label values as numbers. Where no label occurs, the object has one empty segment.
    ///
    /// # Errors
    /// When the file cannot be written, or its pixels would have more than 4 GiB.
    pub fn write_segmentation(&self, path: &Path, kind: SegmentationKind) -> Result<()> {
        files::write(path, |file| self.segmentation(file, kind))
    }

    /// As [`Derived::write_segmentation`], into memory.
    ///
    /// # Errors
    /// When its pixels would have more than 4 GiB.
    pub fn segmentation_to_bytes(&self, kind: SegmentationKind) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.segmentation(&mut bytes, kind)?;
        Ok(bytes)
    }

    fn segmentation(&self, to: &mut dyn Write, kind: SegmentationKind) -> Result<()> {
        let (class, what, number_from) = match kind {
            SegmentationKind::Binary => (uids::SEGMENTATION_STORAGE, "Segmentation", 1000),
            SegmentationKind::Labelmap => (uids::LABEL_MAP_SEGMENTATION_STORAGE, "Label map", 2000),
        };
        let common = Common { class, modality: "SEG", what, number_from };
        let frames = self.frames(kind);
        let pixels = Pixels::of(self, kind, frames.len())?;
        let used: BTreeSet<usize> = frames.iter().map(|frame| frame.plane).collect();
        let used: Vec<usize> = used.into_iter().collect();
        let root = self
            .common(&common)
            .and(self.image(kind, frames.len()))
            .and(self.dimensions(kind))
            .and(self.references());
        let instance = self.uid(what);
        let object = Object { class, instance: &instance, encoding: Encoding::Explicit };
        file::write(to, &object, |out| {
            out.elements(&root)?;
            out.begin_sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)?;
            out.item(&self.shared())?;
            out.end_sequence()?;
            out.begin_sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
            for frame in &frames {
                out.item(&self.frame(frame, &used))?;
            }
            out.end_sequence()?;
            pixels.write(self, &frames, out)
        })
    }

    fn frames(&self, kind: SegmentationKind) -> Vec<Frame<'_>> {
        let numbers = (1..=u16::MAX).zip(&self.segments);
        let frames: Vec<Frame<'_>> = match kind {
            SegmentationKind::Binary => numbers
                .flat_map(|(number, segment)| {
                    let planes = segment.planes.iter();
                    planes
                        .map(move |plane| Frame { segment: Some((number, segment)), plane: *plane })
                })
                .collect(),
            SegmentationKind::Labelmap => {
                let planes: BTreeSet<usize> =
                    self.segments.iter().flat_map(|s| s.planes.iter().copied()).collect();
                planes.into_iter().map(|plane| Frame { segment: None, plane }).collect()
            }
        };
        if !frames.is_empty() {
            return frames;
        }
        // An image has a frame at least.
        let segment = match kind {
            SegmentationKind::Binary => self.segments.first().map(|segment| (1, segment)),
            SegmentationKind::Labelmap => None,
        };
        vec![Frame { segment, plane: 0 }]
    }

    /// The modules General Image, Image Pixel and Segmentation Image.
    fn image(&self, kind: SegmentationKind, num_frames: usize) -> Elements {
        let [_, rows, columns] = self.voxels.shape();
        let bits = self.bits(kind);
        let [date, time] = self.when();
        let segmentation = match kind {
            SegmentationKind::Binary => "BINARY",
            SegmentationKind::Labelmap => "LABELMAP",
        };
        let lossy = self.source.lossy.clone();
        let lossy = match lossy.plain(tags::LOSSY_IMAGE_COMPRESSION) {
            Some(_) => lossy,
            None => Elements::default().text(tags::LOSSY_IMAGE_COMPRESSION, "00"),
        };
        let elements = Elements::default()
            .text(tags::IMAGE_TYPE, "DERIVED\\PRIMARY")
            .text(tags::CONTENT_DATE, &date)
            .text(tags::CONTENT_TIME, &time)
            .text(tags::CONTENT_LABEL, "SEGMENTATION")
            .text(tags::CONTENT_DESCRIPTION, &self.algorithm())
            .or_empty(&[tags::CONTENT_CREATOR_NAME])
            .words(tags::SAMPLES_PER_PIXEL, &[1])
            .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
            .text(tags::NUMBER_OF_FRAMES, &num_frames.to_string())
            .words(tags::ROWS, &[rows as u16])
            .words(tags::COLUMNS, &[columns as u16])
            .words(tags::BITS_ALLOCATED, &[bits])
            .words(tags::BITS_STORED, &[bits])
            .words(tags::HIGH_BIT, &[bits - 1])
            .words(tags::PIXEL_REPRESENTATION, &[0])
            .text(tags::SEGMENTATION_TYPE, segmentation)
            .text(tags::SEGMENTS_OVERLAP, "NO")
            .items(tags::SEGMENT_SEQUENCE, self.described(kind))
            .and(lossy);
        match kind {
            SegmentationKind::Binary => elements,
            SegmentationKind::Labelmap => elements.words(tags::PIXEL_PADDING_VALUE, &[0]),
        }
    }

    fn bits(&self, kind: SegmentationKind) -> u16 {
        let wide = self.segments.iter().any(|segment| segment.value > u16::from(u8::MAX));
        match (kind, wide) {
            (SegmentationKind::Binary, _) => 1,
            (SegmentationKind::Labelmap, false) => 8,
            (SegmentationKind::Labelmap, true) => 16,
        }
    }

    /// The module Multi-frame Dimension.
    fn dimensions(&self, kind: SegmentationKind) -> Elements {
        let organisation = self.uid("dimensions");
        let index = |pointer: Tag, group: Tag, label: &str| {
            Elements::default()
                .text(tags::DIMENSION_ORGANIZATION_UID, &organisation)
                .name_of(tags::DIMENSION_INDEX_POINTER, pointer)
                .name_of(tags::FUNCTIONAL_GROUP_POINTER, group)
                .text(tags::DIMENSION_DESCRIPTION_LABEL, label)
        };
        let segments = index(
            tags::REFERENCED_SEGMENT_NUMBER,
            tags::SEGMENT_IDENTIFICATION_SEQUENCE,
            "Referenced Segment Number",
        );
        let places = index(
            tags::IMAGE_POSITION_PATIENT,
            tags::PLANE_POSITION_SEQUENCE,
            "Image Position (Patient)",
        );
        let indices = match kind {
            SegmentationKind::Binary => vec![segments, places],
            SegmentationKind::Labelmap => vec![places],
        };
        let uid = Elements::default().text(tags::DIMENSION_ORGANIZATION_UID, &organisation);
        Elements::default()
            .items(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![uid])
            .items(tags::DIMENSION_INDEX_SEQUENCE, indices)
    }

    /// The module Common Instance Reference: every image of the series.
    fn references(&self) -> Elements {
        let images = self.source.images.iter().map(referred).collect();
        let series = Elements::default()
            .text(tags::SERIES_INSTANCE_UID, &self.source.series_uid)
            .items(tags::REFERENCED_INSTANCE_SEQUENCE, images);
        Elements::default().items(tags::REFERENCED_SERIES_SEQUENCE, vec![series])
    }

    /// What all frames have in common.
    fn shared(&self) -> Elements {
        let [dz, dy, dx] = self.source.grid.spacing_mm();
        let along = self.source.along.as_flattened();
        let measures = Elements::default()
            .decimals(tags::PIXEL_SPACING, &[dy, dx])
            .decimals(tags::SLICE_THICKNESS, &[dz])
            .decimals(tags::SPACING_BETWEEN_SLICES, &[dz]);
        let orientation = Elements::default().decimals(tags::IMAGE_ORIENTATION_PATIENT, along);
        Elements::default()
            .items(tags::PIXEL_MEASURES_SEQUENCE, vec![measures])
            .items(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation])
    }

    /// What is said of a frame; `used` are the planes that frames have.
    fn frame(&self, frame: &Frame<'_>, used: &[usize]) -> Elements {
        let plane = &self.source.planes[frame.plane];
        let place = used.partition_point(|plane| *plane < frame.plane) as u32 + 1;
        let number = frame.segment.map(|(number, _)| number);
        let indices: Vec<u32> = number.map(u32::from).into_iter().chain([place]).collect();
        let content = Elements::default().longs(tags::DIMENSION_INDEX_VALUES, &indices);
        let position = Elements::default().decimals(tags::IMAGE_POSITION_PATIENT, &plane.position);
        let elements = Elements::default()
            .items(tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation(plane)])
            .items(tags::FRAME_CONTENT_SEQUENCE, vec![content])
            .items(tags::PLANE_POSITION_SEQUENCE, vec![position]);
        match number {
            Some(number) => {
                let segment = Elements::default().words(tags::REFERENCED_SEGMENT_NUMBER, &[number]);
                elements.items(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment])
            }
            None => elements,
        }
    }
}

/// The images that a frame was made of.
fn derivation(plane: &Plane) -> Elements {
    let preserved = if plane.own().is_some() { "YES" } else { "NO" };
    let purpose = dcm("121322", "Source image for image processing operation");
    let image = |image: &Reference| {
        referred(image)
            .text(tags::SPATIAL_LOCATIONS_PRESERVED, preserved)
            .code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &purpose)
    };
    Elements::default()
        .items(tags::SOURCE_IMAGE_SEQUENCE, plane.images.iter().map(image).collect())
        .code(tags::DERIVATION_CODE_SEQUENCE, &dcm("113076", "Segmentation"))
}

/// The pixels of all frames.
struct Pixels {
    bits: u16,
    /// Of all frames, without padding.
    bytes: u32,
}

impl Pixels {
    fn of(of: &Derived<'_>, kind: SegmentationKind, num_frames: usize) -> Result<Self> {
        let [_, rows, columns] = of.voxels.shape();
        if rows.max(columns) > usize::from(u16::MAX) {
            return Err(DataError::Mismatch {
                what: "size of a plane",
                expected: "at most 65535 rows and columns, as DICOM has it".to_owned(),
                found: format!("{rows} × {columns}"),
            });
        }
        let bits = of.bits(kind);
        let all = (rows * columns) as u64 * num_frames as u64 * u64::from(bits);
        let bytes = all.div_ceil(8);
        match u32::try_from(bytes + bytes % 2) {
            Ok(length) if length < u32::MAX => Ok(Self { bits, bytes: bytes as u32 }),
            _ => Err(DataError::Mismatch {
                what: "size of the segmentation",
                expected: "at most 4 GiB of pixels, as DICOM has it".to_owned(),
                found: format!("{bytes} bytes; a label map takes fewer, as do fewer labels"),
            }),
        }
    }

    fn write(&self, of: &Derived<'_>, frames: &[Frame<'_>], out: &mut Output<'_>) -> Result<()> {
        let vr = if self.bits == 16 { VR::OW } else { VR::OB };
        out.begin_pixels(vr, self.bytes + self.bytes % 2)?;
        let mut packed = Packed::default();
        for frame in frames {
            let plane = of.voxels.plane(frame.plane);
            match frame.segment {
                Some((_, segment)) => {
                    packed.push(&plane, segment.value);
                    out.bytes(&packed.taken())?;
                }
                None => out.bytes(&plane.bytes(self.bits == 16))?,
            }
        }
        out.bytes(&packed.rest())?;
        out.bytes(&[0][..(self.bytes % 2) as usize])
    }
}
