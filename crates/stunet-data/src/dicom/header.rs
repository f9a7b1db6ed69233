//! What is known of a file before its pixels are read: how they are stored, and where each frame lies.

use super::bad_value;
use super::dataset::Dataset;
use super::parse::Parsed;
use super::syntax::{Elements, Syntax, shown};
use crate::error::Result;
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

/// Pixels of a file, as its header describes them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format {
    pub syntax: Syntax,
    pub rows: usize,
    pub columns: usize,
    pub bits_allocated: u16,
    pub bits_stored: u16,
    pub high_bit: u16,
    pub signed: bool,
    pub num_frames: usize,
}

/// Where a frame lies in space, and what its samples stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// Centre of the first sample, x, y, z in mm, LPS.
    pub position: [f64; 3],
    /// Unit vectors along a row and along a column.
    pub along: [[f64; 3]; 2],
    /// Distances between columns and between rows, in mm.
    pub spacing: [f64; 2],
    pub slope: f64,
    pub intercept: f64,
    /// What tells frames of one place apart.
    pub marks: Vec<(Tag, Vec<u8>)>,
}

/// The header of an image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub series_uid: String,
    pub class_uid: String,
    pub instance_uid: String,
    pub series_number: Option<i64>,
    pub description: String,
    pub modality: String,
    pub instance: Option<i64>,
    pub num_frames: usize,
    /// How the pixels are stored and where they lie; why not, if they are no slices.
    pub slices: std::result::Result<(Format, Vec<Frame>), NoSlices>,
}

/// Why an image is no slice of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NoSlices {
    Localiser,
    NoImage,
    Colour,
    NoPlace,
    Other(String),
}

/// Elements in which images of one place may differ, as they are named in messages.
pub(super) const MARKS: [(Tag, &str); 12] = [
    (tags::ACQUISITION_NUMBER, "AcquisitionNumber"),
    (tags::TEMPORAL_POSITION_IDENTIFIER, "TemporalPositionIdentifier"),
    (tags::TEMPORAL_POSITION_INDEX, "TemporalPositionIndex"),
    (tags::ECHO_NUMBERS, "EchoNumbers"),
    (tags::ECHO_TIME, "EchoTime"),
    (tags::EFFECTIVE_ECHO_TIME, "EffectiveEchoTime"),
    (tags::TRIGGER_TIME, "TriggerTime"),
    (tags::DIFFUSION_B_VALUE, "DiffusionBValue"),
    (tags::CONVOLUTION_KERNEL, "ConvolutionKernel"),
    (tags::STACK_ID, "StackID"),
    (tags::IMAGE_TYPE, "ImageType"),
    (tags::ACQUISITION_TIME, "AcquisitionTime"),
];

impl Header {
    /// The header of a file that was read.
    ///
    /// None of what belongs to no series, such as a directory of files.
    ///
    /// # Errors
    /// When a value is malformed.
    pub fn of(parsed: &Parsed) -> Result<Option<Self>> {
        let root = &parsed.dataset;
        let series_uid = root.text(tags::SERIES_INSTANCE_UID).unwrap_or_default();
        if series_uid.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            series_uid: shown(&series_uid),
            class_uid: root.text(tags::SOP_CLASS_UID).unwrap_or_default(),
            instance_uid: root.text(tags::SOP_INSTANCE_UID).unwrap_or_default(),
            series_number: root.integer(tags::SERIES_NUMBER),
            description: shown(&root.words(tags::SERIES_DESCRIPTION).unwrap_or_default()),
            modality: shown(&root.text(tags::MODALITY).unwrap_or_default()),
            instance: root.integer(tags::INSTANCE_NUMBER),
            num_frames: num_frames(root)?,
            slices: slices(parsed)?,
        }))
    }
}

/// Number of frames; 1 where nothing is said.
fn num_frames(root: &Dataset) -> Result<usize> {
    let Some(text) = root.text(tags::NUMBER_OF_FRAMES).filter(|text| !text.is_empty()) else {
        return Ok(1);
    };
    match text.parse::<u32>() {
        Ok(0) => Ok(1),
        Ok(count) => Ok(count as usize),
        Err(_) => Err(bad_value(tags::NUMBER_OF_FRAMES, "a number", &text)),
    }
}

type Slices = std::result::Result<(Format, Vec<Frame>), NoSlices>;

