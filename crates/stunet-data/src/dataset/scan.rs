//! What lies in a folder: the files that may belong to a case, and those that cannot, with the reason.

use crate::error::{DataError, Result};
use crate::nifti;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// File endings of training datasets, as `dataset.json` spells them.
pub(super) const ENDINGS: [&str; 7] = [".nii.gz", ".nii", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr"];

/// Files that nnU-Net, this program or a desktop put beside cases: nobody takes them for one.
const COMPANIONS: [&str; 9] = [
    "Thumbs.db",
    "confidence",
    "dataset.json",
    "desktop.ini",
    "plans.json",
    "postprocessed",
    "postprocessing.json",
    "predict_from_raw_data_args.json",
    "summary.json",
];
/// Endings of what they put beside a labelmap, and of the voxels of a header.
const COMPANION_ENDINGS: [&str; 6] = [".npz", ".pkl", ".raw", ".raw.gz", ".zarr.zip", ".zraw"];
/// Files named in a sentence, per reason; the rest is counted.
const NUM_NAMED: usize = 3;

/// A file of a folder that belongs to no case.
///
/// Hidden files (`.`-names, macOS's `._` copies among them) and what nnU-Net and this program write
/// beside cases (`plans.json`, `CASE.npz`) are no such files: nobody misses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The file.
    pub file: PathBuf,
    /// Why no case has it.
    pub reason: Reason,
}

/// Why a file belongs to no case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// An image or labelmap, but no `_0000` at the end of its name.
    NoChannel,
    /// Another ending than those that are read, or the same in capitals.
    OtherEnding,
    /// Another ending than `dataset.json` asks for.
    NotTheDatasetsEnding,
    /// A link to a file that is not there.
    DanglingLink,
    /// The system does not say what it is.
    Unreadable(ErrorKind),
    /// A name that is not UTF-8.
    NotText,
    /// A folder.
    Folder,
    /// A pipe, a socket or a device.
    NotAFile,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoChannel => "no channel number such as _0000 at the end of the name",
            Self::OtherEnding => {
                "the name does not end in .nii.gz, .nii, .hdr, .mha, .mhd, .nrrd or .nhdr, in small \
                 letters"
            },
            Self::NotTheDatasetsEnding => "another ending than file_ending of dataset.json",
            Self::DanglingLink => "a link to a file that is not there",
            Self::Unreadable(kind) => return write!(f, "cannot be read: {kind}"),
            Self::NotText => "the name is not UTF-8 text",
            Self::Folder => "a folder",
            Self::NotAFile => "a pipe or a device",
        })
    }
}

/// What was passed over as one clause, by reason: the first few are named, the rest is counted.
/// None where nothing was.
///
/// ```
/// use stunet_data::dataset::{PassedOver, Reason, told};
/// let file = PassedOver { file: "in/b.nii".into(), reason: Reason::NoChannel };
/// let clause = "b.nii (no channel number such as _0000 at the end of the name)";
/// assert_eq!(told(&[file]).as_deref(), Some(clause));
/// ```
pub fn told(files: &[PassedOver]) -> Option<String> {
    let mut by_reason: BTreeMap<Reason, Vec<String>> = BTreeMap::new();
    for PassedOver { file, reason } in files {
        by_reason.entry(*reason).or_default().push(name_of(file));
    }
    let clause = |(reason, names): (Reason, Vec<String>)| format!("{} ({reason})", few(&names));
    let clauses: Vec<_> = by_reason.into_iter().map(clause).collect();
    (!clauses.is_empty()).then(|| clauses.join("; "))
}

/// The first few names, and how many more there are.
pub(super) fn few<S: AsRef<str>>(names: &[S]) -> String {
    let named: Vec<_> = names.iter().take(NUM_NAMED).map(AsRef::as_ref).collect();
    match names.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Last part of a path, for people.
pub(super) fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file that may belong to a case, by its name.
pub(super) struct Entry {
    pub path: PathBuf,
    pub name: String,
    /// It is a link, and what it leads to is not there.
    pub dangling: bool,
}

/// The visible files of a folder.
pub(super) struct Scan {
    /// Sorted by name.
    pub entries: Vec<Entry>,
    /// Sorted by name.
    pub passed_over: Vec<PassedOver>,
    /// How many have a name that begins with a dot.
    pub hidden: usize,
}

/// Looks at every entry of a folder.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn scan(folder: &Path) -> Result<Scan> {
    let read = |e| DataError::io("read", e).at(folder);
    let mut scan = Scan { entries: Vec::new(), passed_over: Vec::new(), hidden: 0 };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") {
            scan.hidden += 1;
            continue;
        }
        let kind = name.to_str().ok_or(Reason::NotText).map(|name| (name, kind_of(&entry)));
        match kind {
            Ok((name, _)) if is_companion(name) => {}
            // The header of such voxels is listed, and stands for both.
            Ok(_) if nifti::has_header_beside(&path) => {}
            Ok((name, Ok(dangling))) => {
                scan.entries.push(Entry { name: name.to_owned(), path, dangling });
            }
            Ok((_, Err(reason))) | Err(reason) => {
                scan.passed_over.push(PassedOver { file: path, reason });
            }
        }
    }
    // A folder is listed in any order.
    scan.entries.sort_by(|a, b| a.name.cmp(&b.name));
    scan.passed_over.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(scan)
}

/// Whether an ordinary file is a link that leads nowhere; why not, where it is no file.
fn kind_of(entry: &std::fs::DirEntry) -> Result<bool, Reason> {
    let unreadable = |e: std::io::Error| Reason::Unreadable(e.kind());
    let mut kind = entry.file_type().map_err(unreadable)?;
    if kind.is_symlink() {
        kind = match std::fs::metadata(entry.path()) {
            Ok(target) => target.file_type(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(true),
            Err(e) => return Err(unreadable(e)),
        };
    }
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(false),
        (_, true) => Err(Reason::Folder),
        _ => Err(Reason::NotAFile),
    }
}

fn is_companion(name: &str) -> bool {
    COMPANIONS.contains(&name) || COMPANION_ENDINGS.iter().any(|ending| name.ends_with(ending))
}
