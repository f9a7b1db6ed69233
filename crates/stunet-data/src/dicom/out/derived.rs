//! Labels on the grid of their series, ready to be written; what all outputs say of themselves.

use super::elements::{Elements, fitted};
use super::file::uid_of;
use super::note;
use super::source::{Reference, Source};
use crate::error::Result;
use crate::labels::{Appearance, CompactLabelMap, LabelSet, LabelVoxels};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What made an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DicomProvenance {
    /// A digest of the model, or another name that is its own.
    pub model: Option<String>,
    /// A note for the program itself, which [`read_note`](super::read_note) finds.
    pub note: Option<String>,
}

/// Labels of a series, to be written as DICOM objects.
///
/// An object belongs to the patient and the study of its series, and lies in the same frame of
/// reference. Its UIDs are made of the series, the labels and the note: the same ones give the same
/// object, to the last byte. No clock is read; the date of the content is that of the study.
pub struct Derived<'a> {
    pub(super) voxels: View<'a>,
    pub(super) source: &'a Source,
    pub(super) provenance: DicomProvenance,
    /// The labels that occur, in rising order.
    pub(super) segments: Vec<Segment>,
    /// A digest of the voxels.
    digest: Vec<u8>,
}

/// A label that occurs.
pub(super) struct Segment {
    pub value: u16,
    pub name: String,
    pub appearance: Appearance,
    /// The planes that it occurs in, rising; none only where no label occurs at all.
    pub planes: Vec<usize>,
    pub voxels: u64,
}

/// Label values as the series' grid has them.
pub(super) enum View<'a> {
    Bytes(ArrayView3<'a, u8>),
    Words(ArrayView3<'a, u16>),
}

/// A plane of label values, rows one after the other.
pub(super) enum PlaneView<'a> {
    Bytes(Cow<'a, [u8]>),
    Words(Cow<'a, [u16]>),
}

impl View<'_> {
    /// Planes, rows, columns.
    pub fn shape(&self) -> [usize; 3] {
        let (z, y, x) = match self {
            Self::Bytes(view) => view.dim(),
            Self::Words(view) => view.dim(),
        };
        [z, y, x]
    }

    pub fn plane(&self, z: usize) -> PlaneView<'_> {
        match self {
            Self::Bytes(view) => PlaneView::Bytes(flat(view, z)),
            Self::Words(view) => PlaneView::Words(flat(view, z)),
        }
    }
}

fn flat<'a, T: Copy>(view: &'a ArrayView3<'_, T>, z: usize) -> Cow<'a, [T]> {
    let plane = view.index_axis(Axis(0), z);
    match plane.is_standard_layout() {
        true => Cow::Borrowed(plane.to_slice().expect("standard layout is contiguous")),
        false => Cow::Owned(plane.iter().copied().collect()),
    }
}

impl PlaneView<'_> {
    /// How often each value occurs.
    fn counts(&self) -> BTreeMap<u16, u64> {
        let mut counts = vec![0u64; usize::from(u16::MAX) + 1];
        match self {
            Self::Bytes(values) => values.iter().for_each(|v| counts[usize::from(*v)] += 1),
            Self::Words(values) => values.iter().for_each(|v| counts[usize::from(*v)] += 1),
        }
        let counts = (0..=u16::MAX).zip(counts);
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// The bytes of the values in little endian, one or two for each.
    pub fn bytes(&self, wide: bool) -> Cow<'_, [u8]> {
        match (self, wide) {
            (Self::Bytes(values), false) => Cow::Borrowed(values),
            (Self::Bytes(values), true) => values.iter().flat_map(|v| [*v, 0]).collect(),
            (Self::Words(values), true) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            (Self::Words(values), false) => values.iter().map(|v| *v as u8).collect(),
        }
    }

    /// Where a value stands.
    pub fn mask(&self, value: u16) -> Vec<bool> {
        match self {
            Self::Bytes(values) => values.iter().map(|v| u16::from(*v) == value).collect(),
            Self::Words(values) => values.iter().map(|v| *v == value).collect(),
        }
    }
}

