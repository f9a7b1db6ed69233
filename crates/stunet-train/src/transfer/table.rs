//! What was carried over, part by part.

use super::TransferReport;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use stunet_model::{NetworkPart, ParameterSpec, StuNetConfig};

/// What became of the parameters of one part of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransferRow {
    /// The part.
    pub part: &'static str,
    /// Parameters that were copied as they are.
    pub taken: usize,
    /// Parameters that were made of the file's.
    pub adapted: usize,
    /// Parameters that were initialised.
    pub new: usize,
    /// How they were adapted.
    pub how: String,
}

/// A row for every part of the network, and what was left out of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransferTable {
    /// From the image to the output.
    pub rows: Vec<TransferRow>,
    /// Tensors of the file that the network has no place for.
    pub left_out: Vec<String>,
}

impl TransferReport {
    /// The report as a table; `config` is that of the network.
    pub fn table(&self, config: &StuNetConfig) -> TransferTable {
        let taken: BTreeSet<_> = self.copied.iter().collect();
        let adapted: BTreeSet<_> = self.repeated.iter().chain(&self.heads_by_name).collect();
        let specs = config.parameter_specs();
        let row = |part: &'static str, is: &dyn Fn(&ParameterSpec) -> bool, how: String| {
            let mut row = TransferRow { part, taken: 0, adapted: 0, new: 0, how };
            for spec in specs.iter().filter(|spec| is(spec)) {
                let count = match &spec.name {
                    name if taken.contains(name) => &mut row.taken,
                    name if adapted.contains(name) => &mut row.adapted,
                    _ => &mut row.new,
                };
                *count += 1;
            }
            row
        };
        let stem =
            self.stem.map_or_else(String::new, |stem| stem.told(self.channels, self.divided));
        let heads = match self.outputs {
            [_, 0] => String::new(),
            [taken, all] => format!("by name, {taken} of {all} outputs"),
        };
        let of =
            |part: NetworkPart| move |spec: &ParameterSpec| spec.part == part && !spec.sees_image;
        let rows = vec![
            row("stem", &|spec| spec.sees_image, stem),
            row("encoder", &of(NetworkPart::Encoder), String::new()),
            row("upsampling", &of(NetworkPart::Upsampling), String::new()),
            row("decoder", &of(NetworkPart::Decoder), String::new()),
            row("heads", &of(NetworkPart::Head), heads),
        ];
        TransferTable { rows, left_out: self.unused.clone() }
    }
}

impl fmt::Display for TransferTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12}{:>7}{:>9}{:>7}", "part", "taken", "adapted", "new")?;
        for TransferRow { part, taken, adapted, new, how } in &self.rows {
            let line = format!("{part:<12}{taken:>7}{adapted:>9}{new:>7}  {how}");
            write!(f, "\n{}", line.trim_end())?;
        }
        match &self.left_out[..] {
            [] => write!(f, "\nleft out of the file: nothing"),
            names => write!(f, "\nleft out of the file: {}", names.join(", ")),
        }
    }
}
