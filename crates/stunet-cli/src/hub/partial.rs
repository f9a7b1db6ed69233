//! A file that grows, over several runs if need be, and its checksum.

#![allow(
    clippy::disallowed_methods,
    reason = "a download goes on where it was broken off: its file is kept, and named when it is whole"
)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::failure::Interrupted;
use crate::interrupt;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// A file under construction.
pub struct Partial {
    file: File,
    path: PathBuf,
    sum: Sha256,
    bytes: u64,
}

impl Partial {
    /// Takes up what is there of a file, which is read for its checksum, or begins it.
    ///
    /// # Errors
    ///
    /// Where the file system refuses, or on Ctrl-C.
    pub fn open(path: PathBuf, heard: &mut dyn FnMut(u64)) -> anyhow::Result<Self> {
        let file = File::options().create(true).read(true).append(true).open(&path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut sum = Sha256::new();
        let bytes = read_through(&mut file, &path, &mut |piece, done| {
            sum.update(piece);
            heard(done);
        })?;
        Ok(Self { file, path, sum, bytes })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// Where the file system refuses: what was written before is kept.
    pub fn add(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        // A part of a piece may have been written when the disk is full: the sum is of what is there.
        if let Err(error) = self.file.write_all(piece) {
            bail!(
                "cannot write: {} (HF_HOME names the place): {}",
                reason(&error),
                self.path.display()
            );
        }
        self.sum.update(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }

    /// Begins again.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0).with_context(|| format!("cannot write {}", self.path.display()))?;
        (self.sum, self.bytes) = (Sha256::new(), 0);
        Ok(())
    }

    /// Adds all that a reader gives.
    ///
    /// # Errors
    ///
    /// Where either end fails, or on Ctrl-C.
    pub fn copy(&mut self, from: &Path, heard: &mut dyn FnMut(u64)) -> anyhow::Result<()> {
        let mut source = stunet::data::files::open(from)?;
        let mut failed = Ok(());
        read_through(&mut source, from, &mut |piece, done| {
            if failed.is_ok() {
                failed = self.add(piece);
            }
            heard(done);
        })?;
        failed
    }

    /// The checksum.
    pub fn sha256(&self) -> String {
        hex(&self.sum.clone().finalize())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn remove(self) -> anyhow::Result<()> {
        drop(self.file);
        fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }

    /// Gives the whole file its name, once the disk has it.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn finish(self, name: &Path) -> anyhow::Result<()> {
        let at = || format!("cannot write {}", name.display());
        self.file.sync_all().with_context(at)?;
        drop(self.file);
        fs::rename(&self.path, name).with_context(at)
    }
}

/// The SHA-256 of a file.
///
/// # Errors
///
/// Where it cannot be read, or on Ctrl-C.
pub fn sha256_of(path: &Path, heard: &mut dyn FnMut(u64)) -> anyhow::Result<String> {
    let mut file = stunet::data::files::open(path)?;
    let mut sum = Sha256::new();
    read_through(&mut file, path, &mut |piece, done| {
        sum.update(piece);
        heard(done);
    })?;
    Ok(hex(&sum.finalize()))
}

/// The SHA-256 of a text.
#[cfg(feature = "download")]
pub fn sha256_of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Reads a file from where it is; returns the bytes.
fn read_through(
    file: &mut File,
    path: &Path,
    heard: &mut dyn FnMut(&[u8], u64),
) -> anyhow::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let found = match file.read(&mut piece) {
            Ok(0) => return Ok(done),
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => bail!("cannot read: {}: {}", reason(&error), path.display()),
        };
        done += found as u64;
        heard(&piece[..found], done);
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
    }
}

/// An error of the system without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        _ => error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_several_runs() {
        let folder = tempfile::tempdir().unwrap();
        let [path, whole] = ["x.incomplete", "x"].map(|name| folder.path().join(name));
        let open = || Partial::open(path.clone(), &mut |_| ()).unwrap();
        let mut first = open();
        assert_eq!(first.bytes(), 0);
        first.add(b"ab").unwrap();
        drop(first);
        let mut second = open();
        assert_eq!(second.bytes(), 2);
        second.add(b"c").unwrap();
        // Of "abc": the first example of FIPS 180.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(second.sha256(), expected);
        second.finish(&whole).unwrap();
        assert!(!path.exists());
        assert_eq!(sha256_of(&whole, &mut |_| ()).unwrap(), expected);
        let mut third = open();
        third.add(b"xyz").unwrap();
        third.restart().unwrap();
        third.copy(&whole, &mut |_| ()).unwrap();
        assert_eq!((third.bytes(), third.sha256().as_str()), (3, expected));
        third.remove().unwrap();
        assert!(!path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_one_line() {
        let file = File::options().append(true).open("/dev/full").unwrap();
        let path = "/dev/full".into();
        let mut full = Partial { file, path, sum: Sha256::new(), bytes: 7 };
        let message = full.add(b"abc").unwrap_err().to_string();
        assert!(message.starts_with("cannot write: the disk is full (HF_HOME names"), "{message}");
    }
}