impl<'a> Derived<'a> {
    /// Labels of a series. Their grid is that of [`Source::geometry`], or the same one with its axes in
    /// another order or direction, as converters to NIfTI make it.
    ///
    /// # Errors
    /// When the grids differ.
    pub fn new(
        labels: &'a CompactLabelMap,
        names: &LabelSet,
        source: &'a Source,
        provenance: DicomProvenance,
    ) -> Result<Self> {
        let turn = source.turn_from(&labels.geometry)?;
        let voxels = match &labels.voxels {
            LabelVoxels::Bytes(values) => View::Bytes(turn.apply(values.view())),
            LabelVoxels::Words(values) => View::Words(turn.apply(values.view())),
        };
        let planes = (0..source.planes.len()).into_par_iter();
        let planes: Vec<_> = planes
            .map(|z| {
                let plane = voxels.plane(z);
                (plane.counts(), Sha256::digest(plane.bytes(true)))
            })
            .collect();
        let mut all = Sha256::new();
        let mut found: BTreeMap<u16, (Vec<usize>, u64)> = BTreeMap::new();
        for (z, (counts, digest)) in planes.into_iter().enumerate() {
            all.update(digest);
            for (value, count) in counts.into_iter().filter(|(value, _)| *value > 0) {
                let (planes, voxels) = found.entry(value).or_default();
                planes.push(z);
                *voxels += count;
            }
        }
        if found.is_empty() {
            // An object has one segment at least.
            let first = names.painted().iter().map(|(value, _)| *value).find(|value| *value > 0);
            found.insert(first.unwrap_or(1), (Vec::new(), 0));
        }
        let named: BTreeMap<u16, &str> = names.painted().into_iter().collect();
        let segment = |(value, (planes, voxels)): (u16, (Vec<usize>, u64))| {
            let name = named.get(&value);
            let name = name.map_or_else(|| format!("label_{value}"), |name| (*name).to_owned());
            let appearance = Appearance::of(&name, value);
            Segment { value, name, appearance, planes, voxels }
        };
        let segments = found.into_iter().map(segment).collect();
        let digest = all.finalize().to_vec();
        Ok(Self { voxels, source, provenance, segments, digest })
    }

    /// A UID of this object's own, for one purpose.
    pub(super) fn uid(&self, purpose: &str) -> String {
        let note = self.provenance.note.as_deref().unwrap_or_default();
        let series = self.source.series_uid.as_bytes();
        let names: Vec<&str> = self.segments.iter().map(|s| s.name.as_str()).collect();
        let names = names.join("\n");
        uid_of(&[purpose.as_bytes(), series, &self.digest, note.as_bytes(), names.as_bytes()])
    }

    /// The program, its version and the model, in at most 64 letters.
    pub(super) fn algorithm(&self) -> String {
        let model = self.provenance.model.as_ref().map(|model| format!(", model {model:.16}"));
        fitted(&format!("{PROGRAM} {VERSION}{}", model.unwrap_or_default()), 64)
    }

    /// The elements of patient, study, series, equipment and the object itself.
    pub(super) fn common(&self, object: &Common<'_>) -> Elements {
        let source = self.source;
        let number = source.series_number.clamp(0, 1_000_000) + object.number_from;
        let description = format!("{} of {}", object.what, source.description);
        let description = match source.description.is_empty() {
            true => object.what.to_owned(),
            false => description,
        };
        let model = self.provenance.model.as_deref().unwrap_or("unknown");
        let mut elements = source.study.clone();
        if let Some(note) = &self.provenance.note {
            elements = elements.and(note::elements_of(note));
        }
        elements
            .text(tags::STUDY_INSTANCE_UID, &source.study_uid)
            .or_empty(&[
                tags::PATIENT_NAME,
                tags::PATIENT_ID,
                tags::PATIENT_BIRTH_DATE,
                tags::PATIENT_SEX,
                tags::STUDY_DATE,
                tags::STUDY_TIME,
                tags::REFERRING_PHYSICIAN_NAME,
                tags::STUDY_ID,
                tags::ACCESSION_NUMBER,
                tags::POSITION_REFERENCE_INDICATOR,
            ])
            .text(tags::FRAME_OF_REFERENCE_UID, &source.frame_of_reference)
            .text(tags::SOP_CLASS_UID, object.class)
            .text(tags::SOP_INSTANCE_UID, &self.uid(object.what))
            .text(tags::MODALITY, object.modality)
            .text(tags::SERIES_INSTANCE_UID, &self.uid(&format!("series of {}", object.what)))
            .text(tags::SERIES_NUMBER, &number.to_string())
            .text(tags::SERIES_DESCRIPTION, &source.letters(&fitted(&description, 64)))
            .text(tags::INSTANCE_NUMBER, "1")
            .text(tags::MANUFACTURER, PROGRAM)
            .text(tags::MANUFACTURER_MODEL_NAME, PROGRAM)
            .text(tags::DEVICE_SERIAL_NUMBER, &fitted(model, 64))
            .text(tags::SOFTWARE_VERSIONS, VERSION)
    }

    /// Date and time of the study, for what must have some.
    pub(super) fn when(&self) -> [String; 2] {
        let of = |tag: Tag, otherwise: &str| {
            self.source.study.plain(tag).unwrap_or_else(|| otherwise.to_owned())
        };
        [of(tags::STUDY_DATE, "19000101"), of(tags::STUDY_TIME, "000000")]
    }
}

/// What differs between the kinds of objects.
pub(super) struct Common<'a> {
    pub class: &'a str,
    pub modality: &'a str,
    /// What it is, in its description.
    pub what: &'a str,
    /// Added to the number of the series that it was made of.
    pub number_from: i64,
}

const PROGRAM: &str = "stunet";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A reference to an image.
pub(super) fn referred(image: &Reference) -> Elements {
    let elements = Elements::default()
        .text(tags::REFERENCED_SOP_CLASS_UID, &image.class)
        .text(tags::REFERENCED_SOP_INSTANCE_UID, &image.instance);
    match image.frame {
        Some(frame) => elements.text(tags::REFERENCED_FRAME_NUMBER, &frame.to_string()),
        None => elements,
    }
}
