//! `stunet info`: parameters, cost and stages of a network.

use anyhow::Context;
use serde::Serialize;
use stunet::infer::model::Description;
use stunet::infer::{Architecture, Model, OpenOptions};
use stunet::model::cost::{self, Cost};
use stunet::model::plain_unet;
use stunet::model::{StuNetConfig, StuNetSize};

use crate::args::{InfoArgs, Size};
use crate::orientation::of_images;
use crate::output::{self, bytes, grouped};

/// The window of the published models.
const PUBLISHED_PATCH: [usize; 3] = [128; 3];

#[derive(Serialize)]
struct Info {
    /// `small`, `base`, `large`, `huge`, or none for other shapes.
    size: Option<StuNetSize>,
    network: Architecture,
    #[serde(flatten)]
    cost: Cost,
    /// What else a model's files say: kind, plans, labels, folds.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Description>,
}

/// Prints the costs of a published size or of a model.
pub fn run(args: &InfoArgs) -> anyhow::Result<()> {
    let mut description = None;
    let (network, patch) = match (&args.model, args.size) {
        (None, Some(size)) => {
            let config = StuNetConfig::new(size.into(), args.channels, args.classes);
            (Architecture::StuNet(config), PUBLISHED_PATCH)
        }
        (Some(model), _) => {
            let options = OpenOptions::new(&stunet::device::parse("cpu")?);
            let found = Model::describe(model, &options)?;
            let (network, patch) = (found.config.clone(), found.plans.patch_size);
            description = Some(found);
            (network, patch)
        }
        // clap asks for one or the other
        (None, None) => anyhow::bail!("expected MODEL or --size"),
    };
    let patch = match &args.patch {
        Some(patch) => patch.as_slice().try_into().context("--patch: expected Z Y X")?,
        None => patch,
    };
    let cost = match &network {
        Architecture::StuNet(config) => {
            config.validate()?;
            config.validate_patch(patch)?;
            cost::cost(config, patch)
        }
        Architecture::PlainConvUNet(config) => {
            config.validate_patch(patch)?;
            plain_unet::cost(config, patch)
        }
        other => anyhow::bail!("expected an STU-Net or a PlainConvUNet, found {other}"),
    };
    let size = network.stunet().and_then(StuNetConfig::size);
    let info = Info { size, network, cost, model: description };
    if args.json {
        return output::json(&info);
    }
    print(&info)
}

fn print(info: &Info) -> anyhow::Result<()> {
    let Info { size, network, cost, model } = info;
    let [z, y, x] = cost.input;
    let (name, [channels, classes]) = match network {
        Architecture::PlainConvUNet(config) => {
            (network.to_string(), [config.in_channels, config.num_classes])
        }
        _ => {
            let config = network.stunet().context("expected a network that is known here")?;
            let name = format!("{network} {}", size.map_or("custom", StuNetSize::name));
            (name, [config.in_channels, config.num_classes])
        }
    };
    output::line(&format!(
        "{name}: {channels} channel(s) in, {classes} classes out, one window of {z} × {y} × {x} \
         voxels"
    ))?;
    output::line("")?;
    let row = |what: &str, value: String| output::line(&format!("{what:<28}{value:>20}"));
    row("parameters", grouped(cost.parameters))?;
    row("  in f32", bytes(cost.parameters * 4))?;
    row("multiply-adds, all heads", tera(cost.macs))?;
    row("multiply-adds, predicting", tera(cost.conv_macs_predict))?;
    row("activations written", bytes(cost.activation_bytes))?;
    output::line("")?;
    output::line(&format!(
        "{:<11} {:>13} {:>6} {:>15} {:>14} {:>12}",
        "stage", "z × y × x", "width", "parameters", "multiply-adds", "activations"
    ))?;
    for stage in &cost.stages {
        let [z, y, x] = stage.size;
        output::line(&format!(
            "{:<11} {:>13} {:>6} {:>15} {:>14} {:>12}",
            stage.name,
            format!("{z}×{y}×{x}"),
            stage.width,
            grouped(stage.parameters),
            tera(stage.macs),
            bytes(stage.activation_bytes),
        ))?;
    }
    model.as_ref().map_or(Ok(()), print_model)
}

fn print_model(model: &Description) -> anyhow::Result<()> {
    let plans = &model.plans;
    let row = |what: &str, value: String| output::line(&format!("{what:<28}{value}"));
    let [z, y, x] = plans.spacing_mm.map(|length| (length * 1e4).round() / 1e4);
    output::line("")?;
    row("kind", as_word(&model.kind))?;
    row("arithmetic of", as_word(&plans.reference))?;
    row("images are read by", as_word(&plans.reader))?;
    let trained = plans.trained_orientation().map_or_else(|| "not said".to_owned(), of_images);
    row("axes of training images", trained)?;
    row("spacing, z × y × x", format!("{z} × {y} × {x} mm"))?;
    let channels = plans.channels.iter().map(|c| format!("{} ({})", c.name, as_word(&c.scheme)));
    row("channels", channels.collect::<Vec<_>>().join(", "))?;
    for fold in &model.folds {
        row(&format!("weights {}", fold.fold), fold.path.display().to_string())?;
    }
    for note in &model.notes {
        row("note", note.clone())?;
    }
    Ok(())
}

/// A unit variant as the word it has in JSON.
fn as_word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

fn tera(macs: u64) -> String {
    let macs = macs as f64;
    if macs >= 1e12 { format!("{:.2} T", macs / 1e12) } else { format!("{:.2} G", macs / 1e9) }
}

impl From<Size> for StuNetSize {
    fn from(size: Size) -> Self {
        match size {
            Size::Small => Self::Small,
            Size::Base => Self::Base,
            Size::Large => Self::Large,
            Size::Huge => Self::Huge,
        }
    }
}
