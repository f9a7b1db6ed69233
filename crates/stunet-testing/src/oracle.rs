//! The golden data: where it lies and how it is read.
//!
//! `STUNET_ORACLE` names the folder (default: `../shared/oracle` beside the project). With
//! `STUNET_ORACLE_REQUIRED=1` missing data fails the test; otherwise the test says aloud that it
//! was skipped.

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzReader, ReadNpzError, ReadableElement};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The root of the golden data, if it is there.
pub fn root() -> Option<PathBuf> {
    let path = match std::env::var_os("STUNET_ORACLE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle"),
    };
    path.is_dir().then_some(path)
}

/// True when missing golden data must fail.
pub fn required() -> bool {
    std::env::var("STUNET_ORACLE_REQUIRED").is_ok_and(|v| v == "1")
}

/// One folder of the golden data, such as `A_model`.
///
/// # Panics
/// When it is missing under `STUNET_ORACLE_REQUIRED=1`.
pub fn folder(name: &str) -> Option<PathBuf> {
    let found = root().map(|r| r.join(name)).filter(|p| p.is_dir());
    or_skip(found, &format!("golden data folder {name}"))
}

/// The folder of real volumes beside the golden data.
///
/// # Panics
/// When it is missing under `STUNET_ORACLE_REQUIRED=1`.
pub fn cases() -> Option<PathBuf> {
    let found = root().map(|r| r.join("../cases")).filter(|p| p.is_dir());
    or_skip(found, "real volumes beside the golden data")
}

/// Says aloud that something is missing, or fails where it is required.
///
/// # Panics
/// When `found` is none under `STUNET_ORACLE_REQUIRED=1`.
pub fn or_skip<T>(found: Option<T>, what: &str) -> Option<T> {
    if found.is_none() {
        assert!(!required(), "{what} is missing and STUNET_ORACLE_REQUIRED=1");
        // Past the test harness, which keeps what a passing test prints to itself. Whoever cannot
        // hear it is not told.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {what} is missing (set STUNET_ORACLE)");
    }
    found
}

/// Parses a JSON file.
///
/// # Panics
/// When it cannot be read; the recorded summaries contain bare `NaN`, which become null.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text)
        .or_else(|_| serde_json::from_str(&text.replace("NaN", "null")))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An `.npz` archive of golden arrays.
pub struct Npz {
    reader: std::cell::RefCell<NpzReader<File>>,
    names: Vec<String>,
    path: PathBuf,
}

impl Npz {
    /// Opens an archive.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut reader = NpzReader::new(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let names = reader
            .names()
            .unwrap()
            .into_iter()
            .map(|n| n.strip_suffix(".npy").map(str::to_owned).unwrap_or(n))
            .collect();
        Self { reader: reader.into(), names, path: path.to_owned() }
    }

    /// The names of the arrays.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// True when an array of that name exists.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    /// Reads an array of whatever numeric type as f32.
    pub fn f32(&self, name: &str) -> ArrayD<f32> {
        self.f64(name).mapv(|v| v as f32)
    }

    /// Reads an array of whatever numeric type as i64; fractions are refused.
    pub fn i64(&self, name: &str) -> ArrayD<i64> {
        self.f64(name).mapv(|v| {
            assert_eq!(v, v.round(), "{name} is not integral");
            v as i64
        })
    }

    /// Reads an array of whatever numeric type (f16 included) as f64.
    pub fn f64(&self, name: &str) -> ArrayD<f64> {
        let r = self;
        None.or_else(|| r.cast::<f32>(name, |v| v.into()))
            .or_else(|| r.cast::<f64>(name, |v| v))
            .or_else(|| r.cast::<u8>(name, |v| v.into()))
            .or_else(|| r.cast::<i8>(name, |v| v.into()))
            .or_else(|| r.cast::<i16>(name, |v| v.into()))
            .or_else(|| r.cast::<u16>(name, |v| v.into()))
            .or_else(|| r.cast::<i32>(name, |v| v.into()))
            .or_else(|| r.cast::<i64>(name, |v| v as f64))
            .or_else(|| r.cast::<bool>(name, |v| f64::from(u8::from(v))))
            .or_else(|| r.half(name))
            .unwrap_or_else(|| panic!("{}: cannot read array {name}", r.path.display()))
    }

    fn cast<T: ReadableElement>(&self, name: &str, to: impl Fn(T) -> f64) -> Option<ArrayD<f64>> {
        let key = format!("{name}.npy");
        let read: Result<ArrayD<T>, ReadNpzError> =
            self.reader.borrow_mut().by_name::<ndarray::OwnedRepr<T>, IxDyn>(&key);
        Some(read.ok()?.map_to(to))
    }

    /// `ndarray-npy` knows no half precision: the header is read here.
    fn half(&self, name: &str) -> Option<ArrayD<f64>> {
        use std::io::Read;
        let mut zip = zip::ZipArchive::new(File::open(&self.path).ok()?).ok()?;
        let mut bytes = Vec::new();
        zip.by_name(&format!("{name}.npy")).ok()?.read_to_end(&mut bytes).ok()?;
        let length = usize::from(u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]));
        let header = std::str::from_utf8(bytes.get(10..10 + length)?).ok()?;
        if !header.contains("'<f2'") || header.contains("'fortran_order': True") {
            return None;
        }
        let shape: Vec<usize> = header
            .split_once("'shape': (")?
            .1
            .split_once(')')?
            .0
            .split(',')
            .filter_map(|s| s.trim().parse().ok())
            .collect();
        let values = bytes[10 + length..]
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64())
            .collect();
        ArrayD::from_shape_vec(shape, values).ok()
    }
}

trait MapTo<T> {
    fn map_to(self, to: impl Fn(T) -> f64) -> ArrayD<f64>;
}

impl<T> MapTo<T> for ArrayD<T> {
    fn map_to(self, to: impl Fn(T) -> f64) -> ArrayD<f64> {
        let shape = self.shape().to_vec();
        // Recorded arrays may lie in Fortran order: iterate logically, not by memory.
        let values = self.into_iter().map(to).collect();
        ArrayD::from_shape_vec(shape, values).expect("as many values as before")
    }
}
