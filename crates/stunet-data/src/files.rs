//! The only module of this crate that reads small files and writes results.
//!
//! * [`read_json`] reads what Python writes (NaN, a byte order mark), within a bound of memory.
//! * [`write()`] and [`save_json`] make files that appear whole or not at all.
//! * [`is_plain_name`] says whether a name from a file may become the name of a file.

use crate::error::{DataError, Result, invalid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Largest JSON file that is read. The fingerprint of ten thousand cases has about 3 MB.
pub const MAX_JSON_BYTES: u64 = 64 << 20;

/// Beginning and ending of the names of files under construction, around the name of the result.
/// A process that is killed leaves such a file behind.
pub const UNFINISHED: (&str, &str) = (".stunet-", ".tmp");

/// Reads a JSON file.
///
/// # Errors
/// When the file is missing, is no ordinary file, is larger than [`MAX_JSON_BYTES`], is not UTF-8,
/// or its content is not what `T` wants.
///
/// # Source
/// Python's `json` module, which nnU-Net reads and writes with.
///
/// # Deviations
/// `NaN`, `Infinity` and `-Infinity`, which Python writes although JSON does not have them, become
/// null: whoever needs that number says that it is missing, and nobody else is disturbed. A byte
/// order mark is passed over, where Python refuses it.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_bounded(path, MAX_JSON_BYTES)?;
    parse_json(&text).map_err(|e| DataError::Json(e).at(path))
}

/// As [`read_json`], of a file that is in memory; errors name `path`.
///
/// # Errors
/// As [`read_json`].
pub fn json_of<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T> {
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(too_large(MAX_JSON_BYTES, format!("{} bytes", text.len())).at(path));
    }
    parse_json(text).map_err(|e| DataError::Json(e).at(path))
}

/// Parses JSON as [`read_json`] does.
///
/// # Errors
/// When the text is no JSON, or not what `T` wants.
pub fn parse_json<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    serde_json::from_slice(&without_nan(text))
}

/// The bytes of an ordinary file of at most `most` bytes.
///
/// # Errors
/// When the file is missing, is no ordinary file (a pipe, a device, a folder), or is larger.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    let at = |e| DataError::io("read", e).at(path);
    let file = open(path)?;
    let length = file.metadata().map_err(at)?.len();
    if length > most {
        return Err(too_large(most, format!("{length} bytes")).at(path));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(most + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() as u64 > most {
        return Err(too_large(most, "more".to_owned()).at(path));
    }
    Ok(bytes)
}

fn too_large(most: u64, found: String) -> DataError {
    let expected = format!("at most {most} bytes");
    DataError::Mismatch { what: "size of the file", expected, found }
}

/// Opens an ordinary file for reading.
///
/// # Errors
/// When the file is missing or cannot be opened, or is a folder, a pipe or a device: those may
/// block or never end.
pub fn open(path: &Path) -> Result<File> {
    let at = |e| DataError::io_at("read", e, path);
    // Asked before it is opened: opening a pipe waits for its writer.
    let kind = std::fs::metadata(path).map_err(at)?.file_type();
    if kind.is_file() {
        return File::open(path).map_err(at);
    }
    let found = match kind.is_dir() {
        true => "a folder",
        false => "a pipe or a device",
    };
    Err(DataError::NotAFile { found }.at(path))
}

/// Text in which Python's names of numbers that are not finite have become `null`, outside strings.
fn without_nan(text: &[u8]) -> Cow<'_, [u8]> {
    const NAMES: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied, mut quoted) = (0, 0, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'N' | b'-' | b'I' if !quoted => {
                if let Some(name) = NAMES.into_iter().find(|name| text[at..].starts_with(name)) {
                    let out = out.get_or_insert_default();
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(b"null");
                    at += name.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.extend_from_slice(&text[copied..]);
            Cow::Owned(out)
        }
    }
}

/// Writes a value as indented JSON with a line break at its end, whole or not at all. What killed
/// programs left of the same file is removed.
///
/// # Errors
/// When the file cannot be written.
pub fn save_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    sweep([path]);
    let mut text = serde_json::to_string_pretty(value).map_err(|e| DataError::Json(e).at(path))?;
    text.push('\n');
    write(path, |file| file.write_all(text.as_bytes()).map_err(|e| DataError::io("write", e)))
}

/// Runs `body` on a temporary file in the same folder and gives it its name once the disk has it.
///
/// # Errors
/// Those of `body`, and what the file system refuses. Nothing is left behind then, and a file that
/// was there before is as it was.
pub fn write(path: &Path, body: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    // A folder that is missing is no missing file, as it would be in reading.
    let at = |source: std::io::Error| DataError::Io { action: "write", source }.at(path);
    let file = unfinished(path).map_err(at)?;
    let mut writer = BufWriter::new(file.as_file());
    body(&mut writer).map_err(|e| e.at(path))?;
    writer.flush().map_err(at)?;
    drop(writer);
    finish(file, path).map_err(at)
}

