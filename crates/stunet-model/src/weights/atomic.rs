//! Atomic writing: files appear under their final name when they are complete.

use std::fs::{File, TryLockError};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Beginning and ending of the names of files under construction; a killed process leaves one
/// behind.
pub const UNFINISHED: (&str, &str) = (".stunet-", ".part");

/// Writes beside `path` and moves the file there once `fill` has succeeded and the disk has it.
/// What killed programs left of the same file is removed.
///
/// # Errors
/// Those of `fill`, and what the file system refuses, as `io` words it.
pub fn write<T, E>(
    path: &Path,
    io: impl Fn(std::io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<T, E>,
) -> Result<T, E> {
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{}{}-", UNFINISHED.0, marker(&name));
    // A folder that cannot be read, or a file not removed: writing tells, or does without.
    let _ =
        remove(&folder, |rest| rest.rsplit_once('-').is_some_and(|(of, _)| of == marker(&name)));
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(UNFINISHED.1);
    // Temporary files are private by default; what is saved is as public as the user's mask says.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(&folder).map_err(&io)?;
    // Held until the file is finished or given up, however the program ends: by it `sweep` knows
    // what is under construction from what was left. A file system without locks does without.
    #[cfg(unix)]
    let _ = file.as_file().try_lock();
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
    let value = fill(&mut out)?;
    out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(&io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    // The name itself is on the disk only when the folder is.
    #[cfg(unix)]
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(&io)?;
    Ok(value)
}

/// Opens an ordinary file for reading.
///
/// # Errors
/// What the file system refuses, and when it is a folder, a pipe or a device: those may block or
/// never end.
pub fn open(path: &Path) -> std::io::Result<File> {
    // Asked before it is opened: opening a pipe waits for its writer.
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() {
        return File::open(path);
    }
    let found = match kind.is_dir() {
        true => "a folder",
        false => "a pipe or a device",
    };
    Err(std::io::Error::other(format!("expected a file, found {found}")))
}

/// Gives a file a second name, at once and whatever had that name before; false where the file
/// system cannot. Files are only ever replaced, so neither name changes with the other.
#[allow(clippy::disallowed_methods, reason = "this is the writer")]
pub fn link(file: &Path, name: &Path) -> bool {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    let Ok(made) = builder.make_in(folder_of(name), |path| std::fs::hard_link(file, path)) else {
        return false;
    };
    let made = made.into_temp_path();
    let place = made.to_path_buf();
    let persisted = made.persist(name).is_ok();
    // Moving one name of a file over another of the same file leaves both.
    let _ = std::fs::remove_file(place);
    persisted
}

/// Removes what killed processes left under construction in a folder; what others write right now
/// is left alone.
///
/// # Errors
/// When the folder cannot be read, or a file in it not removed.
pub fn sweep(folder: &Path) -> std::io::Result<()> {
    remove(folder, |_| true)
}

/// Removes abandoned files under construction of which `chosen` likes what stands between the
/// beginning and the ending of their names.
fn remove(folder: &Path, chosen: impl Fn(&str) -> bool) -> std::io::Result<()> {
    let (prefix, suffix) = UNFINISHED;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
        if rest.is_some_and(&chosen) && is_abandoned(&entry.path()) {
            match std::fs::remove_file(entry.path()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether nobody writes a file under construction any more: its lock is free.
fn is_abandoned(path: &Path) -> bool {
    // A link or a pipe of such a name is nobody's file under construction.
    if !std::fs::symlink_metadata(path).is_ok_and(|of| of.is_file()) {
        return false;
    }
    match File::open(path) {
        Ok(file) if cfg!(unix) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        // Windows keeps what is in use by itself.
        _ => true,
    }
}

/// As much of a name as fits into the name of a file under construction.
fn marker(name: &str) -> &str {
    /// Of the 255 bytes that file systems allow, the rest is for what stands around it.
    const MOST: usize = 200;
    &name[..name.floor_char_boundary(MOST)]
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn put(path: &Path, bytes: &[u8]) {
        write(path, |e| e, |out| out.write_all(bytes)).unwrap();
    }

    fn left(path: &Path) -> PathBuf {
        let name = path.file_name().unwrap().to_string_lossy();
        let left = path.with_file_name(format!(".stunet-{}-a1b2c3.part", marker(&name)));
        std::fs::write(&left, b"half").unwrap();
        left
    }

    #[test]
    fn what_a_killed_program_left_goes_with_the_next_file_of_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("{}.model", "ü".repeat(120)));
        let other = left(&folder.path().join("other.model"));
        let own = left(&path);
        put(&path, b"whole");
        assert!(!own.exists() && other.exists());
        sweep(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| open(path).unwrap_err().to_string();
        assert_eq!(message(folder.path()), "expected a file, found a folder");
        #[cfg(unix)]
        assert_eq!(message(Path::new("/dev/zero")), "expected a file, found a pipe or a device");
    }

    #[cfg(unix)]
    #[test]
    fn what_another_program_writes_right_now_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.model");
        let both = write(
            &path,
            |e| e,
            |out| {
                put(&path, b"second");
                sweep(folder.path())?;
                out.write_all(b"first")
            },
        );
        both.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
