//! Files that appear whole or not at all.

use crate::ModelError;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes beside `path` and moves the file there once `fill` has succeeded.
pub(super) fn write<T>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<T, ModelError>,
) -> Result<T, ModelError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let file = create(&folder).map_err(|e| ModelError::io("write", path, e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
    let value = fill(&mut out)?;
    out.into_inner()
        .map_err(|e| ModelError::io("write", path, e.into_error()))?
        .sync_all()
        .map_err(|e| ModelError::io("write", path, e))?;
    file.persist(path).map_err(|e| ModelError::io("write", path, e.error))?;
    Ok(value)
}

fn create(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".stunet-").suffix(".part");
    // Temporary files are private by default; what is saved is as public as the user's mask says.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
