//! Trains on one real CT and records everything another implementation needs to follow.
//!
//! ```console
//! cargo run --release --example training_curve -- --image CT.nii.gz --labels LABELS.nii.gz --output DIR
//! scripts/training-curve DIR      # the same training in PyTorch, and both curves in one picture
//! ```
//!
//! STU-Net-S from random weights, on the first half of the volume along x. `DIR` receives the initial
//! weights (`initial.model`), every batch as the network saw it, the rates, and `stunet.jsonl`: loss,
//! gradient norm and time of every step, Dice on fixed crops of the same half every so often.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use ndarray::{Array3, Array4, Array5, Axis, s};
use ndarray_npy::NpzWriter;
use stunet::data::augment::Augmentation;
use stunet::data::loader::{LoaderConfig, TrainingBatch, batch};
use stunet::data::nifti;
use stunet::data::sample::MemoryCase;
use stunet::infer::windows::Windows;
use stunet::model::weights::writer::{self, Contents, SgdRecord, V1Metadata};
use stunet::model::{Initialisation, ParameterSpec, StuNet, StuNetConfig};
use stunet::train::DeviceBatch;
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::optimiser::{Sgd, SgdConfig};
use stunet::train::schedule::poly_lr;

/// Voxels of the crops from which on a structure counts as large.
const LARGE: usize = 2000;

/// Trains STU-Net-S on half a CT and records the run.
#[derive(Parser)]
struct Args {
    /// A CT
    #[arg(long)]
    image: PathBuf,
    /// Its labels; they are renumbered without gaps
    #[arg(long)]
    labels: PathBuf,
    /// Folder of the record
    #[arg(long)]
    output: PathBuf,
    /// Steps of training
    #[arg(long, default_value_t = 100)]
    steps: usize,
    /// Dice is measured every so many steps, and after the last
    #[arg(long, default_value_t = 20)]
    every: usize,
    /// Patches per step
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Patch, three multiples of 16, 16, 32
    #[arg(long, value_delimiter = ',', num_args = 1, default_value = "64,64,32")]
    patch: Vec<usize>,
    /// Initial learning rate
    #[arg(long, default_value_t = 0.01)]
    lr: f64,
    /// Share of the velocity that stays
    #[arg(long, default_value_t = 0.99)]
    momentum: f64,
    /// Leave out the augmentation of nnU-Net 1
    #[arg(long)]
    no_augmentation: bool,
    /// Of weights and patches
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// auto, cpu, cuda:0, …
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let patch: [usize; 3] =
        args.patch.clone().try_into().map_err(|_| anyhow::anyhow!("--patch"))?;
    std::fs::create_dir_all(&args.output)?;
    let device = stunet::device::parse(&args.device)?.autodiff();
    let (image, labels, num_classes) = half(&args)?;
    let crops = Crops::cut(&image, &labels, patch)?;
    crops.write(&args.output)?;
    let case = vec![MemoryCase::new("half", image, labels)?];

    let config = StuNetConfig::small(1, num_classes);
    let augmentation = match args.no_augmentation {
        true => Augmentation::none(patch),
        false => Augmentation::v1(patch),
    };
    let mut loader = LoaderConfig::new(augmentation, args.batch, &config.strides);
    loader.seed = args.seed;
    let mut network = config.init_seeded(Initialisation::NnUNetV1, args.seed, &device)?;
    write_initial(&args.output, &config, &network)?;
    let rates: Vec<f64> = (0..args.steps).map(|i| poly_lr(args.lr, i, args.steps)).collect();
    let measured = |step: &usize| step % args.every == args.every - 1 || step + 1 == args.steps;
    write_json(
        &args.output.join("run.json"),
        &serde_json::json!({
            "network": &config, "lr": &rates, "evaluate": (0..args.steps).filter(measured).collect::<Vec<_>>(),
            "patch": patch, "batch": args.batch, "momentum": args.momentum, "seed": args.seed,
            "augmentation": !args.no_augmentation, "classes": num_classes, "large": crops.large(),
        }),
    )?;

    let loss = Loss::new(LossConfig::v1(false))?;
    let sgd = SgdConfig { momentum: args.momentum, ..SgdConfig::default() };
    let mut sgd = Sgd::new(sgd, &config);
    let mut log = File::create(args.output.join("stunet.jsonl"))?;
    for (step, lr) in rates.into_iter().enumerate() {
        let patches = batch(&case, &loader, step as u64)?;
        write_batch(&args.output.join(format!("batch_{step:05}.npz")), &patches)?;
        let start = Instant::now();
        let tensors = DeviceBatch::new(&patches, &device);
        let (value, gradients) =
            loss.backward(network.forward_deep(tensors.images), &tensors.targets);
        let (moved, report) = sgd.step(network, &gradients, lr);
        network = moved;
        let mut row = serde_json::json!({ "step": step, "loss": value.total,
            "grad_norm": report.grad_norm, "wall_secs": start.elapsed().as_secs_f64() });
        if measured(&step) {
            let dice = crops.dice(&network, &device);
            row["dice"] = mean(dice.values()).into();
            row["dice_large"] = mean(crops.large().iter().map(|label| &dice[label])).into();
        }
        println!("{row}");
        writeln!(log, "{row}")?;
    }
    Ok(())
}

