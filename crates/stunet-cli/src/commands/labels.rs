//! `stunet labels`: the values of a model's labelmaps and their names.

use serde_json::{Value, json};
use stunet::data::labels::{itk_snap_labels, slicer_colour_table};
use stunet::infer::{Model, OpenOptions};

use crate::args::LabelsArgs;
use crate::output;

/// Prints one label per line, value first, or a JSON object from names to values.
pub fn run(args: &LabelsArgs) -> anyhow::Result<()> {
    let device = stunet::device::parse("cpu")?;
    let description = Model::describe(&args.model, &OpenOptions::new(&device))?;
    if args.slicer {
        return output::lines(&slicer_colour_table(&description.labels));
    }
    if args.itk_snap {
        return output::lines(&itk_snap_labels(&description.labels));
    }
    let labels = description.labels.painted();
    if args.json {
        let by_name: serde_json::Map<String, Value> =
            labels.into_iter().map(|(value, name)| (name.to_owned(), json!(value))).collect();
        return output::json(&by_name);
    }
    for (value, name) in labels {
        output::cells(&[&value.to_string(), name])?;
    }
    Ok(())
}
