//! Files that appear whole or not at all.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Beginning and ending of the names of files under construction; a killed process leaves one
/// behind.
pub const UNFINISHED: (&str, &str) = (".stunet-", ".part");

/// Writes beside `path` and moves the file there once `fill` has succeeded and the disk has it.
///
/// # Errors
/// Those of `fill`, and what the file system refuses, as `io` words it.
pub fn write<T, E>(
    path: &Path,
    io: impl Fn(std::io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<T, E>,
) -> Result<T, E> {
    let folder = folder_of(path);
    let mut builder = builder();
    // Temporary files are private by default; what is saved is as public as the user's mask says.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(&folder).map_err(&io)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
    let value = fill(&mut out)?;
    out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(&io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    // The name itself is on the disk only when the folder is.
    #[cfg(unix)]
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(&io)?;
    Ok(value)
}

/// Gives a file a second name, at once and whatever had that name before; false where the file
/// system cannot. Files are only ever replaced, so neither name changes with the other.
pub fn link(file: &Path, name: &Path) -> bool {
    let Ok(made) = builder().make_in(folder_of(name), |path| std::fs::hard_link(file, path)) else {
        return false;
    };
    let made = made.into_temp_path();
    let place = made.to_path_buf();
    let persisted = made.persist(name).is_ok();
    // Moving one name of a file over another of the same file leaves both.
    let _ = std::fs::remove_file(place);
    persisted
}

/// Removes what killed processes left under construction in a folder.
///
/// # Errors
/// When the folder cannot be read, or a file in it not removed.
pub fn sweep(folder: &Path) -> std::io::Result<()> {
    let (prefix, suffix) = UNFINISHED;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(suffix) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    builder
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
