//! The golden data: where it lies, how it is read, and the tests over its cases.
//!
//! It has two parts with the same layout. The public part, `tests/golden-public`, comes with the
//! repository and was made by `scripts/reference`. The private part is larger and holds volumes that
//! may not be given away: `STUNET_ORACLE` names its folder (default: `../shared/oracle` beside the
//! project). Tests run on both; those that lack the private part are ignored, or fail with
//! `STUNET_ORACLE_REQUIRED=1`.

use crate::harness::{Absent, Ran, Tests, message};
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzReader, ReadNpzError, ReadableElement};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// One part of the golden data.
#[derive(Clone, Debug)]
pub struct Part {
    root: PathBuf,
}

impl Part {
    /// The part that comes with the repository.
    pub fn public() -> Self {
        Self { root: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden-public") }
    }

    /// The part that does not.
    ///
    /// # Errors
    /// When its folder is absent.
    pub fn private() -> Result<Self, Absent> {
        let root = match std::env::var_os("STUNET_ORACLE") {
            Some(path) => PathBuf::from(path),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle"),
        };
        if root.is_dir() {
            Ok(Self { root })
        } else {
            Err(Absent::new("needs the private golden data (STUNET_ORACLE names its folder)"))
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder of it, there or not: `A_model/cases.json`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file or folder of it that is there.
    ///
    /// # Errors
    /// When it is absent.
    pub fn need(&self, path: &str) -> Result<PathBuf, Absent> {
        let found = self.path(path);
        if found.exists() {
            return Ok(found);
        }
        Err(Absent::new(format!(
            "needs {path} of the golden data (STUNET_ORACLE names the folder)"
        )))
    }

    /// A volume that a recording names: beside the recording, or among the real volumes.
    ///
    /// # Errors
    /// When it is absent.
    pub fn volume(&self, folder: &str, name: &str) -> Result<PathBuf, Absent> {
        let beside = self.path(folder).join(name);
        if beside.is_file() { Ok(beside) } else { self.need(&format!("{VOLUMES}/{name}")) }
    }
}

/// The real volumes, beside the private part.
pub const VOLUMES: &str = "../cases";

/// The tests over the golden data, in both of its parts.
///
/// A name is `module::test`; in the public part it becomes `module::public::test`, and where a test
/// has cases each is a test of its own, `module::test::case`.
pub struct Golden {
    /// The tests so far.
    pub tests: Tests,
    public: Part,
    private: Result<Part, Absent>,
}

impl Golden {
    /// No tests yet; the program's arguments and environment are read.
    pub fn new() -> Self {
        let mut tests = Tests::from_arguments();
        if std::env::var("STUNET_ORACLE_REQUIRED").is_ok_and(|value| value == "1") {
            tests.require_everything();
        }
        Self { tests, public: Part::public(), private: Part::private() }
    }

    /// A test on each part that has the files it needs.
    pub fn one<R: Ran + 'static>(&mut self, name: &str, needs: &[&str], check: fn(&Part) -> R) {
        if ready(&self.public, needs).is_ok() {
            let part = self.public.clone();
            self.tests.add(in_public(name), Ok(()), move || check(&part));
        }
        match self.private_part(needs) {
            Ok(part) => self.tests.add(name, Ok(()), move || check(&part)),
            Err(absent) => self.tests.add(name, Err(absent), || ()),
        }
    }

    /// A test on each of the cases that `cases` names, in each part that has the files it needs.
    ///
    /// No cases in the private part are a failure: the recording has changed its form.
    pub fn each<R: Ran + 'static>(
        &mut self,
        name: &str,
        needs: &[&str],
        cases: impl Fn(&Part) -> Vec<String>,
        check: fn(&Part, &str) -> R,
    ) {
        if ready(&self.public, needs).is_ok() {
            let part = self.public.clone();
            self.over_cases(&in_public(name), &part, &cases, check);
        }
        match self.private_part(needs) {
            Ok(part) => {
                if self.over_cases(name, &part, &cases, check) == 0 {
                    let what = format!("no case found for it in {}", part.root.display());
                    self.tests.fail(name, what);
                }
            }
            Err(absent) => self.tests.add(name, Err(absent), || ()),
        }
    }

    fn private_part(&self, needs: &[&str]) -> Result<Part, Absent> {
        let part = self.private.clone()?;
        ready(&part, needs)?;
        Ok(part)
    }

    /// Adds the tests of one part, and says how many.
    fn over_cases<R: Ran + 'static>(
        &mut self,
        name: &str,
        part: &Part,
        cases: impl Fn(&Part) -> Vec<String>,
        check: fn(&Part, &str) -> R,
    ) -> usize {
        match catch_unwind(AssertUnwindSafe(|| cases(part))) {
            Ok(found) => {
                let count = found.len();
                for case in found {
                    let part = part.clone();
                    let name = format!("{name}::{case}");
                    self.tests.add(name, Ok(()), move || check(&part, &case));
                }
                count
            }
            Err(panic) => {
                let what = format!("its cases cannot be read: {}", message(panic.as_ref()));
                self.tests.fail(name, what);
                1
            }
        }
    }
}

impl Default for Golden {
    fn default() -> Self {
        Self::new()
    }
}

fn ready(part: &Part, needs: &[&str]) -> Result<(), Absent> {
    needs.iter().try_for_each(|path| part.need(path).map(drop))
}

fn in_public(name: &str) -> String {
    let (module, test) = name.split_once("::").expect("a name is module::test");
    format!("{module}::public::{test}")
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
