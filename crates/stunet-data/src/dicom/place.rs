//! Where DICOM files come from: a file, a folder with everything below it, a zip archive, memory.

use super::parse;
use super::syntax::{Elements, Syntax};
use crate::error::{DataError, Result};
use crate::files;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zip::ZipArchive;

/// One file.
#[derive(Clone, Debug)]
pub(super) enum Place {
    File(PathBuf),
    /// Of an archive.
    Member(Arc<Archive>, usize),
    /// In memory.
    Memory(Arc<[u8]>),
}

/// Bytes that can be read from any place.
pub(super) trait Source: Read + Seek {}

impl<T: Read + Seek + ?Sized> Source for T {}

/// A zip archive that stays open.
pub(super) struct Archive {
    path: PathBuf,
    zip: Mutex<ZipArchive<BufReader<File>>>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Deepest folder below the one that is asked for.
const MAX_DEPTH: usize = 32;
/// Bytes that any compressed file may unpack to.
const SMALL: u64 = 64 << 20;
/// And per byte of it.
const MAX_RATIO: u64 = 256;

/// Whether a path is a zip archive, by its first bytes.
pub(super) fn is_zip(path: &Path) -> bool {
    starts_with(path, |start| start.starts_with(b"PK\x03\x04"))
}

/// Whether a path is a DICOM file that says so.
pub(super) fn has_mark(path: &Path) -> bool {
    starts_with(path, parse::has_mark)
}

fn starts_with(path: &Path, is: impl Fn(&[u8]) -> bool) -> bool {
    let mut start = Vec::new();
    let Ok(file) = files::open(path) else { return false };
    file.take(132).read_to_end(&mut start).is_ok() && is(&start)
}

/// Every file that a path stands for, sorted: of a folder all below it, of an archive all members.
///
/// # Errors
/// When the path cannot be read, or the archive is damaged.
pub(super) fn places(path: &Path) -> Result<Vec<Place>> {
    if path.is_dir() {
        let mut found = Vec::new();
        below(path, 0, &mut found)?;
        found.sort();
        return Ok(found.into_iter().map(Place::File).collect());
    }
    if !is_zip(path) {
        drop(files::open(path)?);
        return Ok(vec![Place::File(path.to_owned())]);
    }
    let zip =
        ZipArchive::new(BufReader::new(files::open(path)?)).map_err(|e| bad_zip(&e).at(path))?;
    let mut names: Vec<(String, usize)> = (0..zip.len())
        .filter_map(|index| Some((zip.name_for_index(index)?.ok()?.into_owned(), index)))
        .filter(|(name, _)| !name.ends_with('/'))
        .collect();
    names.sort();
    let archive = Arc::new(Archive { path: path.to_owned(), zip: Mutex::new(zip) });
    Ok(names.into_iter().map(|(_, index)| Place::Member(archive.clone(), index)).collect())
}

/// Files below a folder. Links to folders are not followed: they may lead around in circles.
fn below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let read = |e| DataError::io("read", e).at(folder);
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(read)?);
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match (kind.is_dir(), path.is_file()) {
            (true, _) if depth < MAX_DEPTH => below(&path, depth + 1, found)?,
            (false, true) => found.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn bad_zip(error: &zip::result::ZipError) -> DataError {
    DataError::Mismatch {
        what: "archive",
        expected: "a zip archive that can be read".to_owned(),
        found: format!("{error:.120}"),
    }
}

impl Place {
    /// The file that holds it.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Member(archive, _) => Some(&archive.path),
            Self::Memory(_) => None,
        }
    }

    /// The same error, with the file.
    pub fn at(&self, error: DataError) -> DataError {
        match self.path() {
            Some(path) => error.at(path),
            None => error,
        }
    }

    /// Its bytes, as far as they are known without reading it.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(path) => std::fs::metadata(path).map_or(0, |of| of.len()),
            Self::Member(archive, index) => {
                let mut zip = archive.zip.lock().unwrap_or_else(PoisonError::into_inner);
                let member = zip.by_index(*index);
                member.map_or(0, |of| of.size().min(unpacked(of.compressed_size())))
            }
            Self::Memory(memory) => memory.len() as u64,
        }
    }

    /// Reads the header; of a file on disk no more than that.
    pub fn start(&self) -> Result<parse::Parsed> {
        match self {
            Self::File(path) => {
                let file = BufReader::with_capacity(1 << 16, files::open(path)?);
                parsed(file, parse::Extent::Header).map(|(parsed, _)| parsed)
            }
            _ => {
                parsed(Cursor::new(self.bytes()?), parse::Extent::Header).map(|(parsed, _)| parsed)
            }
        }
    }

    /// Reads what somebody else wants of its data set, which gets its encoding and where it begins.
    pub fn read_by<T>(
        &self,
        read: impl FnOnce(&mut dyn Source, &Syntax, u64) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::File(path) => {
                read_by(&mut BufReader::with_capacity(1 << 16, files::open(path)?), read)
            }
            _ => read_by(&mut Cursor::new(self.bytes()?), read),
        }
    }

    /// Reads everything: the header, the pieces of the pixels, and the bytes that these lie in.
    pub fn whole(&self) -> Result<(parse::Parsed, Vec<u8>)> {
        let bytes = self.bytes()?;
        let (parsed, inflated) = parsed(Cursor::new(&bytes[..]), parse::Extent::Pieces)?;
        Ok((parsed, inflated.unwrap_or(bytes)))
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let read = |error| DataError::io("read", error);
        let mut bytes = Vec::new();
        match self {
            Self::File(path) => {
                let mut file = files::open(path)?;
                file.read_to_end(&mut bytes).map_err(read)?;
            }
            Self::Member(archive, index) => {
                let mut zip = archive.zip.lock().unwrap_or_else(PoisonError::into_inner);
                let member = zip.by_index(*index).map_err(|e| bad_zip(&e))?;
                let packed = member.compressed_size();
                bytes = bounded(member, packed).map_err(|_| DataError::Mismatch {
                    what: "member of the archive",
                    expected: "a file that unpacks without error, to a size that a scan may have"
                        .to_owned(),
                    found: format!("one of {packed} packed bytes that does not"),
                })?;
            }
            Self::Memory(memory) => bytes = memory.to_vec(),
        }
        Ok(bytes)
    }
}

