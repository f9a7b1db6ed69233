//! What an output says of the series that it was made of.

use super::copied;
use super::elements::Elements;
use super::file::uid_of;
use crate::dicom::stack::Stack;
use crate::dicom::volume::Image;
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, Turn};
use dicom_dictionary_std::tags;
use std::collections::BTreeSet;

/// The patient, the study, the frame of reference and the images of a series: what the outputs that are
/// made of it have to say of it.
///
/// It knows who the patient is, and shows nobody: outputs belong to the same patient, and their files
/// say so.
#[derive(Clone)]
pub struct Source {
    /// The elements of patient and study, as the source has them.
    pub(super) study: Elements,
    /// Those of compression with loss.
    pub(super) lossy: Elements,
    /// Whether texts of our own may have any letters.
    pub(super) any_letters: bool,
    pub(super) study_uid: String,
    pub(super) series_uid: String,
    pub(super) series_number: i64,
    pub(super) description: String,
    pub(super) frame_of_reference: String,
    pub(super) grid: Geometry,
    /// Unit vectors along a row and along a column, as the images have them.
    pub(super) along: [[f64; 3]; 2],
    /// The planes of the grid.
    pub(super) planes: Vec<Plane>,
    /// Every image, each once.
    pub(super) images: Vec<Reference>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("series_uid", &self.series_uid).finish_non_exhaustive()
    }
}

/// A plane of the grid.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    /// Centre of its first voxel, x, y, z in mm, LPS.
    pub position: [f64; 3],
    /// The image in it; where slices were interpolated, those on both sides of it.
    pub images: Vec<Reference>,
}

impl Plane {
    /// The image in the plane itself.
    pub fn own(&self) -> Option<&Reference> {
        match &self.images[..] {
            [own] => Some(own),
            _ => None,
        }
    }
}

/// An image, or one of its frames.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    pub class: String,
    pub instance: String,
    /// From 1, where the image has several.
    pub frame: Option<u32>,
}

