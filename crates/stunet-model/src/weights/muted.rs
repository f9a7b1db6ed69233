//! A writer that fails once.

use std::io::{Error, ErrorKind, Result, Seek, SeekFrom, Write};

/// Hands on what is written, until that fails: the failure is told once, and from then on everything
/// is taken and thrown away.
///
/// An archive (`zip::ZipWriter`) that is dropped after a failure writes its end all the same, and
/// prints to standard error if it cannot. Here it can. Whether all was written [`Muted::into_inner`]
/// says.
#[derive(Debug)]
pub struct Muted<W> {
    inner: W,
    failed: bool,
    /// Where the next byte would go.
    at: u64,
    /// As far as has been written.
    end: u64,
}

impl<W> Muted<W> {
    /// Nothing has failed yet; the writer is at its beginning.
    pub fn new(inner: W) -> Self {
        Self { inner, failed: false, at: 0, end: 0 }
    }

    /// The writer below.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn into_inner(self) -> Result<W> {
        match self.failed {
            false => Ok(self.inner),
            true => Err(Error::other("a part of the archive could not be written")),
        }
    }

    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failed |= result.as_ref().is_err_and(|e| e.kind() != ErrorKind::Interrupted);
        result
    }
}

impl<W: Write> Write for Muted<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = match self.failed {
            true => bytes.len(),
            false => {
                let result = self.inner.write(bytes);
                self.note(result)?
            }
        };
        self.at += written as u64;
        self.end = self.end.max(self.at);
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        if self.failed {
            return Ok(());
        }
        let result = self.inner.flush();
        self.note(result)
    }
}

impl<W: Seek> Seek for Muted<W> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.at = match self.failed {
            false => {
                let result = self.inner.seek(to);
                self.note(result)?
            }
            true => match to {
                SeekFrom::Start(at) => at,
                SeekFrom::Current(by) => self.at.saturating_add_signed(by),
                SeekFrom::End(by) => self.end.saturating_add_signed(by),
            },
        };
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// A disk with so much room, which counts the failures it told.
    struct Disk<'a> {
        file: Cursor<Vec<u8>>,
        room: usize,
        failures: &'a std::cell::Cell<usize>,
    }

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            if self.file.position() as usize + bytes.len() > self.room {
                self.failures.set(self.failures.get() + 1);
                return Err(ErrorKind::StorageFull.into());
            }
            self.file.write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Seek for Disk<'_> {
        fn seek(&mut self, to: SeekFrom) -> Result<u64> {
            self.file.seek(to)
        }
    }

    fn archive<W: Write + Seek>(zip: &mut ZipWriter<Muted<W>>) -> Result<()> {
        for name in ["a", "b"] {
            zip.start_file(name, SimpleFileOptions::default())?;
            zip.write_all(&[7; 100])?;
        }
        Ok(())
    }

    #[test]
    fn an_archive_that_fails_anywhere_has_nothing_to_say_at_its_end() {
        let failures = std::cell::Cell::new(0);
        let disk = |room| Disk { file: Cursor::new(Vec::new()), room, failures: &failures };
        let mut zip = ZipWriter::new(Muted::new(disk(usize::MAX)));
        archive(&mut zip).unwrap();
        let whole = zip.finish().unwrap().into_inner().unwrap().file.into_inner();
        for room in 0..whole.len() {
            failures.set(0);
            let mut zip = ZipWriter::new(Muted::new(disk(room)));
            let ended = match archive(&mut zip) {
                Ok(()) => zip.finish().map_err(Error::from).and_then(Muted::into_inner).map(drop),
                // Dropped here: one failure and no second one.
                Err(e) => Err(e),
            };
            assert!(ended.is_err(), "{room} of {}", whole.len());
            assert_eq!(failures.get(), 1, "{room} of {}", whole.len());
        }
        let mut zip = ZipWriter::new(Muted::new(disk(whole.len())));
        archive(&mut zip).unwrap();
        assert_eq!(zip.finish().unwrap().into_inner().unwrap().file.into_inner(), whole);
    }
}