/// Most bytes that so many may unpack to.
pub(super) fn unpacked(packed: u64) -> u64 {
    SMALL.saturating_add(packed.saturating_mul(MAX_RATIO))
}

/// Reads to the end of what unpacks from so many bytes, within a bound.
fn bounded(source: impl Read, packed: u64) -> std::io::Result<Vec<u8>> {
    let most = unpacked(packed);
    let mut bytes = Vec::new();
    source.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// Reads a file; also returns what was inflated of it.
fn parsed(
    mut source: impl Read + Seek,
    extent: parse::Extent,
) -> Result<(parse::Parsed, Option<Vec<u8>>)> {
    let (syntax, at) = parse::meta(&mut source)?;
    if syntax.elements != Elements::Deflated {
        return Ok((parse::dataset(&mut source, &syntax, at, extent)?, None));
    }
    let bytes = inflated(&mut source, at)?;
    let parsed = parse::dataset(&mut Cursor::new(&bytes[..]), &syntax, 0, extent)?;
    Ok((parsed, Some(bytes)))
}

fn read_by<T>(
    source: &mut (impl Read + Seek),
    read: impl FnOnce(&mut dyn Source, &Syntax, u64) -> Result<T>,
) -> Result<T> {
    let (syntax, at) = parse::meta(source)?;
    match syntax.elements {
        Elements::Deflated => {
            let bytes = inflated(source, at)?;
            read(&mut Cursor::new(&bytes[..]), &syntax, 0)
        }
        _ => read(source, &syntax, at),
    }
}

fn inflated(source: &mut (impl Read + Seek), at: u64) -> Result<Vec<u8>> {
    let end = source.seek(SeekFrom::End(0)).map_err(parse::read_error)?;
    source.seek(SeekFrom::Start(at)).map_err(parse::read_error)?;
    let inflate = flate2::read::DeflateDecoder::new(source);
    bounded(inflate, end - at).map_err(|e| {
        let reason = match e.kind() {
            std::io::ErrorKind::FileTooLarge => "it unpacks to more than a scan has".to_owned(),
            _ => e.to_string(),
        };
        DataError::BadPixels { codec: "deflated", reason }
    })
}
