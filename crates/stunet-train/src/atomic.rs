//! Files that appear whole or not at all.

use crate::error::{Result, TrainError};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Ending of files under construction; a killed run leaves one behind.
const PART: &str = ".part";
const PREFIX: &str = ".stunet-";

/// Writes beside `path` and moves the file there once `fill` has succeeded and the disk has it.
pub(crate) fn write<T>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let folder = folder_of(path);
    let io = |e| TrainError::io("write", path, e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(PART);
    // Temporary files are private by default; what is saved is as public as the user's mask says.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(&folder).map_err(io)?;
    let value = fill(file.as_file_mut())?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    // The name itself is on the disk only when the folder is.
    #[cfg(unix)]
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(value)
}

/// Writes `bytes`, whole or not at all.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, |file| file.write_all(bytes).map_err(|e| TrainError::io("write", path, e)))
}

/// Gives a file a second name, at once and whatever had that name before; false where the file
/// system cannot. Files are only ever replaced, so neither name changes with the other.
pub(crate) fn link(file: &Path, name: &Path) -> bool {
    let folder = folder_of(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(PART);
    let Ok(made) = builder.make_in(&folder, |path| std::fs::hard_link(file, path)) else {
        return false;
    };
    let made = made.into_temp_path();
    let place = made.to_path_buf();
    let persisted = made.persist(name).is_ok();
    // Moving one name of a file over another of the same file leaves both.
    let _ = std::fs::remove_file(place);
    persisted
}

/// Removes what killed runs left under construction.
pub(crate) fn sweep(folder: &Path) -> Result<()> {
    let io = |e| TrainError::io("clean", folder, e);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(PART) {
            std::fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
