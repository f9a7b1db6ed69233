//! Parts of the network by name: what stays as it is, and what learns at a rate of its own.

use crate::error::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use stunet_model::{NUM_STAGES, NUM_UPSAMPLINGS, NetworkPart, ParameterSpec};

/// Names in one line, for messages.
pub const SYNTAX: &str = "encoder, stage0 to stage5, stage0..3 (stages 0 to 3), decoder, decoder0 to decoder4, \
                          decoder0..2, heads";

/// Some parts of the network: `encoder`, `stage0` to `stage5` of the encoder, `decoder`, `decoder0` to
/// `decoder4`, `heads`; with ranges, and several with commas between them. Stage 0 is the finest, at the
/// image's resolution. An upsampling belongs to the decoder's stage that it leads to, the heads to none.
///
/// ```
/// use stunet_train::parts::Parts;
/// let parts: Parts = "stage0..2,heads".parse()?;
/// assert_eq!(parts.to_string(), "stage0..2,heads");
/// # Ok::<(), stunet_train::TrainError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Parts(Vec<Part>);

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Encoder(RangeInclusive<usize>),
    Decoder(RangeInclusive<usize>),
    Heads,
}

impl Parts {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The whole encoder.
    pub fn encoder() -> Self {
        Self(vec![Part::Encoder(0..=NUM_STAGES - 1)])
    }

    /// True where no part is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a parameter, or a factor beside it, belongs to one of the parts.
    pub fn contains(&self, spec: &ParameterSpec) -> bool {
        self.0.iter().any(|part| match (part, spec.part) {
            (Part::Encoder(stages), NetworkPart::Encoder) => stages.contains(&spec.stage),
            (Part::Decoder(stages), NetworkPart::Upsampling | NetworkPart::Decoder) => {
                stages.contains(&spec.stage)
            }
            (Part::Heads, NetworkPart::Head) => true,
            _ => false,
        })
    }
}

impl FromStr for Parts {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |name: &str| {
            TrainError::setting("parts of the network", SYNTAX, format!("{name:.40?}"))
        };
        let parts = text.split(',').map(|name| part(name.trim()).ok_or_else(|| wrong(name)));
        parts.collect::<Result<_>>().map(Self)
    }
}

fn part(name: &str) -> Option<Part> {
    match name {
        "encoder" => Some(Part::Encoder(0..=NUM_STAGES - 1)),
        "decoder" => Some(Part::Decoder(0..=NUM_UPSAMPLINGS - 1)),
        "heads" => Some(Part::Heads),
        _ => {
            if let Some(stages) = name.strip_prefix("stage") {
                return stages_of(stages, NUM_STAGES).map(Part::Encoder);
            }
            stages_of(name.strip_prefix("decoder")?, NUM_UPSAMPLINGS).map(Part::Decoder)
        }
    }
}

/// `3`, or `0..3` with both ends.
fn stages_of(text: &str, count: usize) -> Option<RangeInclusive<usize>> {
    let number = |text: &str| text.parse().ok().filter(|stage| *stage < count);
    let (first, last) = match text.split_once("..") {
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    (first <= last).then_some(first..=last)
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Part::to_string).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, count, stages) = match self {
            Self::Heads => return f.write_str("heads"),
            Self::Encoder(stages) => ("stage", NUM_STAGES, stages),
            Self::Decoder(stages) => ("decoder", NUM_UPSAMPLINGS, stages),
        };
        match (*stages.start(), *stages.end()) {
            (0, last) if last + 1 == count => {
                f.write_str(if name == "stage" { "encoder" } else { name })
            }
            (first, last) if first == last => write!(f, "{name}{first}"),
            (first, last) => write!(f, "{name}{first}..{last}"),
        }
    }
}

impl TryFrom<String> for Parts {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Parts> for String {
    fn from(parts: Parts) -> Self {
        parts.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use stunet_model::StuNetConfig;

    fn check(text: &str, written: &str, begins: &[&str]) {
        let parts: Parts = text.parse().unwrap();
        assert_eq!(parts.to_string(), written, "{text}");
        assert_eq!(written.parse::<Parts>().unwrap(), parts, "{text}");
        let specs = StuNetConfig::small(1, 2).parameter_specs();
        let found: BTreeSet<_> =
            specs.iter().filter(|spec| parts.contains(spec)).map(|spec| &spec.name).collect();
        let expected =
            specs.iter().filter(|spec| begins.iter().any(|begin| spec.name.starts_with(begin)));
        assert_eq!(found, expected.map(|spec| &spec.name).collect(), "{text}");
        assert!(!found.is_empty());
    }

    #[test]
    fn names_mean_parameters() {
        check("encoder", "encoder", &["encoder."]);
        check("stage0..5", "encoder", &["encoder."]);
        check("decoder", "decoder", &["decoder.upsample.", "decoder.stages."]);
        check("heads", "heads", &["decoder.heads."]);
        check("stage0", "stage0", &["encoder.stages.0."]);
        check(
            "stage1..2, heads",
            "stage1..2,heads",
            &["encoder.stages.1.", "encoder.stages.2.", "decoder.heads."],
        );
        // The decoder counts from the coarsest, its parts by the resolution.
        check("decoder0", "decoder0", &["decoder.upsample.4.", "decoder.stages.4."]);
        check(
            "decoder3..4",
            "decoder3..4",
            &[
                "decoder.upsample.0.",
                "decoder.upsample.1.",
                "decoder.stages.0.",
                "decoder.stages.1.",
            ],
        );
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "stage6",
            "stage",
            "decoder5",
            "stage3..1",
            "stage0..",
            "encoder,",
            "norms",
            "Stage0",
        ] {
            let message = text.parse::<Parts>().unwrap_err().to_string();
            assert!(message.contains("expected encoder, stage0 to stage5"), "{message}");
        }
    }
}