/// A new file under construction beside `path`; other users may read it as the mask allows.
///
/// It is made exclusively, under a name nobody can foresee: nobody's link is followed.
///
/// # Errors
/// What the file system refuses.
pub fn unfinished(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // The result's name says whose the file is, should the program be killed. Names may be as long
    // as the file system allows, and this one is longer: it is cut.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{}{}-", UNFINISHED.0, marker(&name));
    builder.prefix(&prefix).suffix(UNFINISHED.1);
    // Temporary files are private by default, results should not be: the user's mask decides.
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(mode);
    let file = builder.tempfile_in(folder_of(path))?;
    // Held until the file is finished or given up, however the program ends: by it `sweep` knows
    // what is under construction from what was left. A file system without locks does without.
    #[cfg(unix)]
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Gives a file from [`unfinished`] the name it was made for, once the disk has its bytes.
///
/// # Errors
/// What the file system refuses; the file is gone then.
pub fn finish(file: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The name itself is on the disk only when the folder is. Where a folder cannot be opened or
    // flushed (Windows, some network file systems), the result stands all the same.
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Gives a whole file another place on the same file system.
///
/// # Errors
/// What the file system refuses.
#[allow(clippy::disallowed_methods, reason = "this is the writer")]
pub(crate) fn move_file(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| DataError::io("move", e).at(from))
}

/// The result to which a file under construction belongs, as [`marker`] of its name; none for other
/// files.
fn result_of(unfinished: &str) -> Option<&str> {
    let rest = unfinished.strip_prefix(UNFINISHED.0)?.strip_suffix(UNFINISHED.1)?;
    rest.rsplit_once('-').map(|(name, _)| name)
}

/// Removes what killed processes left under construction of these results.
///
/// Others may be at work in the same folders: files of other results are not touched, nor those
/// whose writer lives.
pub fn sweep<'a>(results: impl IntoIterator<Item = &'a Path>) {
    let mut folders: std::collections::BTreeMap<PathBuf, Vec<String>> = Default::default();
    for result in results {
        let name = result.file_name().unwrap_or_default().to_string_lossy();
        folders.entry(folder_of(result)).or_default().push(marker(&name).to_owned());
    }
    for (folder, mut names) in folders {
        names.sort();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = result_of(&name)
                .is_some_and(|of| names.binary_search_by(|name| name.as_str().cmp(of)).is_ok());
            if ours && is_abandoned(&entry.path()) {
                // Whoever may not remove it may not write beside it either, and that is told.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
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
    let end = (0..=name.len().min(MOST)).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether a name that came out of a file may be used as the name of a file or folder: one ordinary
/// component of a path, without control characters.
///
/// ```
/// use stunet_data::files::is_plain_name;
/// assert!(is_plain_name("liver_001"));
/// assert!(!is_plain_name("../liver") && !is_plain_name("a/b") && !is_plain_name(""));
/// ```
pub fn is_plain_name(name: &str) -> bool {
    // What one system takes for a separator may be a letter on another: both are refused.
    let strange = |c: char| c.is_control() || matches!(c, '/' | '\\');
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(strange)
}

/// A name that came out of `file`, if it may become the name of a file.
///
/// # Errors
/// When it may not: see [`is_plain_name`].
pub fn plain_name(file: &'static str, key: &str, name: &str) -> Result<()> {
    if is_plain_name(name) {
        return Ok(());
    }
    let expected = "a name without /, \\ and control characters, other than . and ..";
    Err(invalid(
        file,
        key,
        expected,
        format_args!("{:?}", name.chars().take(60).collect::<String>()),
    ))
}

pub(crate) fn check_format(
    file: &'static str,
    found: (&str, u32),
    expected: &'static str,
) -> Result<()> {
    match found {
        (format, 1) if format == expected => Ok(()),
        (format, version) => Err(invalid(
            file,
            "format",
            format!("{expected} version 1"),
            format_args!("{format} version {version}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed(text: &str) -> Value {
        parse_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn json_as_python_writes_it() {
        assert_eq!(
            parsed("{\"a\": NaN, \"b\": [Infinity, -Infinity, -1]}")["b"],
            json!([null, null, -1])
        );
        assert_eq!(parsed("{\"NaN\": \"a \\\" NaN\"}"), json!({"NaN": "a \" NaN"}));
        assert_eq!(parsed("\u{feff}[1]"), json!([1]));
        assert!(parse_json::<Value>(b"[NaNa]").is_err());
        assert!(parse_json::<Value>(b"[\"\\").is_err());
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = read_json::<Value>(folder.path()).unwrap_err().to_string();
        assert!(message.contains("found a folder"), "{message}");
        let path = folder.path().join("x.json");
        let sparse = File::create(&path).unwrap();
        sparse.set_len(MAX_JSON_BYTES + 1).unwrap();
        let message = read_json::<Value>(&path).unwrap_err().to_string();
        assert!(message.contains("size of the file") && message.ends_with("x.json"), "{message}");
        assert!(read_bounded(&path, MAX_JSON_BYTES + 1).is_ok());
        #[cfg(target_os = "linux")]
        {
            let message = read_json::<Value>(Path::new("/dev/zero")).unwrap_err().to_string();
            assert!(message.contains("a pipe or a device"), "{message}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "liver_001", "Straße", "a b", "..."] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/a", "..\\a", "a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }

    #[test]
    fn files_of_killed_runs_are_swept_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (long, other) = (format!("{}.json", "ü".repeat(125)), at("b.json"));
        for path in [at("a.json"), at(&long), other.clone()] {
            let (_, kept) = unfinished(&path).unwrap().keep().unwrap();
            assert!(kept.exists());
        }
        std::fs::write(at(".stunet-lock"), b"").unwrap();
        sweep([at("a.json").as_path(), at(&long).as_path()]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        sweep([other.as_path()]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Two programs may write the same result: the second leaves the first's file alone.
    #[cfg(unix)]
    #[test]
    fn files_of_living_writers_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let living = unfinished(&path).unwrap();
        save_json(&path, &json!([1])).unwrap();
        assert!(living.path().exists());
        finish(living, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_left_when_writing_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.json");
        save_json(&path, &json!({"a": 1})).unwrap();
        let failed = write(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(DataError::EmptyImage)
        });
        assert!(failed.is_err());
        assert_eq!(read_json::<Value>(&path).unwrap(), json!({"a": 1}));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
