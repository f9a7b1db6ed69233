//! Everything that can be wrong with the data a user hands in.

use std::path::{Path, PathBuf};

/// Result of reading, checking, preparing or writing data.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// What is wrong with a file, a volume or a plan: expected, found, where; the path comes last.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Another error, with the file it happened in.
    #[error("{source}: {}", path.display())]
    InFile {
        /// What went wrong.
        source: Box<DataError>,
        /// The file; it may identify a patient, so it is printed last and only here.
        path: PathBuf,
    },
    /// Another error, with the training case it happened in.
    #[error("case {case}: {source}")]
    InCase {
        /// What went wrong.
        source: Box<DataError>,
        /// The case.
        case: String,
    },
    /// There is no such file or folder.
    #[error("no such file or folder")]
    NotFound,
    /// There is a link, and what it leads to is missing.
    #[error(
        "the file that this link leads to is not there (content that git-annex or DVC has not \
         fetched yet?)"
    )]
    DanglingLink,
    /// A word that names no label of a model.
    #[error(
        "expected the name or number of a label, or a group of labels, found {found:?} ({hint})"
    )]
    UnknownLabel {
        /// The word.
        found: String,
        /// What it may have meant.
        hint: String,
    },
    /// Something else stands where a file should be.
    #[error("expected a file, found {found}")]
    NotAFile {
        /// What is there.
        found: &'static str,
    },
    /// The operating system refused: permissions, a full disk, a broken device.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, such as `read` or `write`.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file ends before its voxels do.
    #[error("file is truncated: expected {expected} bytes of voxels, found {found}")]
    Truncated {
        /// Bytes the header asks for.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The compressed stream is damaged or ends early.
    #[error("gzip stream is damaged or truncated ({reason})")]
    BadGzip {
        /// What the decoder said.
        reason: String,
    },
    /// The file is no NIfTI file.
    #[error("not a NIfTI file: expected {expected}, found {found}")]
    NotNifti {
        /// What a NIfTI file has there.
        expected: &'static str,
        /// What this file has there.
        found: String,
    },
    /// A NIfTI file of a kind that is not read here.
    #[error("unsupported NIfTI file: {what}")]
    UnsupportedNifti {
        /// Which feature.
        what: String,
    },
    /// The file is no DICOM file.
    #[error("not a DICOM file: expected {expected}, found {found}")]
    NotDicom {
        /// What a DICOM file has there.
        expected: &'static str,
        /// What this file has there.
        found: String,
    },
    /// A DICOM file whose elements cannot be told apart.
    #[error(
        "DICOM file is damaged or truncated at byte {at}{}",
        found.as_ref().map(|found| format!(": {found}")).unwrap_or_default()
    )]
    BrokenDicom {
        /// Where in the file, or in what it unpacks to.
        at: u64,
        /// What is wrong there, if that is known.
        found: Option<String>,
    },
    /// A DICOM file of a kind that is not read here, or with a value that cannot be used.
    #[error("unsupported DICOM file: {what}")]
    UnsupportedDicom {
        /// What was expected and found.
        what: String,
    },
    /// Pixels that cannot be unpacked.
    #[error("{codec} pixels are damaged: {reason}")]
    BadPixels {
        /// How they are packed.
        codec: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A DICOM series that is no regular volume.
    #[error("series {series}: {problem}")]
    Series {
        /// Number and UID.
        series: String,
        /// What was expected and found, where, and what to do.
        problem: String,
    },
    /// Several DICOM series, or none, where one is needed.
    #[error("expected {expected}, found {found}{series}")]
    ChooseSeries {
        /// What was asked for.
        expected: String,
        /// How many there are, and what to do.
        found: String,
        /// All of them, one line each.
        series: String,
    },
    /// Dimensions that no volume has.
    #[error("bad dimensions in the header: expected {expected}, found {found:?}")]
    BadDimensions {
        /// What would be right.
        expected: &'static str,
        /// The header's dimensions, fastest axis first.
        found: Vec<i64>,
    },
    /// Voxels that are NaN or infinite.
    #[error(
        "voxels must be finite: found {count} NaN or infinite, \
         the first at channel {}, z {}, y {}, x {}",
        first[0], first[1], first[2], first[3]
    )]
    NonFiniteVoxels {
        /// How many.
        count: usize,
        /// The first one, `[c, z, y, x]`.
        first: [usize; 4],
    },
    /// Voxels of a labelmap that are no label values.
    #[error("labels must be whole numbers from 0 to 65535: found {found}")]
    NotALabel {
        /// The offending value.
        found: f64,
    },
    /// The affine cannot be inverted.
    #[error("affine is singular: expected three independent axes, found determinant {determinant}")]
    SingularAffine {
        /// Determinant of the axes.
        determinant: f64,
    },
    /// The affine is sheared and no orthonormal one stands beside it.
    #[error(
        "affine is sheared: expected orthonormal axes (as ITK does), found skew {skew:.2e}; \
         --allow sheared turns them to the closest ones at right angles"
    )]
    ShearedAffine {
        /// Largest deviation of the normalised axes from orthonormality.
        skew: f64,
    },
    /// A spacing that is zero, negative or not finite.
    #[error("spacing must be finite and above 0: found {found:?} mm (z, y, x)")]
    BadSpacing {
        /// The spacing found, `[z, y, x]`.
        found: [f64; 3],
    },
    /// Geometry with a value that is not finite.
    #[error("{what} must be finite")]
    NonFiniteGeometry {
        /// Which part.
        what: &'static str,
    },
    /// Two arrays or files that should share one grid do not.
    #[error("{what} differs: expected {expected}, found {found}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// The value of the first.
        expected: String,
        /// The value of this one.
        found: String,
    },
    /// Two grids of one shape that should be one, and lie apart.
    #[error(
        "{source} (voxels lie up to {apart_mm:.3} mm apart; --geometry-tolerance {}mm accepts that)",
        above(*apart_mm)
    )]
    NearlyTheSame {
        /// What differs first.
        source: Box<DataError>,
        /// The largest distance between two voxels of one index.
        apart_mm: f64,
    },
    /// A header of MetaImage or NRRD that cannot be used.
    #[error("{format} header, {key}: expected {expected}, found {found}")]
    BadHeader {
        /// The format.
        format: &'static str,
        /// The entry.
        key: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The image has another number of channels than the model.
    #[error("expected {expected} channel(s), found {found}")]
    ChannelCount {
        /// What the plans ask for.
        expected: usize,
        /// What the image has.
        found: usize,
    },
    /// A channel file of a case is missing, or the files are no channels.
    #[error(
        "case {case}: expected channel file _{missing:04}, found {found}; four digits at the end of \
         a name number the channels of one case: if these are images of different cases, add _0000 \
         to each name, as in {case}_0001_0000.nii.gz"
    )]
    MissingChannel {
        /// The case.
        case: String,
        /// The channel that is missing.
        missing: usize,
        /// Names of those that are there.
        found: String,
    },
    /// Files that were taken for the channels of one training case are more than its channels.
    #[error(
        "case {case}: expected {expected} channel file(s), as dataset.json has channels, found \
         {found}; four digits at the end of a name number the channels of one case: if these are \
         images of different cases, add _0000 to each name, as in {case}_0001_0000.nii.gz"
    )]
    TooManyChannels {
        /// The case.
        case: String,
        /// How many channels there are.
        expected: usize,
        /// Names of the files.
        found: String,
    },
    /// A file of a training case is missing.
    #[error("{what} is missing")]
    MissingFile {
        /// Kind of file.
        what: &'static str,
    },
    /// A labelmap holds values that `dataset.json` does not know.
    #[error("unknown label value(s): expected {expected}, found {found}")]
    UnknownLabels {
        /// The known values.
        expected: String,
        /// The unknown ones.
        found: String,
    },
    /// Training cases cannot be used; each problem names its case.
    #[error("{} problem(s) in the training cases, the first: {}", .0.len(), .0[0])]
    BadCases(Vec<Problem>),
    /// The labels of all cases are background.
    #[error("no foreground: every label of every case is 0")]
    NoForeground,
    /// A folder holds files, and none of a case in nnU-Net's naming.
    #[error(
        "no cases found: expected files named CASE_0000.nii.gz or CASE_0000.nii, found {found}"
    )]
    NothingOfACase {
        /// What is there.
        found: String,
    },
    /// A case that needs more memory than there is.
    #[error(
        "memory: this case needs about {}, allowed are {}",
        size_text(*needed), size_text(*allowed)
    )]
    Memory {
        /// Bytes, by estimate.
        needed: u64,
        /// Bytes that are allowed.
        allowed: u64,
    },
    /// No file where there should be one at least.
    #[error("no cases found: expected files named CASE_0000.nii.gz or CASE_0000.nii")]
    NoCases,
    /// Work that was left because nobody waits for it any more.
    #[error("stopped")]
    Stopped,
    /// Training patches are asked for without a case to cut them from.
    #[error("no training cases: expected at least one")]
    NoTrainingCases,
    /// Plans that ask for a normalisation which only the caller can have, and has not given.
    #[error(
        "the plans ask for a normalisation of your own for channel {channel} ({name}), found none: give \
         it with Preprocessor::with_normalisation"
    )]
    NoNormalisation {
        /// Its number, from 0.
        channel: usize,
        /// Its name.
        name: String,
    },
    /// A normalisation of one's own for a channel that has none of its own.
    #[error(
        "normalisation of your own for channel {channel}: expected a channel whose scheme is \
         Normalization::Own, found {found}"
    )]
    NormalisationNotAsked {
        /// Its number, from 0.
        channel: usize,
        /// The scheme of that channel, or that there is no such channel.
        found: String,
    },
    /// A setting of the augmentation that cannot be used.
    #[error("augmentation, {what}: expected {expected}, found {found}")]
    Augmentation {
        /// The transform.
        what: String,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Every voxel is exactly 0: there is nothing to crop to.
    #[error("image is empty: every voxel is 0")]
    EmptyImage,
    /// The volume would grow beyond reason at the model's spacing: the header's spacing is wrong.
    #[error(
        "volume would become {shape:?} voxels at the model's spacing; check the file's spacing"
    )]
    ResampledTooLarge {
        /// The shape asked for, in the network's frame.
        shape: [f64; 3],
    },
    /// A plan, dataset description or label table that cannot be used.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    Invalid {
        /// Kind of file: `plans`, `labels`, `dataset.json`.
        file: &'static str,
        /// The entry.
        key: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file of a store that is no whole, undamaged case.
    #[error("preprocessed case: expected {expected}, found {found}")]
    StoredCase {
        /// What a case has there.
        expected: String,
        /// What this file has there.
        found: String,
    },
    /// A case of a store that was prepared by other plans than the store's.
    #[error("preprocessed by other plans: expected digest {expected}, found {found}")]
    OtherRecipe {
        /// The store's digest.
        expected: String,
        /// The case's.
        found: String,
    },
    /// A store has no case of a name.
    #[error("no case {case} among the {found} of the store")]
    NoSuchCase {
        /// The name.
        case: String,
        /// How many there are.
        found: usize,
    },
    /// Another program fills the store.
    #[error("another program is preprocessing into this folder")]
    StoreInUse,
    /// What is compared with a reference is neither a label nor a region.
    #[error("class: expected a label such as 3 or a region such as 2,3, found {found:?}")]
    NotAClass {
        /// What was given.
        found: String,
    },
    /// A JSON file that cannot be parsed.
    #[error("cannot use JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Something that is wrong with one case.
