//! The report of loading weights.

use crate::ParameterSpec;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// What loading applied and what it did not: a partial load is never silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LoadReport {
    /// Parameters that were set from the file, in the network's order.
    pub applied: Vec<String>,
    /// Parameters of the network that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the network has no place for, under the file's own keys.
    pub unused: Vec<String>,
    /// Parameters that the file has in another shape.
    pub mismatched: Vec<Mismatch>,
    /// Parameters of the file that were not asked for: the decoder's where only the encoder is
    /// loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// [Digest](crate::StuNet::digest) of the network; none before its values have been read, and
    /// none of an encoder alone.
    pub digest: Option<String>,
}

/// A parameter that the file has in another shape.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mismatch {
    /// The parameter's name.
    pub name: String,
    /// The network's shape.
    pub expected: Vec<usize>,
    /// The file's shape.
    pub found: Vec<usize>,
}

impl LoadReport {
    /// Holds parameters against the names and shapes of a file.
    pub(crate) fn compare<'a>(
        specs: &[ParameterSpec],
        file: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Self {
        let mut report = Self::default();
        let found: BTreeMap<_, _> = file.collect();
        for spec in specs {
            match found.get(&spec.name[..]) {
                Some(shape) if **shape == spec.shape => report.applied.push(spec.name.clone()),
                Some(shape) => report.mismatched.push(Mismatch {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    found: shape.to_vec(),
                }),
                None => report.missing.push(spec.name.clone()),
            }
        }
        let known: HashSet<_> = specs.iter().map(|spec| &spec.name[..]).collect();
        let unused = found.into_keys().filter(|name| !known.contains(name));
        report.unused = unused.map(str::to_owned).collect();
        report
    }

    /// The same where only the encoder was asked for: the decoder's are left out, not unused.
    pub(crate) fn of_encoder(self) -> Self {
        let (left_out, unused) =
            self.unused.into_iter().partition(|name| name.starts_with("decoder."));
        Self { left_out, unused, ..self }
    }

    /// True when every tensor of the file went to a parameter, unless it was left out on purpose, and
    /// every parameter got one.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    /// One line; of long lists the first names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors applied", self.applied.len())?;
        list(f, "missing", &self.missing)?;
        list(f, "unused", &self.unused)?;
        let mismatched: Vec<_> = self
            .mismatched
            .iter()
            .map(|m| format!("{}: expected {:?}, found {:?}", m.name, m.expected, m.found))
            .collect();
        list(f, "of another shape", &mismatched)?;
        list(f, "left out", &self.left_out)
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    const SHOWN: usize = 3;
    if names.is_empty() {
        return Ok(());
    }
    let shown = names[..names.len().min(SHOWN)].join(", ");
    let dots = if names.len() > SHOWN { ", .." } else { "" };
    write!(f, "; {} {what} ({shown}{dots})", names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line() {
        let mut report = LoadReport { applied: vec!["a".into(); 4], ..Default::default() };
        assert_eq!(report.to_string(), "4 tensors applied");
        assert!(report.is_complete());
        report.missing = ["b", "c", "d", "e"].map(String::from).into();
        report.mismatched =
            vec![Mismatch { name: "f".into(), expected: vec![2], found: vec![3, 1] }];
        assert_eq!(
            report.to_string(),
            "4 tensors applied; 4 missing (b, c, d, ..); \
             1 of another shape (f: expected [2], found [3, 1])"
        );
        assert!(!report.is_complete());
        let report = LoadReport { left_out: vec!["g".into()], ..Default::default() };
        assert_eq!(report.to_string(), "0 tensors applied; 1 left out (g)");
        assert!(report.is_complete());
    }
}
