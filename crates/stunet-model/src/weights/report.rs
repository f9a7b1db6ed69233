//! The report of loading weights.

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
    /// [Digest](crate::StuNet::digest) of the network; none before its values have been read.
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
    /// True when every tensor of the file went to a parameter and every parameter got one.
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
        list(f, "of another shape", &mismatched)
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
    }
}
