//! Options of `stunet train` beside the recipe: how pre-trained weights are carried over and which of
//! them are trained, and variants of loss, optimiser and learning rate.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use stunet::train::parts::{Parts, SYNTAX};

use super::values::{above_zero, at_least_one};

// A heading of a whole struct would go on over the options behind it.
pub(super) const WEIGHTS: &str = "Pre-trained weights";
const LEARNING: &str = "Loss and learning rate";

/// What becomes of pre-trained weights.
#[derive(Clone, Debug, Args)]
pub struct TransferArgs {
    /// How the first convolutions begin if the weights are for other input channels [default: repeat]
    #[arg(help_heading = WEIGHTS, long, value_enum, value_name = "HOW", requires = "pretrained")]
    pub stem: Option<StemArg>,

    /// Which segmentation heads are taken over [default: new]
    #[arg(
        help_heading = WEIGHTS,
        long,
        value_enum,
        value_name = "WHICH",
        requires = "pretrained",
        conflicts_with = "keep_heads"
    )]
    pub heads: Option<HeadsArg>,

    /// Parts of the network that are not trained, with commas between them: encoder, stage0 to stage5,
    /// stage0..3, decoder, decoder0 to decoder4, heads; 0 is the finest resolution
    #[arg(help_heading = WEIGHTS, long, value_name = "PARTS", requires = "pretrained", value_parser = parts)]
    pub freeze: Option<Parts>,

    /// Low-rank adaptation (LoRA): train factors of this rank beside the 3×3×3 convolutions, with heads
    /// and norms, and leave all other weights as they are
    #[arg(help_heading = WEIGHTS, long, value_name = "RANK", requires = "pretrained", value_parser = at_least_one)]
    pub lora: Option<usize>,

    /// Multiply the product of the factors by ALPHA / RANK [default: RANK]
    #[arg(help_heading = WEIGHTS, long, value_name = "ALPHA", requires = "lora", value_parser = above_zero)]
    pub lora_alpha: Option<f64>,
}

/// Variants of the recipe.
#[derive(Clone, Debug, Args)]
pub struct LearningArgs {
    /// Loss, by nnU-Net's trainers [default: dice-ce]
    #[arg(help_heading = LEARNING, long, value_enum, value_name = "LOSS")]
    pub loss: Option<LossArg>,

    /// Optimiser [default: sgd]
    #[arg(help_heading = LEARNING, long, visible_alias = "optimiser", value_enum, value_name = "OPTIMIZER")]
    pub optimizer: Option<OptimizerArg>,

    /// Weight decay [default: 0.00003]
    #[arg(help_heading = LEARNING, long, value_name = "DECAY", value_parser = not_negative)]
    pub weight_decay: Option<f64>,

    /// How the learning rate falls [default: poly]
    #[arg(help_heading = LEARNING, long, value_enum, value_name = "SCHEDULE")]
    pub schedule: Option<ScheduleArg>,

    /// Epochs over which the learning rate first rises to --lr
    #[arg(help_heading = LEARNING, long, value_name = "EPOCHS", value_parser = at_least_one)]
    pub warmup: Option<usize>,

    /// Learning rate of each stage compared to the next one towards the output, such as 0.8: the heads
    /// have --lr, the image's stage the eleventh power of it
    #[arg(help_heading = LEARNING, long, value_name = "FACTOR", value_parser = above_zero)]
    pub layer_decay: Option<f64>,

    /// Factors of the learning rate by part, such as encoder=0.1 or stage0..2=0.01,heads=10; parts as for
    /// --freeze
    #[arg(help_heading = LEARNING, long, value_name = "PART=FACTOR", value_delimiter = ',', value_parser = factor)]
    pub lr_factor: Vec<PartFactor>,
}

/// How the stem begins where channels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StemArg {
    /// Channels of the weights in a circle, one for all if there is one, as STU-Net's scripts do
    Repeat,
    /// The mean of the weights' channels for every channel
    Average,
    /// The weights' channels first, and 0 for further ones
    First,
    /// New weights
    New,
}

/// Which heads are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadsArg {
    /// None
    New,
    /// All, for the same labels in the same order, as --keep-heads
    Keep,
    /// Those of labels with the same name, whatever their order and number
    ByName,
}

/// The losses of nnU-Net's trainers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossArg {
    /// Dice and cross-entropy (nnUNetTrainer)
    DiceCe,
    /// The same, the Dice without smoothing (nnUNetTrainerDiceCELoss_noSmooth)
    DiceCeNoSmooth,
    /// Dice (nnUNetTrainerDiceLoss)
    Dice,
    /// Cross-entropy (nnUNetTrainerCELoss)
    Ce,
    /// Mean of the largest tenth of the cross-entropies (nnUNetTrainerTopk10Loss)
    Topk10,
    /// The same with a label smoothing of 0.1 (nnUNetTrainerTopk10LossLS01)
    Topk10Ls01,
    /// Dice and the largest tenth of the cross-entropies (nnUNetTrainerDiceTopK10Loss)
    DiceTopk10,
}

/// Optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerArg {
    /// SGD with Nesterov momentum 0.99 (nnUNetTrainer)
    Sgd,
    /// Adam, the weight decay a part of the gradient (nnUNetTrainerVanillaAdam)
    Adam,
    /// AdamW, the weights decay apart from the gradient
    Adamw,
    /// AdamW with AMSGrad (nnUNetTrainerAdam)
    AdamwAmsgrad,
}

/// Learning rates over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleArg {
    /// nnU-Net's polynomial decay, exponent 0.9
    Poly,
    /// Cosine annealing (nnUNetTrainerCosAnneal)
    Cosine,
}

/// A part and its factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartFactor {
    /// The part.
    pub part: Parts,
    /// What its learning rate is multiplied by.
    #[serde(with = "stunet::train::exact")]
    pub factor: f64,
}

fn parts(text: &str) -> Result<Parts, String> {
    text.parse().map_err(|_| format!("expected {SYNTAX}; several with commas between them"))
}

fn factor(text: &str) -> Result<PartFactor, String> {
    let wrong =
        || format!("expected PART=FACTOR such as encoder=0.1, found {text:?}; parts are {SYNTAX}");
    let (part, factor) = text.split_once('=').ok_or_else(wrong)?;
    Ok(PartFactor {
        part: part.parse().map_err(|_| wrong())?,
        factor: above_zero(factor).map_err(|_| wrong())?,
    })
}

fn not_negative(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite());
    found.ok_or_else(|| "expected a number of at least 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_name_parts() {
        let found = factor("stage0..2=0.01").unwrap();
        assert_eq!((found.part.to_string().as_str(), found.factor), ("stage0..2", 0.01));
        for bad in ["encoder", "encoder=", "encoder=0", "neck=1", "=1"] {
            assert!(factor(bad).unwrap_err().contains("expected PART=FACTOR"), "{bad}");
        }
        assert!(parts("neck").unwrap_err().starts_with("expected encoder, stage0"));
    }

    /// The names in a run's settings are those of the command line.
    #[test]
    fn names_are_the_same_in_files() {
        fn check<T: ValueEnum + Serialize>() {
            for value in T::value_variants() {
                let typed = value.to_possible_value().unwrap();
                assert_eq!(serde_json::json!(value), typed.get_name());
            }
        }
        check::<LossArg>();
        check::<OptimizerArg>();
        check::<ScheduleArg>();
        check::<StemArg>();
        check::<HeadsArg>();
    }
}