#[derive(Debug)]
pub struct Problem {
    /// Name of the case.
    pub case: String,
    /// What is wrong, and with which file.
    pub error: DataError,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "case {}: {}", self.case, self.error)
    }
}

impl DataError {
    /// The same error, with the file it happened in (kept if one is named already).
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        match self {
            Self::InFile { .. } => self,
            source => Self::InFile { source: Box::new(source), path: path.to_owned() },
        }
    }

    /// The same error, with the file it happened in if it is about an entry of that kind of file,
    /// such as `dataset.json`: where several files are read together, the wrong one is named.
    #[must_use]
    pub fn at_if_about(self, kind: &str, path: &Path) -> Self {
        match &self {
            Self::Invalid { file, .. } if *file == kind => self.at(path),
            _ => self,
        }
    }

    /// The same error, with the training case it happened in (kept if one is named already).
    #[must_use]
    pub fn in_case(self, case: String) -> Self {
        match self {
            Self::InCase { .. } => self,
            source => Self::InCase { source: Box::new(source), case },
        }
    }

    /// The error of the operating system at a file; a link that leads nowhere is told apart.
    pub(crate) fn io_at(action: &'static str, source: std::io::Error, path: &Path) -> Self {
        match Self::io(action, source) {
            Self::NotFound if path.is_symlink() => Self::DanglingLink,
            error => error,
        }
        .at(path)
    }

    /// An operating system's error; a missing file is told apart.
    pub(crate) fn io(action: &'static str, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            Self::NotFound
        } else {
            Self::Io { action, source }
        }
    }
}

/// A length that is a little larger, in tenths that people would write.
fn above(mm: f64) -> String {
    format!("{}", (mm * 10.0).ceil().max(1.0) / 10.0)
}

/// Shorthand for [`DataError::Invalid`].
/// A number of bytes in the unit that suits it, such as `1.5 GB`.
pub fn size_text(bytes: u64) -> String {
    let count = bytes as f64;
    for (unit, size) in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if count >= size {
            return format!("{:.1} {unit}", count / size);
        }
    }
    format!("{count} B")
}

pub(crate) fn invalid(
    file: &'static str,
    key: impl Into<String>,
    expected: impl Into<String>,
    found: impl std::fmt::Display,
) -> DataError {
    DataError::Invalid {
        file,
        key: key.into(),
        expected: expected.into(),
        found: found.to_string(),
    }
}
