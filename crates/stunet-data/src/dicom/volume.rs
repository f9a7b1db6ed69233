//! The voxels of a series.

use super::frames::FilePixels;
use super::header::Header;
use super::parse::Parsed;
use super::place::{self, Place};
use super::stack::{Slice, Stack};
use super::syntax::{Codec, Elements};
use crate::error::{DataError, Result};
use crate::image::{RawImage, Voxels};
use ndarray::Array4;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// An image of a series: a file, and what its header said.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub place: Place,
    pub header: Header,
}

/// A file whose pixels are at hand.
struct Loaded {
    parsed: Parsed,
    bytes: Vec<u8>,
    header: Header,
}

impl Loaded {
    fn of(image: &Image) -> Result<Self> {
        let (parsed, bytes) = image.place.whole()?;
        let header = Header::of(&parsed)?;
        // Where pixels lie is only known to the one that read them now.
        if header.as_ref() != Some(&image.header) {
            return Err(DataError::Mismatch {
                what: "header",
                expected: "what it was when the series was listed".to_owned(),
                found: "another one: the file has changed".to_owned(),
            });
        }
        Ok(Self { parsed, bytes, header: image.header.clone() })
    }

    fn pixels(&self) -> Result<FilePixels<'_>> {
        let Self { parsed, bytes, header } = self;
        match &header.slices {
            Ok((format, _)) => {
                let pixels = FilePixels::new(format, bytes, &parsed.pixels, &parsed.dataset);
                pixels.check_size()?;
                Ok(pixels)
            }
            Err(_) => Err(DataError::UnsupportedDicom { what: "expected slices".to_owned() }),
        }
    }
}

/// Reads the samples of a stack.
///
/// # Errors
/// When a file cannot be read or its pixels not be decoded.
pub(super) fn read(images: &[Image], stack: &Stack) -> Result<RawImage> {
    check_sizes(images, stack)?;
    let files = Files::new(images);
    let geometry = stack.geometry()?;
    // Interpolated values are no whole numbers.
    let voxels = match stack.uneven.is_none() && stack.slices.iter().all(|s| small(s).is_some()) {
        true => files.small(stack)?,
        false => None,
    };
    let voxels = match voxels {
        Some(voxels) => Voxels::I16(voxels),
        None => Voxels::F32(files.single(stack)?),
    };
    Ok(RawImage { voxels, geometry })
}

/// Most bytes of samples per byte of a packed file: a blank slice takes a few dozen bytes.
const MAX_RATIO: u64 = 4096;
/// Bytes of samples that are believed of any packed files.
const SMALL: u64 = 64 << 20;

/// Fails where files are too short for the samples that they claim, before anything is allocated for
/// those.
fn check_sizes(images: &[Image], stack: &Stack) -> Result<()> {
    let used: BTreeSet<usize> = stack.slices.iter().map(|slice| slice.image).collect();
    let (mut expected, mut found) = (0u64, 0u64);
    for image in used.into_iter().map(|index| &images[index]) {
        let Ok((format, _)) = &image.header.slices else { continue };
        let (bytes, length) = (format.bytes(), image.place.len());
        let native = match (format.syntax.codec, format.syntax.elements) {
            (Codec::Native, Elements::Deflated) => Some(place::unpacked(length)),
            (Codec::Native, _) => Some(length),
            _ => None,
        };
        match native {
            Some(most) if bytes > most => {
                let error = DataError::Truncated { expected: bytes, found: length };
                return Err(image.place.at(error));
            }
            Some(_) => {}
            None => {
                expected = expected.saturating_add(bytes);
                found = found.saturating_add(length);
            }
        }
    }
    match expected <= SMALL.max(found.saturating_mul(MAX_RATIO)) {
        true => Ok(()),
        false => Err(DataError::Truncated { expected, found }),
    }
}

