//! The settings of a run: from the command line and the plans, or from the run's checkpoint.

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stunet::data::augment::{Augmentation, AugmentationStep};
use stunet::data::loader::LoaderConfig;
use stunet::data::plans::{Plans, Reference};
use stunet::device::Devices;
use stunet::model::{StuNetConfig, StuNetSize};
use stunet::train::distributed::Averaging;
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::nnunet_run::NnUNetRun;
use stunet::train::precision::Precision;
use stunet::train::{FitConfig, StateOptions, exact};
use stunet::verify::Storage;

use super::dataset::Dataset;
use super::learning::Learning;
use super::pretrained::shape_of;
use crate::args::{HeadsArg, PrecisionArg, RecipeArg, TrainArgs, Trainer};

/// Everything that decides a run's numbers; kept in its checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the dataset.
    pub dataset: String,
    /// Configuration of its plans.
    pub configuration: String,
    /// Fold: a number or `all`.
    pub fold: String,
    /// The network.
    pub network: StuNetConfig,
    /// File name of the pre-trained weights.
    pub pretrained: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_heads: bool,
    pub stem_divide: bool,
    pub epochs: usize,
    pub iterations: usize,
    pub val_iterations: usize,
    #[serde(with = "exact")]
    pub lr: f64,
    pub batch_size: usize,
    pub patch: [usize; 3],
    pub recipe: RecipeArg,
    pub augmentation: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_mirroring: bool,
    /// Share of patches with foreground, where it is not nnU-Net's.
    #[serde(default, with = "exact::option", skip_serializing_if = "Option::is_none")]
    pub foreground: Option<f64>,
    /// Name of the trainer, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<String>,
    /// Variants of the recipe.
    #[serde(default, skip_serializing_if = "Learning::is_plain")]
    pub learning: Learning,
    pub accumulate: usize,
    #[serde(with = "exact::option")]
    pub ema: Option<f64>,
    pub seed: u64,
    pub precision: PrecisionArg,
    pub checkpoint_activations: bool,
    pub batch_dice: bool,
    /// Digest of the recipe by which the cases were prepared.
    pub prepared_by: String,
    pub training_cases: Vec<String>,
    pub validation_cases: Vec<String>,
}

