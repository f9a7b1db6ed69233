//! A model folder with the published plan and labels, a published size, and seeded random weights.
//!
//! ```console
//! cargo run --release --example random_model -- --size small random_small
//! ```
//!
//! For timing: a network costs the same whatever it knows.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

use std::path::PathBuf;

use clap::Parser;
use stunet::data::{labels::LabelSet, plans::Plans};
use stunet::infer::Model;
use stunet::model::{Initialisation, StuNetConfig, StuNetSize};

/// Writes a model folder with random weights.
#[derive(Parser)]
struct Args {
    /// The folder to make
    output: PathBuf,
    /// small, base, large or huge
    #[arg(long, default_value = "small")]
    size: String,
    /// Of the weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let size = StuNetSize::ALL.into_iter().find(|size| size.name() == args.size);
    let size =
        size.ok_or_else(|| anyhow::anyhow!("--size: expected small, base, large or huge"))?;
    let labels = LabelSet::totalsegmentator();
    let config = StuNetConfig::new(size, 1, labels.num_outputs());
    let device = stunet::device::parse("cpu")?;
    let network = config.init_seeded(Initialisation::NnUNetV1, args.seed, &device)?;
    let model = Model::from_parts(vec![network], Plans::totalsegmentator(), labels)?;
    model.save_folder(&args.output)?;
    println!("{:?}", args.output);
    Ok(())
}