/// The first half along x, normalised, and its labels as 0, 1, 2, ...
fn half(args: &Args) -> anyhow::Result<(Array4<f32>, Array3<i16>, usize)> {
    let image = nifti::read_image(&[&args.image])?;
    let labels = nifti::read_labelmap(&args.labels)?;
    image.geometry.check_same_grid(&labels.geometry)?;
    let [.., x] = image.geometry.shape();
    let mut voxels = image.data.slice(s![.., .., .., ..x / 2]).to_owned();
    let (mean, std) = (voxels.mean().unwrap_or(0.0), voxels.std(0.0));
    voxels.mapv_inplace(|v| (v - mean) / (std + 1e-8));
    let labels = labels.data.slice(s![.., .., ..x / 2]);
    let mut present: Vec<u16> = labels.iter().copied().collect();
    present.push(0);
    present.sort_unstable();
    present.dedup();
    let renumber = |l: u16| present.binary_search(&l).expect("every label was listed") as i16;
    Ok((voxels, labels.mapv(renumber), present.len()))
}

/// Windows that cover the half, for Dice.
struct Crops {
    images: Array5<f32>,
    labels: Array4<i16>,
}

impl Crops {
    fn cut(image: &Array4<f32>, labels: &Array3<i16>, patch: [usize; 3]) -> anyhow::Result<Self> {
        let (_, z, y, x) = image.dim();
        let windows = Windows::new([z, y, x], patch, 1.0)?;
        let as_floats = labels.mapv(f32::from).insert_axis(Axis(0));
        let cut = |volume: &Array4<f32>| -> Vec<_> {
            windows
                .iter()
                .map(|start| windows.cut(&volume.view().into(), start, [false; 3]))
                .collect()
        };
        let (images, labels) = (cut(image), cut(&as_floats));
        let views: Vec<_> = images.iter().map(|a| a.view()).collect();
        let label_views: Vec<_> = labels.iter().map(|a| a.index_axis(Axis(0), 0)).collect();
        Ok(Self {
            images: ndarray::stack(Axis(0), &views)?,
            labels: ndarray::stack(Axis(0), &label_views)?.mapv(|v| v as i16),
        })
    }

    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut npz = NpzWriter::new(File::create(folder.join("crops.npz"))?);
        npz.add_array("images", &self.images)?;
        npz.add_array("labels", &self.labels)?;
        npz.finish()?;
        Ok(())
    }

    /// Foreground labels of at least [`LARGE`] voxels.
    fn large(&self) -> Vec<usize> {
        let count = |&label: &usize| self.labels.iter().filter(|&&l| l as usize == label).count();
        let highest = self.labels.iter().max().map_or(0, |&l| l as usize);
        (1..=highest).filter(|label| count(label) >= LARGE).collect()
    }

    /// Dice of the foreground labels that occur, over all crops together.
    fn dice(&self, network: &StuNet, device: &Device) -> BTreeMap<usize, f64> {
        let num_classes = network.config().num_classes;
        let (mut both, mut total) = (vec![0u64; num_classes], vec![0u64; num_classes]);
        let mut occurs = vec![false; num_classes];
        let network = network.valid();
        for (image, labels) in self.images.outer_iter().zip(self.labels.outer_iter()) {
            let (c, z, y, x) = image.dim();
            let data =
                burn::tensor::TensorData::new(image.iter().copied().collect(), [1, c, z, y, x]);
            let logits =
                network.forward(burn::tensor::Tensor::from_data(data, &device.clone().inner()));
            let found = logits.argmax(1).into_data().convert::<i64>();
            let found = found.as_slice::<i64>().expect("converted above");
            for (&label, &found) in labels.iter().zip(found) {
                let (label, found) = (label as usize, found as usize);
                occurs[label] = true;
                total[label] += 1;
                total[found] += 1;
                both[label] += u64::from(label == found);
            }
        }
        (1..num_classes)
            .filter(|&l| occurs[l])
            .map(|l| (l, 2.0 * both[l] as f64 / total[l] as f64))
            .collect()
    }
}

/// Zero of nothing.
fn mean<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

fn write_initial(folder: &Path, config: &StuNetConfig, network: &StuNet) -> anyhow::Result<()> {
    let mut values = std::collections::HashMap::new();
    network.for_each_parameter(&mut |spec, parameter| {
        values.insert(spec.name.clone(), parameter.to_data());
    });
    let mut source = |spec: &ParameterSpec| Ok(values[&spec.name].clone());
    let contents = Contents {
        config,
        parameters: &mut source,
        momentum: None,
        optimiser: SgdRecord::default(),
    };
    writer::write_v1(&folder.join("initial.model"), contents, &V1Metadata::default())?;
    Ok(())
}

fn write_batch(path: &Path, batch: &TrainingBatch) -> anyhow::Result<()> {
    let mut npz = NpzWriter::new(File::create(path)?);
    let images: Vec<_> = batch.patches.iter().map(|p| p.image.view()).collect();
    npz.add_array("image", &ndarray::stack(Axis(0), &images)?)?;
    for scale in 0..batch.patches[0].targets.len() {
        let targets: Vec<_> = batch.patches.iter().map(|p| p.targets[scale].view()).collect();
        npz.add_array(format!("target{scale}"), &ndarray::stack(Axis(0), &targets)?)?;
    }
    npz.finish()?;
    Ok(())
}

fn write_json(path: &Path, value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(std::fs::write(path, serde_json::to_string_pretty(value)?)?)
}