fn slices(parsed: &Parsed) -> Result<Slices> {
    let root = &parsed.dataset;
    let class = root.text(tags::SOP_CLASS_UID).unwrap_or_default();
    let others =
        [uids::SEGMENTATION_STORAGE, uids::LABEL_MAP_SEGMENTATION_STORAGE, uids::RT_DOSE_STORAGE];
    if root.bytes(tags::ROWS).is_none() || others.contains(&class.as_str()) {
        return Ok(Err(NoSlices::NoImage));
    }
    if root.u16(tags::SAMPLES_PER_PIXEL, parsed.syntax.elements).unwrap_or(1) != 1 {
        return Ok(Err(NoSlices::Colour));
    }
    let photometric = root.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
    if photometric == "PALETTE COLOR" {
        return Ok(Err(NoSlices::Colour));
    }
    if !matches!(photometric.as_str(), "MONOCHROME1" | "MONOCHROME2" | "") {
        let what = format!("expected MONOCHROME1 or MONOCHROME2, found {}", shown(&photometric));
        return Ok(Err(NoSlices::Other(what)));
    }
    if is_localiser(root) {
        return Ok(Err(NoSlices::Localiser));
    }
    let Some(frames) = frames(root)? else {
        return Ok(Err(NoSlices::NoPlace));
    };
    Ok(Ok((format(parsed, frames.len())?, frames)))
}

/// Whether an image says that it is one for planning.
fn is_localiser(root: &Dataset) -> bool {
    let says = |dataset: &Dataset, tag| {
        let text = dataset.text(tag).unwrap_or_default();
        text.split('\\').any(|part| part.trim() == "LOCALIZER")
    };
    let shared = root.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    let types = [tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, tags::MR_IMAGE_FRAME_TYPE_SEQUENCE];
    let group = |tag: Tag| shared.and_then(|shared| shared.items(tag).first());
    says(root, tags::IMAGE_TYPE)
        || types.into_iter().filter_map(group).any(|item| says(item, tags::FRAME_TYPE))
}

fn format(parsed: &Parsed, num_frames: usize) -> Result<Format> {
    let (root, elements) = (&parsed.dataset, parsed.syntax.elements);
    let needed =
        |tag: Tag| root.u16(tag, elements).ok_or_else(|| bad_value(tag, "a number", "nothing"));
    let (rows, columns) = (needed(tags::ROWS)?, needed(tags::COLUMNS)?);
    if rows == 0 || columns == 0 {
        let found = format!("{rows} × {columns}");
        return Err(bad_value(tags::ROWS, "at least one row and one column", &found));
    }
    let bits_allocated = needed(tags::BITS_ALLOCATED)?;
    if !matches!(bits_allocated, 8 | 16 | 32) {
        let found = bits_allocated.to_string();
        return Err(bad_value(tags::BITS_ALLOCATED, "8, 16 or 32 bits", &found));
    }
    let bits_stored = root.u16(tags::BITS_STORED, elements).unwrap_or(bits_allocated);
    let high_bit = root.u16(tags::HIGH_BIT, elements).unwrap_or(bits_stored.wrapping_sub(1));
    if !(1..=bits_allocated).contains(&bits_stored) || high_bit >= bits_allocated {
        let found = format!("{bits_stored} stored, the highest {high_bit}");
        let expected = format!("at most the {bits_allocated} bits that are allocated");
        return Err(bad_value(tags::BITS_STORED, expected, &found));
    }
    // A highest bit below the stored ones is an old mistake: they are the lowest then.
    let high_bit = high_bit.max(bits_stored - 1);
    Ok(Format {
        syntax: parsed.syntax.clone(),
        rows: rows.into(),
        columns: columns.into(),
        bits_allocated,
        bits_stored,
        high_bit,
        signed: root.u16(tags::PIXEL_REPRESENTATION, elements) == Some(1),
        num_frames,
    })
}

/// The frames' places; none where a file does not say them.
fn frames(root: &Dataset) -> Result<Option<Vec<Frame>>> {
    let count = num_frames(root)?;
    let per_frame = root.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let none = Dataset::default();
    if per_frame.is_empty() {
        return match count {
            1 => Ok(frame(&Groups { own: root, shared: &none, root })?.map(|frame| vec![frame])),
            _ => Ok(None),
        };
    }
    if per_frame.len() != count {
        let found = format!("{} of {count}", per_frame.len());
        let tag = tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE;
        return Err(bad_value(tag, "an item for every frame", &found));
    }
    let shared = root.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first().unwrap_or(&none);
    per_frame.iter().map(|own| frame(&Groups { own, shared, root })).collect()
}

