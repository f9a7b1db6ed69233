//! Where the bytes of a weights file are, read at positions.
//!
//! Nothing is mapped: a file that another program shortens while it is read is an error here, where
//! a mapping would end the process with a signal that no library can catch.

use crate::ModelError;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// An open file, or what would be in one.
#[derive(Debug)]
pub(super) enum Source {
    File(File),
    Memory(Arc<Vec<u8>>),
}

impl Source {
    /// Opens an ordinary file.
    ///
    /// A pipe would wait for its writer and a device never end, so the kind is asked first.
    pub(super) fn open(path: &Path, expected: &str) -> std::result::Result<Self, ModelError> {
        let io = |e| ModelError::io("open", path, e);
        let kind = std::fs::metadata(path).map_err(io)?.file_type();
        if kind.is_file() {
            return File::open(path).map(Self::File).map_err(io);
        }
        let found = if kind.is_dir() { "a folder" } else { "a pipe or a device" };
        Err(ModelError::checkpoint(path, expected, found))
    }

    /// Bytes there are now.
    pub(super) fn length(&self) -> Result<u64> {
        match self {
            Self::File(file) => file.metadata().map(|of| of.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Fills a buffer with what begins at a position.
    ///
    /// # Errors
    /// When the source ends before, which is told with its length.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        match self {
            Self::File(file) => exact(file, buffer, at).map_err(|e| match e.kind() {
                ErrorKind::UnexpectedEof => self.too_short(buffer.len(), at),
                _ => e,
            }),
            Self::Memory(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                let part = part.ok_or_else(|| self.too_short(buffer.len(), at))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }

    fn too_short(&self, count: usize, at: u64) -> Error {
        let length = self.length().map_or("fewer".to_owned(), |length| length.to_string());
        let end = at.saturating_add(count as u64);
        let message = format!(
            "expected at least {end} bytes, found {length}: it is truncated, or another program \
             shortened it while it was read"
        );
        Error::new(ErrorKind::UnexpectedEof, message)
    }

    /// A range as a reader.
    pub(super) fn part(&self, start: u64, end: u64) -> SourceRange<'_> {
        SourceRange { source: self, start, at: start, end }
    }
}

#[cfg(unix)]
fn exact(file: &File, buffer: &mut [u8], at: u64) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}

#[cfg(windows)]
fn exact(file: &File, mut buffer: &mut [u8], mut at: u64) -> Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, at)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => {
                buffer = &mut buffer[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

/// Where nothing reads at a position, such as WebAssembly with files: one thread, which moves it.
#[cfg(not(any(unix, windows)))]
fn exact(mut file: &File, buffer: &mut [u8], at: u64) -> Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(buffer)
}

/// A range of a source as a reader; positions count from its start.
#[derive(Debug)]
pub(super) struct SourceRange<'a> {
    source: &'a Source,
    start: u64,
    at: u64,
    end: u64,
}

impl Read for SourceRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.end.saturating_sub(self.at);
        let count = left.min(buffer.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        self.source.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for SourceRange<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => self.start.checked_add(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        // Beyond the end is allowed, as in files; before the start is not.
        match target {
            Some(at) if at >= self.start => {
                self.at = at;
                Ok(at - self.start)
            }
            _ => Err(Error::new(ErrorKind::InvalidInput, "a position outside the file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_memory_answer_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let bytes: Vec<u8> = (0..100).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Source::open(&path, "a file").unwrap();
        for source in [file, Source::Memory(bytes.into())] {
            assert_eq!(source.length().unwrap(), 100);
            let mut four = [0; 4];
            source.read_exact_at(&mut four, 96).unwrap();
            assert_eq!(four, [96, 97, 98, 99]);
            for at in [97, 100, u64::MAX] {
                let message = source.read_exact_at(&mut four, at).unwrap_err().to_string();
                assert!(message.contains("shortened") || at == u64::MAX, "{message}");
            }
            let mut part = source.part(10, 20);
            assert_eq!(part.seek(SeekFrom::End(-4)).unwrap(), 6);
            let mut rest = Vec::new();
            part.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, [16, 17, 18, 19]);
            assert!(part.seek(SeekFrom::Current(-11)).is_err());
            assert_eq!(part.seek(SeekFrom::Start(99)).unwrap(), 99);
            assert_eq!(part.read(&mut four).unwrap(), 0);
        }
        let message = Source::open(folder.path(), "weights").unwrap_err().to_string();
        assert!(message.contains("expected weights, found a folder"), "{message}");
    }
}