impl Settings {
    /// Settings of a new run.
    pub fn new(args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<Self> {
        let plans = dataset.plans();
        let recipe = args.recipe.unwrap_or(RecipeArg::of(plans.reference));
        let conventions = &recipe.reference(plans.reference).conventions().training;
        let pretrained = args.pretrained.as_deref();
        let learning = Learning::new(args);
        let settings = Self {
            dataset: dataset.name.clone(),
            configuration: args.configuration.clone(),
            fold: dataset.fold.to_string(),
            network: network(args, dataset)?,
            pretrained: pretrained
                .map(|p| p.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            keep_heads: args.keep_heads || learning.heads == Some(HeadsArg::Keep),
            stem_divide: args.stem_divide,
            epochs: args.epochs.unwrap_or(1000),
            iterations: args.iterations.unwrap_or(250),
            val_iterations: args.val_iterations.unwrap_or(conventions.num_val_iterations),
            lr: args.lr.unwrap_or(learning.default_lr(pretrained.is_some())),
            batch_size: args.batch_size.unwrap_or(plans.batch_size),
            patch: patch(args)?.unwrap_or(plans.patch_size),
            recipe,
            augmentation: !args.no_augmentation,
            no_mirroring: args.no_mirroring,
            foreground: args.foreground,
            trainer: args.trainer.as_ref().map(|trainer| trainer.name.clone()),
            learning,
            accumulate: args.accumulate.unwrap_or(1),
            ema: args.ema,
            seed: args.seed.unwrap_or(12345),
            precision: args.precision.unwrap_or(PrecisionArg::F32),
            checkpoint_activations: args.checkpoint_activations,
            batch_dice: dataset.batch_dice,
            prepared_by: dataset.cases.digest().to_owned(),
            training_cases: dataset.split.train.clone(),
            validation_cases: dataset.split.val.clone(),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Settings of a run that nnU-Net began: those of the command line, else those that the name of its
    /// trainer says, else nnU-Net's; the network is that of the checkpoint.
    pub fn of_nnunet(
        args: &TrainArgs,
        dataset: &Dataset,
        begun: &NnUNetRun,
    ) -> anyhow::Result<Self> {
        let found = begun.config();
        if args.size.is_some() || args.width.is_some() {
            same("--size, --width or --depth", Some(&network(args, dataset)?), Some(found))?;
        }
        let (channels, outputs) = (dataset.plans().num_channels(), dataset.labels().num_outputs());
        ensure!(
            (found.in_channels, found.num_classes) == (channels, outputs),
            "--continue: expected a network of {channels} channels and {outputs} outputs, as plans and \
             labels have them, found one of {} and {}: {}",
            found.in_channels,
            found.num_classes,
            begun.path().display()
        );
        let given = args.trainer.as_ref().map(|trainer| trainer.name.clone());
        let name = given.or_else(|| begun.trainer().map(str::to_owned));
        // A trainer of somebody's own says nothing.
        let known: Trainer = name.as_deref().and_then(|name| name.parse().ok()).unwrap_or_default();
        ensure!(
            known.optimizer.is_none(),
            "--continue: expected a run of SGD, whose momentum can be taken over, found one of {}: {}",
            name.as_deref().unwrap_or_default(),
            begun.path().display()
        );
        let settings = Self::new(args, dataset)?;
        let typed = &settings.learning;
        let learning = Learning {
            loss: typed.loss.or(known.loss),
            schedule: typed.schedule.or(known.schedule),
            warmup: typed.warmup.or(known.warmup),
            ..typed.clone()
        };
        let settings = Self {
            network: found.clone(),
            learning,
            trainer: name,
            epochs: args.epochs.or(known.epochs).unwrap_or(settings.epochs),
            lr: args.lr.or(known.lr).unwrap_or(settings.lr),
            no_mirroring: args.no_mirroring || known.no_mirroring,
            augmentation: settings.augmentation && !known.no_augmentation,
            ..settings
        };
        settings.check()?;
        Ok(settings)
    }

    /// Settings of a resumed run; options must not contradict them, but for those that make it longer.
    pub fn of_run(recorded: Self, args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<Self> {
        let r = &recorded;
        same("--pretrained", name_of(args), r.pretrained.as_ref())?;
        same_learning(&Learning::new(args), &r.learning)?;
        same("--iterations", args.iterations.as_ref(), Some(&r.iterations))?;
        same("--val-iterations", args.val_iterations.as_ref(), Some(&r.val_iterations))?;
        same("--batch-size", args.batch_size.as_ref(), Some(&r.batch_size))?;
        same("--patch", patch(args)?.as_ref(), Some(&r.patch))?;
        same("--recipe", args.recipe.as_ref(), Some(&r.recipe))?;
        same("--accumulate", args.accumulate.as_ref(), Some(&r.accumulate))?;
        same("--ema", args.ema.as_ref(), r.ema.as_ref())?;
        same("--seed", args.seed.as_ref(), Some(&r.seed))?;
        same("--precision", args.precision.as_ref(), Some(&r.precision))?;
        same("--foreground", args.foreground.as_ref(), r.foreground.as_ref())?;
        let given = [
            ("--no-augmentation", args.no_augmentation, !r.augmentation),
            ("--no-mirroring", args.no_mirroring, r.no_mirroring),
            ("--checkpoint-activations", args.checkpoint_activations, r.checkpoint_activations),
            ("--keep-heads", args.keep_heads, r.keep_heads),
            ("--stem-divide", args.stem_divide, r.stem_divide),
        ];
        for (what, typed, recorded) in given {
            same(what, typed.then_some(&true), Some(&recorded))?;
        }
        if args.size.is_some() || args.width.is_some() {
            same("--size, --width or --depth", Some(&network(args, dataset)?), Some(&r.network))?;
        }
        same("configuration", Some(&args.configuration), Some(&r.configuration))?;
        same("fold", Some(&dataset.fold.to_string()), Some(&r.fold))?;
        same("batch_dice of the plans", Some(&dataset.batch_dice), Some(&r.batch_dice))?;
        same("prepared cases", Some(dataset.cases.digest()), Some(&r.prepared_by[..]))?;
        same("training cases", Some(&dataset.split.train), Some(&r.training_cases))?;
        same("validation cases", Some(&dataset.split.val), Some(&r.validation_cases))?;
        Ok(recorded)
    }

    /// nnU-Net's name for the trainer: `STUNetTrainer_small`, `.._ft` after pre-training.
    pub fn trainer(&self) -> String {
        trainer(self.trainer.as_deref(), &self.network, self.pretrained.is_some())
    }

    /// The version of nnU-Net that is trained as.
    pub fn reference(&self, plans: &Plans) -> Reference {
        self.recipe.reference(plans.reference)
    }

    /// The plans with this run's patch and batch.
    pub fn plans(&self, dataset: &Dataset) -> anyhow::Result<Plans> {
        let plans = dataset.plans().clone();
        let mut plans = Plans { patch_size: self.patch, batch_size: self.batch_size, ..plans };
        if self.no_mirroring {
            // What was never seen mirrored is not predicted so.
            plans.mirror_axes.clear();
        }
        Ok(plans.checked()?)
    }

    /// The loop's settings.
    pub fn fit_config(&self, args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<FitConfig> {
        let plans = dataset.plans();
        let reference = self.reference(plans);
        let augmentation = match self.augmentation {
            false => Augmentation::none(self.patch),
            true => Augmentation::of(reference, self.patch),
        };
        let augmentation = match self.no_mirroring {
            false => augmentation,
            true => {
                let steps: Vec<_> = augmentation.steps().to_vec();
                let kept =
                    steps.into_iter().filter(|step| !matches!(step, AugmentationStep::Mirror));
                augmentation.with_steps(kept)?
            }
        };
        let masked = plans.channels.iter().map(|channel| channel.use_mask).collect();
        let augmentation = augmentation.with_masked_channels(masked);
        let mut loader = LoaderConfig {
            seed: self.seed,
            num_threads: args.threads.unwrap_or_else(cores),
            ..LoaderConfig::new(augmentation, self.batch_size, &self.network.strides)
        };
        if let Some(share) = self.foreground {
            loader.oversample_foreground = share;
        }
        let labels = dataset.labels();
        let regions = labels.has_regions().then(|| {
            let regions = labels.labels().iter().filter(|label| label.values != [0]);
            regions.map(|r| r.values.iter().map(|&v| i32::from(v)).collect()).collect()
        });
        let ignore_label = labels.ignore().map(i32::from);
        let stock = LossConfig::of(reference, self.batch_dice);
        let loss = self.learning.loss(LossConfig { regions, ignore_label, ..stock });
        let config = FitConfig::new(self.epochs, loader, Loss::new(loss)?);
        Ok(FitConfig {
            num_iterations: self.iterations,
            num_val_iterations: self.val_iterations,
            initial_lr: self.lr,
            accumulate: self.accumulate,
            save_every: args.save_every,
            ..config.with_schedule(self.learning.schedule())
        })
    }

    /// In which precision the network's values are stored.
    pub const fn storage(&self) -> Storage {
        match self.precision {
            PrecisionArg::F32 => Storage::F32,
            PrecisionArg::Bf16 => Storage::Bf16,
            PrecisionArg::F16 => Storage::F16,
        }
    }

    /// How the network computes.
    pub fn state_options(&self, devices: &Devices) -> StateOptions {
        StateOptions {
            others: devices.others().map(|chosen| chosen.device.clone()).collect(),
            averaging: match devices.reduce_among_themselves() {
                true => Averaging::Collective,
                false => Averaging::FirstDevice,
            },
            ema: self.ema,
            precision: match self.precision {
                PrecisionArg::F32 => Precision::F32,
                PrecisionArg::Bf16 => Precision::Bf16,
                PrecisionArg::F16 => Precision::F16,
            },
            checkpoint_activations: self.checkpoint_activations,
            optimiser: self.learning.optimiser(),
            frozen: self.learning.freeze.clone().unwrap_or_default(),
            rates: self.learning.rates(),
            low_rank: self.learning.low_rank(self.seed),
            ..StateOptions::new(&devices.first().device)
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        self.network.validate()?;
        self.network.validate_patch(self.patch)?;
        ensure!(self.batch_size > 0, "batch size: expected at least 1, found 0");
        if let Some(warmup) = self.learning.warmup {
            let epochs = self.epochs;
            ensure!(
                warmup < epochs,
                "--warmup: expected fewer than the {epochs} epochs of the run, found {warmup}"
            );
        }
        if let Some(decay) = self.ema {
            ensure!((0.0..1.0).contains(&decay), "--ema: expected 0 to below 1, found {decay}");
        }
        Ok(())
    }
}

/// The name of the trainer: the one that was given, else nnU-Net's for the network.
pub fn trainer(given: Option<&str>, network: &StuNetConfig, fine_tuned: bool) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let size = network.size().map_or("custom", StuNetSize::name);
    format!("STUNetTrainer_{size}{}", if fine_tuned { "_ft" } else { "" })
}

/// The network that was asked for, with the dataset's channels, classes and strides.
pub fn network(args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<StuNetConfig> {
    let plans = dataset.plans();
    let size = args.size.map_or(StuNetSize::Small, StuNetSize::from);
    let (depth, width) = size.depth_and_width();
    let (mut depth, mut width) = ([depth; 6], width);
    if let Some(wanted) = &args.width {
        width = wanted[..].try_into().context("--width: expected six numbers")?;
        depth = match args.depth.as_deref() {
            None => [1; 6],
            Some([depth]) => [*depth; 6],
            Some(depths) => depths.try_into().context("--depth: expected one number or six")?,
        };
    } else if args.size.is_none()
        && let Some(pretrained) = &args.pretrained
    {
        let found = shape_of(pretrained, plans.stunet_strides()?)?;
        (width, depth) = (found.width, found.depth);
    }
    Ok(StuNetConfig {
        in_channels: plans.num_channels(),
        num_classes: dataset.labels().num_outputs(),
        width,
        depth,
        strides: plans.stunet_strides()?,
    })
}

fn patch(args: &TrainArgs) -> anyhow::Result<Option<[usize; 3]>> {
    let patch = args.patch.as_ref().map(|patch| patch[..].try_into());
    patch.transpose().context("--patch: expected Z Y X")
}

fn name_of(args: &TrainArgs) -> Option<String> {
    let file = args.pretrained.as_deref()?.file_name()?;
    Some(file.to_string_lossy().into_owned())
}

/// The same for the variants of the recipe.
fn same_learning(typed: &Learning, recorded: &Learning) -> anyhow::Result<()> {
    let (t, r) = (typed, recorded);
    // As they are typed, not as the program calls them.
    let [t, r] = [t, r].map(|learning| serde_json::to_value(learning).unwrap_or_default());
    let names = [
        ("--loss", "loss"),
        ("--optimizer", "optimizer"),
        ("--weight-decay", "weight_decay"),
        ("--schedule", "schedule"),
        ("--warmup", "warmup"),
        ("--layer-decay", "layer_decay"),
        ("--lr-factor", "lr_factors"),
        ("--freeze", "freeze"),
        ("--lora", "lora"),
        ("--lora-alpha", "lora_alpha"),
        ("--stem", "stem"),
        ("--heads", "heads"),
    ];
    let told = |of: &Value, key: &str| {
        let value = of.get(key)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    names
        .into_iter()
        .try_for_each(|(option, key)| same(option, told(&t, key), told(&r, key).as_ref()))
}

/// What was typed, if anything was, has to be what the run was started with.
pub(super) fn same<T>(
    what: &str,
    typed: Option<impl std::borrow::Borrow<T>>,
    recorded: Option<&T>,
) -> anyhow::Result<()>
where
    T: PartialEq + std::fmt::Debug + ?Sized,
{
    match (typed, recorded) {
        (None, _) => Ok(()),
        (Some(typed), Some(recorded)) if typed.borrow() == recorded => Ok(()),
        (Some(typed), recorded) => bail!(
            "{what}: expected {}, as the run was started with, found {:?}",
            recorded.map_or_else(|| "none".to_owned(), |recorded| format!("{recorded:?}")),
            typed.borrow()
        ),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