impl Source {
    /// Of a series whose images make a stack.
    ///
    /// # Errors
    /// When an image does not say which one it is, or the first one cannot be read.
    pub(in crate::dicom) fn of(images: &[Image], stack: &Stack) -> Result<Self> {
        let first = &stack.slices[0];
        let head = &images[first.image];
        let copied = head
            .place
            .read_by(|from, syntax, at| copied::read(from, syntax, at))
            .map_err(|e| head.place.at(e))?;
        let header = &head.header;
        let grid = stack.geometry()?;
        let planes = planes(images, stack, &grid)?;
        let all: BTreeSet<Reference> = stack
            .slices
            .iter()
            .map(|slice| reference(&images[slice.image], None))
            .collect::<Result<_>>()?;
        let own = |tag| copied.plain(tag);
        let series = header.series_uid.as_bytes();
        let set = own(tags::SPECIFIC_CHARACTER_SET);
        let plain = copied.is_ascii();
        let mut study = copied.clone();
        if plain {
            study = study.text(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 192");
        }
        let lossy = [
            tags::LOSSY_IMAGE_COMPRESSION,
            tags::LOSSY_IMAGE_COMPRESSION_RATIO,
            tags::LOSSY_IMAGE_COMPRESSION_METHOD,
        ];
        Ok(Self {
            lossy: study.take(&lossy),
            study,
            any_letters: plain || set.as_deref() == Some("ISO_IR 192"),
            study_uid: own(tags::STUDY_INSTANCE_UID).unwrap_or_else(|| uid_of(&[b"study", series])),
            series_uid: header.series_uid.clone(),
            series_number: header.series_number.unwrap_or(0),
            description: header.description.clone(),
            // Without one nobody else can have it: it is the series' own.
            frame_of_reference: own(tags::FRAME_OF_REFERENCE_UID)
                .unwrap_or_else(|| uid_of(&[b"frame of reference", series])),
            grid,
            along: first.place.along,
            planes,
            images: all.into_iter().collect(),
        })
    }

    /// The grid on which the series is read.
    pub fn geometry(&self) -> &Geometry {
        &self.grid
    }

    /// Fails where labels of a grid cannot become objects of this series: where it is not
    /// [`Source::geometry`], or that one with its axes in another order or direction.
    ///
    /// # Errors
    /// Says what differs.
    pub fn check_grid(&self, grid: &Geometry) -> Result<()> {
        self.turn_from(grid).map(|_| ())
    }

    /// The turn that makes a grid this one.
    pub(super) fn turn_from(&self, grid: &Geometry) -> Result<Turn> {
        turn_onto(grid, &self.grid)
    }

    /// A text of our own, in letters that the files of the source have.
    pub(super) fn letters(&self, text: &str) -> String {
        match self.any_letters {
            true => text.to_owned(),
            false => text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
        }
    }
}

fn planes(images: &[Image], stack: &Stack, grid: &Geometry) -> Result<Vec<Plane>> {
    /// How far, in distances between slices, a plane may be off an image that counts as in it.
    const IN_PLANE: f64 = 1e-3;
    let of = |index: usize| {
        let slice = &stack.slices[index];
        let image = &images[slice.image];
        let frame = (image.header.num_frames > 1).then_some(slice.frame as u32 + 1);
        reference(image, frame)
    };
    let last = stack.slices.len() - 1;
    let (origin, [spacing, ..]) = (grid.origin_mm(), grid.spacing_mm());
    let normal: [f64; 3] = grid.direction().map(|row| row[2]);
    let plane = |(index, (below, share)): (usize, (usize, f64))| {
        let above = (below + 1).min(last);
        let own = match share {
            share if share <= IN_PLANE => Some(below),
            share if share >= 1.0 - IN_PLANE => Some(above),
            _ => None,
        };
        Ok(match own {
            Some(own) => {
                Plane { position: stack.slices[own].place.position, images: vec![of(own)?] }
            }
            None => {
                let along = spacing * index as f64;
                let position = std::array::from_fn(|i| origin[i] + along * normal[i]);
                Plane { position, images: vec![of(below)?, of(above)?] }
            }
        })
    };
    stack.taps().into_iter().enumerate().map(plane).collect()
}

fn reference(image: &Image, frame: Option<u32>) -> Result<Reference> {
    let (class, instance) = (&image.header.class_uid, &image.header.instance_uid);
    if class.is_empty() || instance.is_empty() {
        let what = "expected SOPClassUID and SOPInstanceUID in every image, found one without: DICOM \
                    outputs refer to images by these";
        let error = DataError::UnsupportedDicom { what: what.to_owned() };
        return Err(image.place.at(error));
    }
    Ok(Reference { class: class.clone(), instance: instance.clone(), frame })
}

/// The turn of a grid's axes that makes it another one.
fn turn_onto(grid: &Geometry, wanted: &Geometry) -> Result<Turn> {
    const ORDERS: [[usize; 3]; 6] =
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let fits = |turn: &Turn| {
        let turned = grid.turned(*turn, turn.reorder(grid.voxel_size_mm()));
        turned.is_ok_and(|turned| turned.check_same_grid(wanted).is_ok())
    };
    let flips = |bits: usize| [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0];
    let turns = ORDERS.into_iter().flat_map(|axes| (0..8).map(move |bits| (axes, flips(bits))));
    for (axes, flipped) in turns {
        let turn = Turn::new(axes, flipped)?;
        if fits(&turn) {
            return Ok(turn);
        }
    }
    match grid.check_same_grid(wanted) {
        Err(error) => Err(DataError::Mismatch {
            what: "grid of the labels",
            expected: "that of the DICOM series, its axes in any order and direction".to_owned(),
            found: format!("another one: {error}"),
        }),
        Ok(()) => Ok(Turn::NONE),
    }
}