/// Slope and intercept of a slice that are whole numbers.
fn small(slice: &Slice) -> Option<(i64, i64)> {
    let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 32768.0).then_some(v as i64);
    Some((whole(slice.place.slope)?, whole(slice.place.intercept)?))
}

/// The files of a series; those of several frames are read once.
struct Files<'a> {
    images: &'a [Image],
    kept: Vec<OnceLock<Result<Loaded>>>,
}

impl<'a> Files<'a> {
    fn new(images: &'a [Image]) -> Self {
        Self { images, kept: images.iter().map(|_| OnceLock::new()).collect() }
    }

    /// The samples of a slice.
    fn frame(&self, slice: &Slice) -> Result<Vec<i32>> {
        let image = &self.images[slice.image];
        let at = |error| image.place.at(error);
        if image.header.num_frames == 1 {
            let loaded = Loaded::of(image).map_err(at)?;
            return loaded.pixels().and_then(|pixels| pixels.frame(0)).map_err(at);
        }
        match self.kept[slice.image].get_or_init(|| Loaded::of(image)) {
            Ok(loaded) => loaded.pixels().and_then(|pixels| pixels.frame(slice.frame)).map_err(at),
            // Errors cannot be copied: it is read again, and fails again.
            Err(_) => match Loaded::of(image) {
                Err(error) => Err(at(error)),
                Ok(_) => Err(at(DataError::Stopped)),
            },
        }
    }

    /// Samples as small whole numbers; none where one does not fit.
    fn small(&self, stack: &Stack) -> Result<Option<Array4<i16>>> {
        let [rows, columns] = stack.slices[0].size;
        let mut volume = Array4::zeros((1, stack.slices.len(), rows, columns));
        let planes = volume.as_slice_mut().expect("a new array is contiguous");
        let planes = planes.par_chunks_mut(rows * columns);
        let whole = planes.zip(&stack.slices).map(|(plane, slice)| {
            let (slope, intercept) = small(slice).unwrap_or((1, 0));
            let mut fits = true;
            for (to, value) in plane.iter_mut().zip(self.frame(slice)?) {
                let value = i64::from(value) * slope + intercept;
                *to = value as i16;
                fits &= i64::from(*to) == value;
            }
            Ok(fits)
        });
        let fits: Result<Vec<bool>> = whole.collect();
        Ok(fits?.into_iter().all(|fits| fits).then_some(volume))
    }

    /// Samples in single precision, as ITK computes them; between slices where these are uneven.
    fn single(&self, stack: &Stack) -> Result<Array4<f32>> {
        let taps = stack.taps();
        let [rows, columns] = stack.slices[0].size;
        let last = stack.slices.len() - 1;
        let mut volume = Array4::<f32>::zeros((1, taps.len(), rows, columns));
        let planes = volume.as_slice_mut().expect("a new array is contiguous");
        let planes = planes.par_chunks_mut(rows * columns);
        planes.zip(&taps).try_for_each(|(plane, (below, share))| {
            let value = |slice: &Slice| {
                let (slope, intercept) = (slice.place.slope, slice.place.intercept);
                let values = self.frame(slice)?.into_iter();
                Ok::<_, DataError>(values.map(move |v| f64::from(v) * slope + intercept))
            };
            let lower = value(&stack.slices[*below])?;
            if *share == 0.0 {
                plane.iter_mut().zip(lower).for_each(|(to, v)| *to = v as f32);
                return Ok(());
            }
            let upper = value(&stack.slices[(below + 1).min(last)])?;
            let between = lower.zip(upper).map(|(a, b)| a + share * (b - a));
            plane.iter_mut().zip(between).for_each(|(to, v)| *to = v as f32);
            Ok::<_, DataError>(())
        })?;
        match volume.iter().all(|v| v.is_finite()) {
            true => Ok(volume),
            false => {
                let what = "expected values that fit into single precision, found larger ones \
                            behind RescaleSlope and RescaleIntercept";
                Err(DataError::UnsupportedDicom { what: what.to_owned() })
            }
        }
    }
}
