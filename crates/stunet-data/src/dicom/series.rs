//! Images by series, and which of them are volumes.

use super::Scan;
use super::header::{Header, MARKS, NoSlices};
use super::out::Source;
use super::stack::{self, Slice, Stack};
use super::syntax::shown;
use super::volume::{self, Image};
use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A series, or a part of one that is a volume of its own (an echo, a point in time).
#[derive(Clone, Debug)]
pub struct Series {
    images: Vec<Image>,
    slices: Vec<Slice>,
    /// Number of the part, from 1, and what it is.
    pub(super) part: Option<(usize, String)>,
    /// Why it is no volume.
    no_volume: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Series {
    /// The volumes of a series' images; the whole of it where they are none, or one.
    pub(super) fn of(mut images: Vec<Image>) -> Vec<Self> {
        let mut notes = Vec::new();
        let copies = drop_copies(&mut images);
        if copies > 0 {
            notes.push(format!("{copies} image(s) that are there twice were taken once"));
        }
        let usable = images.iter().any(|image| image.header.slices.is_ok());
        let reason = images.first().and_then(|image| image.header.slices.as_ref().err()).cloned();
        if usable && images.iter().any(|image| image.header.slices.is_err()) {
            let before = images.len();
            images.retain(|image| image.header.slices.is_ok());
            let left = before - images.len();
            notes.push(format!("{left} image(s) that are no slices (localisers) were left out"));
        }
        let slices = slices(&images);
        let no_volume = match (usable, slices.len()) {
            (false, _) => Some(reason.as_ref().map_or("no image".to_owned(), why)),
            (true, 1) => Some("a single slice".to_owned()),
            _ if stack::is_mixed(&slices) => {
                Some("images in several orientations (a localiser)".to_owned())
            }
            _ => None,
        };
        let whole = Self { images, slices, part: None, no_volume, notes };
        match whole.no_volume.is_some() || !whole.is_doubled() {
            true => vec![whole],
            false => whole.parts().unwrap_or_else(|| vec![whole]),
        }
    }

    fn is_doubled(&self) -> bool {
        let mut places = BTreeSet::new();
        // Positions are compared as text is written: equal ones are.
        !self.slices.iter().all(|s| places.insert(s.place.position.map(f64::to_bits)))
    }

    /// The parts by the first mark that makes each of them a stack of slices.
    fn parts(&self) -> Option<Vec<Self>> {
        MARKS.into_iter().find_map(|(tag, name)| {
            let mut groups: BTreeMap<Option<Vec<u8>>, Vec<Slice>> = BTreeMap::new();
            for slice in &self.slices {
                let mark = slice.place.marks.iter().find(|(of, _)| *of == tag);
                groups.entry(mark.map(|(_, value)| value.clone())).or_default().push(slice.clone());
            }
            if groups.len() < 2 {
                return None;
            }
            let part = |(index, (value, slices)): (usize, (Option<Vec<u8>>, Vec<Slice>))| {
                let value = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
                let what = shown(&format!("{name} {value}"));
                Self { slices, part: Some((index + 1, what)), ..self.clone() }
            };
            let parts: Vec<Self> = groups.into_iter().enumerate().map(part).collect();
            let good = |part: &Self| stack::stack(part.slices.clone()).is_ok();
            parts.iter().all(good).then_some(parts)
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.images[0].header
    }

    /// `SeriesInstanceUID`.
    pub fn uid(&self) -> &str {
        &self.header().series_uid
    }

    /// `SeriesNumber`, with the number of the part behind a dot where a series holds several volumes.
    pub fn number(&self) -> Option<String> {
        let number = self.header().series_number?;
        Some(match &self.part {
            Some((part, _)) => format!("{number}.{part}"),
            None => number.to_string(),
        })
    }

    /// `SeriesDescription`, and what tells this part from the others.
    pub fn description(&self) -> String {
        let description = &self.header().description;
        match &self.part {
            Some((_, part)) => format!("{description} ({part})").trim().to_owned(),
            None => description.clone(),
        }
    }

    /// `Modality`, such as `CT`.
    pub fn modality(&self) -> &str {
        &self.header().modality
    }

    /// Number of slices, or of images where it is no volume.
    pub fn num_slices(&self) -> usize {
        match self.slices.len() {
            0 => self.images.len(),
            slices => slices,
        }
    }

    /// Why it cannot be a volume: a localiser, a single slice, no image.
    pub fn no_volume(&self) -> Option<&str> {
        self.no_volume.as_deref()
    }

    /// Files that it lies in, each once. Their names may identify a patient.
    pub fn files(&self) -> Vec<PathBuf> {
        let used: BTreeSet<usize> = self.slices.iter().map(|slice| slice.image).collect();
        let paths = used.into_iter().filter_map(|image| self.images[image].place.path());
        let paths: BTreeSet<PathBuf> = paths.map(PathBuf::from).collect();
        paths.into_iter().collect()
    }

    /// A name for what is made of it, from number and description, such as `2_abdomen_venous`.
    pub fn name(&self) -> String {
        let number = self.number().map(|number| number.replace('.', "_"));
        let description = match self.header().description.as_str() {
            "" => self.modality(),
            description => description,
        };
        let clean: String = description
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { ' ' })
            .take(40)
            .collect();
        let words = number.iter().map(String::as_str).chain(clean.split_whitespace());
        let name = words.collect::<Vec<_>>().join("_");
        if name.is_empty() { "series".to_owned() } else { name }
    }

    /// One line for a list: number, modality, description, slices, UID.
    pub fn line(&self) -> String {
        let number = self.number().unwrap_or_else(|| "-".to_owned());
        let (modality, description) = (self.modality(), self.description());
        let count = match &self.no_volume {
            Some(reason) => format!("no volume: {reason}"),
            None => format!("{} slices", self.num_slices()),
        };
        format!("{number}: {modality} \"{description}\", {count}, {}", self.uid())
    }

    /// The slices in their order.
    fn stack(&self, uneven: bool) -> Result<Stack> {
        let refused = |problem: String| DataError::Series { series: self.short(), problem };
        if let Some(reason) = &self.no_volume {
            return Err(refused(format!("no volume: {reason}")));
        }
        let stack = stack::stack(self.slices.clone()).map_err(refused)?;
        match &stack.uneven {
            Some(found) if !(uneven && found.safe) => {
                let way = match found.safe {
                    true => "--allow uneven interpolates to equal distances",
                    false => "the gap is too wide to be filled: send the series again, completely",
                };
                Err(refused(format!("{} ({way})", found.what)))
            }
            _ => Ok(stack),
        }
    }

    /// What it is called in errors.
    fn short(&self) -> String {
        match self.number() {
            Some(number) => format!("{number} ({})", self.uid()),
            None => self.uid().to_owned(),
        }
    }

    /// The grid on which it is read.
    ///
    /// # Errors
    /// As [`Series::read`], but for files that cannot be read.
    pub fn geometry(&self, uneven: bool) -> Result<Geometry> {
        self.stack(uneven)?.geometry()
    }

    /// What outputs that are made of it say of it, such as a segmentation.
    ///
    /// # Errors
    /// As [`Series::geometry`]; when a file cannot be read, or an image has no UID.
    pub fn source(&self, uneven: bool) -> Result<Source> {
        Source::of(&self.images, &self.stack(uneven)?)
    }

    /// Reads it. With `uneven`, slices at uneven distances are interpolated to their median distance,
    /// which the notes say; gaps of more than two and a half of it are refused all the same.
    ///
    /// # Shapes
    /// One channel, `[1, Z, Y, X]`.
    ///
    /// # Errors
    /// When it is no volume; when slices are missing, doubled, unevenly spaced, of different sizes
    /// or orientations, or shifted against each other; when a file cannot be read or decoded.
    pub fn read(&self, uneven: bool) -> Result<Scan> {
        let stack = self.stack(uneven)?;
        let image = volume::read(&self.images, &stack)?;
        let mut notes = self.notes.clone();
        if let Some(uneven) = &stack.uneven {
            let slices = image.geometry.shape()[0];
            notes.push(format!(
                "the slices are uneven: {}; interpolated to {slices} slices every {:.2} mm",
                uneven.what,
                stack.spacing()
            ));
        }
        Ok(Scan { image, notes })
    }
}

/// Why images are no slices, for people.
fn why(reason: &NoSlices) -> String {
    match reason {
        NoSlices::Localiser => "a localiser",
        NoSlices::NoImage => "no image of a scan",
        NoSlices::Colour => "colour pictures",
        NoSlices::NoPlace => "no position, orientation or pixel spacing",
        NoSlices::Other(what) => what,
    }
    .to_owned()
}

/// Removes images that are there twice, by their UID; returns how many.
fn drop_copies(images: &mut Vec<Image>) -> usize {
    let before = images.len();
    let mut seen: BTreeMap<String, Header> = BTreeMap::new();
    images.retain(|image| {
        let uid = &image.header.instance_uid;
        match seen.get(uid) {
            // One UID with two meanings is no copy.
            Some(header) => uid.is_empty() || *header != image.header,
            None => {
                seen.insert(uid.clone(), image.header.clone());
                true
            }
        }
    });
    before - images.len()
}

fn slices(images: &[Image]) -> Vec<Slice> {
    let slices = |(index, image): (usize, &Image)| {
        let Ok((format, frames)) = &image.header.slices else { return Vec::new() };
        let number = |frame: usize| match frames.len() {
            1 => image.header.instance.unwrap_or(index as i64 + 1),
            _ => frame as i64 + 1,
        };
        let size = [format.rows, format.columns];
        let slice = |(frame, place): (usize, &super::header::Frame)| Slice {
            image: index,
            frame,
            number: number(frame),
            size,
            place: place.clone(),
        };
        frames.iter().enumerate().map(slice).collect()
    };
    images.iter().enumerate().flat_map(slices).collect()
}