/// Where the elements of a frame may stand.
struct Groups<'a> {
    own: &'a Dataset,
    shared: &'a Dataset,
    root: &'a Dataset,
}

impl<'a> Groups<'a> {
    /// The data set that has an element: the frame's group of a kind, the shared one, or the file.
    fn with(&self, group: Tag, tag: Tag) -> &'a Dataset {
        let groups = [self.own, self.shared].into_iter().filter_map(|d| d.items(group).first());
        let mut all = groups.chain([self.own, self.root]);
        all.find(|dataset| dataset.bytes(tag).is_some()).unwrap_or(self.root)
    }
}

fn frame(groups: &Groups<'_>) -> Result<Option<Frame>> {
    const POSITION: Tag = tags::IMAGE_POSITION_PATIENT;
    const ORIENTATION: Tag = tags::IMAGE_ORIENTATION_PATIENT;
    let position = groups.with(tags::PLANE_POSITION_SEQUENCE, POSITION).numbers(POSITION)?;
    let along = groups.with(tags::PLANE_ORIENTATION_SEQUENCE, ORIENTATION);
    let spacing = groups.with(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING);
    let spacing = spacing.numbers::<2>(tags::PIXEL_SPACING)?;
    let (Some(position), Some([a, b, c, d, e, f]), Some([dy, dx])) =
        (position, along.numbers(ORIENTATION)?, spacing)
    else {
        return Ok(None);
    };
    if !(dx > 0.0 && dy > 0.0) {
        return Err(bad_value(tags::PIXEL_SPACING, "above 0", &format!("{dy}, {dx}")));
    }
    let group = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
    let scale = |tag: Tag| groups.with(group, tag).numbers(tag);
    let slope = scale(tags::RESCALE_SLOPE)?.map(|[slope]| slope);
    let intercept = scale(tags::RESCALE_INTERCEPT)?.map(|[intercept]| intercept);
    Ok(Some(Frame {
        position,
        along: unit_vectors([[a, b, c], [d, e, f]])?,
        spacing: [dx, dy],
        // A slope of 0 would make all samples one: it stands for a missing one.
        slope: slope.filter(|slope| *slope != 0.0).unwrap_or(1.0),
        intercept: intercept.unwrap_or(0.0),
        marks: marks(groups),
    }))
}

/// Two perpendicular unit vectors; as written, but for what rounding to text has cost.
fn unit_vectors(along: [[f64; 3]; 2]) -> Result<[[f64; 3]; 2]> {
    /// Most that a vector may differ from one, and two from a right angle.
    const ROUNDING: f64 = 1e-3;
    let dot = |a: &[f64; 3], b: &[f64; 3]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let [row, column] = &along;
    let lengths = [dot(row, row).sqrt(), dot(column, column).sqrt()];
    let right = lengths.iter().all(|length| (length - 1.0).abs() <= ROUNDING)
        && dot(row, column).abs() <= ROUNDING;
    if !right {
        let expected = "two perpendicular vectors of length 1";
        return Err(bad_value(tags::IMAGE_ORIENTATION_PATIENT, expected, &format!("{along:?}")));
    }
    Ok(along)
}

fn marks(groups: &Groups<'_>) -> Vec<(Tag, Vec<u8>)> {
    const GROUPS: [Tag; 3] =
        [tags::FRAME_CONTENT_SEQUENCE, tags::MR_ECHO_SEQUENCE, tags::MR_DIFFUSION_SEQUENCE];
    let value = |(tag, _): (Tag, &str)| {
        let found = GROUPS.into_iter().map(|group| groups.with(group, tag));
        let bytes = found.into_iter().find_map(|dataset| dataset.bytes(tag))?;
        Some((tag, bytes.to_vec()))
    };
    MARKS.into_iter().filter_map(value).collect()
}

impl Format {
    /// Bytes of all frames once they are unpacked.
    pub fn bytes(&self) -> u64 {
        // Rows and columns are numbers of two bytes each.
        let frame = self.rows as u64 * self.columns as u64 * u64::from(self.bits_allocated / 8);
        frame.saturating_mul(self.num_frames as u64)
    }

    /// Byte order of the file's words.
    pub fn is_big(&self) -> bool {
        self.syntax.elements == Elements::ExplicitBig
    }
}
