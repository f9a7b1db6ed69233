//! Parameter names of files that were written before names were paths of the network's module.
//!
//! Model folders and training checkpoints of version 1 have them, and [digests](super::Digest) go on
//! using them, so that a prediction of an earlier version is still known for what it is.

/// How paths begin, and how names of version 1 began.
const BEGINNINGS: [(&str, &str); 4] = [
    ("encoder.stages.", "encoder."),
    ("decoder.upsample.", "upsample."),
    ("decoder.stages.", "decoder."),
    ("decoder.heads.", "heads."),
];

/// The name of version 1.
///
/// ```
/// use stunet_model::weights::names;
/// assert_eq!(names::former("encoder.stages.0.1.conv2.bias"), "encoder.0.1.conv2.bias");
/// assert_eq!(names::current("heads.4.weight"), "decoder.heads.4.weight");
/// ```
pub fn former(name: &str) -> String {
    replace(name, |(path, former)| (path, former))
}

/// The path for a name of version 1; a name that is none is returned as it is.
pub fn current(name: &str) -> String {
    replace(name, |(path, former)| (former, path))
}

fn replace(name: &str, direction: impl Fn((&'static str, &'static str)) -> (&str, &str)) -> String {
    let replaced = BEGINNINGS.into_iter().map(direction).find_map(|(from, to)| {
        let rest = name.strip_prefix(from)?;
        rest.starts_with(|c: char| c.is_ascii_digit()).then(|| format!("{to}{rest}"))
    });
    replaced.unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StuNetConfig;

    #[test]
    fn every_parameter_there_and_back() {
        let config = StuNetConfig::small(1, 2).with_depth([1, 2, 1, 3, 1, 1]);
        let mut before = std::collections::HashSet::new();
        for spec in config.parameter_specs() {
            let name = former(&spec.name);
            assert_ne!(name, spec.name);
            assert_eq!(current(&name), spec.name);
            assert!(before.insert(name), "{}", spec.name);
        }
        for name in ["a", "encoder.x", "decoder.norm.weight", ""] {
            assert_eq!((current(name), former(name)), (name.to_owned(), name.to_owned()));
        }
    }
}
