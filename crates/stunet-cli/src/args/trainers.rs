//! nnU-Net names a way of training by a class; what such a name says about a run of STU-Net.

use std::str::FromStr;

use super::tuning::{LossArg, OptimizerArg, ScheduleArg};
use super::values::Size;

/// What a trainer's name says; what it leaves open is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trainer {
    /// The name.
    pub name: String,
    /// Size of the network; none for nnU-Net's own trainers.
    pub size: Option<Size>,
    /// Initial learning rate.
    pub lr: Option<f64>,
    /// Number of epochs.
    pub epochs: Option<usize>,
    /// Without mirroring.
    pub no_mirroring: bool,
    /// Without any augmentation.
    pub no_augmentation: bool,
    /// Another loss.
    pub loss: Option<LossArg>,
    /// Another optimiser.
    pub optimizer: Option<OptimizerArg>,
    /// Another way for the learning rate to fall.
    pub schedule: Option<ScheduleArg>,
    /// Epochs over which it rises first.
    pub warmup: Option<usize>,
}

/// Losses of nnU-Net 2's variants. A name that begins another comes after it.
const LOSSES: [(&str, LossArg); 6] = [
    ("DiceCELoss_noSmooth", LossArg::DiceCeNoSmooth),
    ("DiceTopK10Loss", LossArg::DiceTopk10),
    ("DiceLoss", LossArg::Dice),
    ("CELoss", LossArg::Ce),
    ("Topk10LossLS01", LossArg::Topk10Ls01),
    ("Topk10Loss", LossArg::Topk10),
];

/// Its optimisers, which keep the learning rate of 0.01 unless an ending says another.
const OPTIMIZERS: [(&str, OptimizerArg); 2] =
    [("VanillaAdam", OptimizerArg::Adam), ("Adam", OptimizerArg::AdamwAmsgrad)];

/// Learning rates in names: `Adam3en4`.
const RATES: [(&str, f64); 3] = [("1en3", 1e-3), ("3en4", 3e-4), ("", 1e-2)];

/// Epochs of the rise of `nnUNetTrainer_warmup`.
const WARMUP: usize = 50;

/// STU-Net's trainers, of either version of nnU-Net.
const STUNET: &str = "STUNetTrainer";
/// nnU-Net's own: 1, then 2.
const NNUNET: [&str; 2] = ["nnUNetTrainerV2", "nnUNetTrainer"];

/// Variants of nnU-Net that say how something else is done, with what does it here.
const OTHERS: [(&str, &str); 9] = [
    ("Adan", "an optimiser of another package, adan-pytorch; --optimizer has Adam and AdamW"),
    ("DASegOrd0", "transforms of your own: examples/research/own_augmentation.rs"),
    ("DA5", "transforms of your own: examples/research/own_augmentation.rs"),
    ("onlyMirror01", "--no-mirroring, for no axis at all"),
    ("noDummy2DDA", "transforms of your own: examples/research/own_augmentation.rs"),
    ("NoDeepSupervision", "a loss with one scale: examples/research/own_loss.rs"),
    ("probabilisticOversampling", "--foreground SHARE, the share of every batch"),
    ("Benchmark", "--epochs 5 --no-validation"),
    ("BN", "a network of your own: examples/research/own_network.rs"),
];

impl FromStr for Trainer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut trainer = Self { name: name.to_owned(), ..Self::default() };
        let (mut rest, stunet) = match name.strip_prefix(STUNET) {
            Some(rest) => (rest, true),
            None => {
                let found = NNUNET.into_iter().find_map(|base| name.strip_prefix(base));
                (found.ok_or_else(|| expected(name))?, false)
            }
        };
        while !rest.is_empty() {
            let before = rest.len();
            let word = rest.strip_prefix('_').unwrap_or(rest);
            let left = match stunet {
                true => trainer.stunet(word),
                false => None,
            };
            rest = left.or_else(|| trainer.variant(word)).ok_or_else(|| instead(name))?;
            if rest.len() == before {
                return Err(instead(name));
            }
        }
        match stunet && trainer.size.is_none() {
            true => Err(expected(name)),
            false => Ok(trainer),
        }
    }
}

impl Trainer {
    /// Takes a part of STU-Net's names from the front and returns what is left.
    fn stunet<'a>(&mut self, word: &'a str) -> Option<&'a str> {
        use Size::{Base, Huge, Large, Small};
        for (name, size) in [("small", Small), ("base", Base), ("large", Large), ("huge", Huge)] {
            if let Some(rest) = word.strip_prefix(name) {
                self.size = Some(size);
                return Some(rest);
            }
        }
        if let Some(rest) = word.strip_prefix("ft") {
            self.lr = Some(1e-3);
            return Some(rest);
        }
        for (name, epochs) in [("ep2k", 2000), ("ep4k", 4000)] {
            if let Some(rest) = word.strip_prefix(name) {
                self.epochs = Some(epochs);
                return Some(rest);
            }
        }
        None
    }

    /// The same for variants of nnU-Net's: epochs, mirroring, augmentation, loss, optimiser, schedule.
    fn variant<'a>(&mut self, word: &'a str) -> Option<&'a str> {
        if let Some(rest) = self.learning(word) {
            return Some(rest);
        }
        if let Some(rest) = word.strip_prefix("NoMirroring") {
            self.no_mirroring = true;
            return Some(rest);
        }
        if let Some(rest) = word.strip_prefix("NoDA") {
            self.no_augmentation = true;
            self.no_mirroring = true;
            return Some(rest);
        }
        let (epochs, rest) = number(word)?;
        self.epochs = Some(epochs as usize);
        rest.strip_prefix("epochs").or_else(|| rest.strip_prefix("epoch"))
    }
}

/// The variants that change what is minimised and how.
impl Trainer {
    fn learning<'a>(&mut self, word: &'a str) -> Option<&'a str> {
        for (name, loss) in LOSSES {
            if let Some(rest) = word.strip_prefix(name) {
                self.loss = Some(loss);
                return Some(rest);
            }
        }
        for (name, optimizer) in OPTIMIZERS {
            if let Some(rest) = word.strip_prefix(name) {
                self.optimizer = Some(optimizer);
                let named =
                    RATES.into_iter().find_map(|(name, lr)| Some((rest.strip_prefix(name)?, lr)));
                let (left, lr) = named.expect("the last has no name");
                // A rate that an ending before has said stays, unless this one says another.
                self.lr = self.lr.filter(|_| left.len() == rest.len()).or(Some(lr));
                return Some(left);
            }
        }
        if let Some(rest) = word.strip_prefix("CosAnneal") {
            self.schedule = Some(ScheduleArg::Cosine);
            return Some(rest);
        }
        let rest = word.strip_prefix("warmup")?;
        self.warmup = Some(WARMUP);
        Some(rest)
    }
}

/// A number at the front, and what follows.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn expected(name: &str) -> String {
    format!(
        "expected STUNetTrainer_small, _base, _large or _huge, with _ft, _ep2k, _ep4k, _100epochs, \
         _NoMirroring or a loss, optimiser or schedule of nnU-Net's behind, or nnUNetTrainer with such an \
         ending, found {name:?}"
    )
}

fn instead(name: &str) -> String {
    match OTHERS.into_iter().find(|(part, _)| name.contains(part)) {
        Some((part, what)) => format!("{part} is no setting of this program but {what}"),
        None => expected(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expected: Trainer| {
            let found: Trainer = name.parse().unwrap();
            assert_eq!(found, Trainer { name: name.to_owned(), ..expected });
        };
        let of = |size| Trainer { size: Some(size), ..Trainer::default() };
        check("STUNetTrainer_small", of(Size::Small));
        check("STUNetTrainer_base_ft", Trainer { lr: Some(1e-3), ..of(Size::Base) });
        check("STUNetTrainer_huge_ep4k", Trainer { epochs: Some(4000), ..of(Size::Huge) });
        let short = Trainer { epochs: Some(50), no_mirroring: true, ..of(Size::Large) };
        check("STUNetTrainer_large_50epochs_NoMirroring", short);
        check("nnUNetTrainer", Trainer::default());
        check("nnUNetTrainerV2", Trainer::default());
        let epochs = |epochs| Trainer { epochs: Some(epochs), ..Trainer::default() };
        check("nnUNetTrainer_1epoch", epochs(1));
        check("nnUNetTrainer_250epochs", epochs(250));
        let both = Trainer { no_mirroring: true, ..epochs(100) };
        check("nnUNetTrainer_100epochs_NoMirroring", both);
        check("nnUNetTrainerNoMirroring", Trainer { no_mirroring: true, ..Trainer::default() });
        let none = Trainer { no_augmentation: true, no_mirroring: true, ..Trainer::default() };
        check("nnUNetTrainerNoDA", none);
    }

    /// Every class of nnU-Net 2.8.1's variants/loss, optimizer and lr_schedule.
    #[test]
    fn losses_optimisers_and_schedules() {
        let check = |name: &str, expected: Trainer| {
            let found: Trainer = name.parse().unwrap();
            assert_eq!(found, Trainer { name: name.to_owned(), ..expected });
        };
        let loss = |loss| Trainer { loss: Some(loss), ..Trainer::default() };
        check("nnUNetTrainerCELoss", loss(LossArg::Ce));
        check("nnUNetTrainerCELoss_5epochs", Trainer { epochs: Some(5), ..loss(LossArg::Ce) });
        check("nnUNetTrainerDiceLoss", loss(LossArg::Dice));
        check("nnUNetTrainerDiceCELoss_noSmooth", loss(LossArg::DiceCeNoSmooth));
        check("nnUNetTrainerTopk10Loss", loss(LossArg::Topk10));
        check("nnUNetTrainerTopk10LossLS01", loss(LossArg::Topk10Ls01));
        check("nnUNetTrainerDiceTopK10Loss", loss(LossArg::DiceTopk10));
        let adam = |optimizer, lr| Trainer {
            optimizer: Some(optimizer),
            lr: Some(lr),
            ..Trainer::default()
        };
        check("nnUNetTrainerAdam", adam(OptimizerArg::AdamwAmsgrad, 1e-2));
        check("nnUNetTrainerAdam1en3", adam(OptimizerArg::AdamwAmsgrad, 1e-3));
        check("nnUNetTrainerAdam3en4", adam(OptimizerArg::AdamwAmsgrad, 3e-4));
        check("nnUNetTrainerVanillaAdam", adam(OptimizerArg::Adam, 1e-2));
        check("nnUNetTrainerVanillaAdam1en3", adam(OptimizerArg::Adam, 1e-3));
        check("nnUNetTrainerVanillaAdam3en4", adam(OptimizerArg::Adam, 3e-4));
        let cosine = Trainer { schedule: Some(ScheduleArg::Cosine), ..Trainer::default() };
        check("nnUNetTrainerCosAnneal", cosine.clone());
        check("nnUNetTrainer_warmup", Trainer { warmup: Some(50), ..Trainer::default() });
        let both = Trainer { size: Some(Size::Base), epochs: Some(50), ..cosine };
        check("STUNetTrainer_base_CosAnneal_50epochs", both);
    }

    #[test]
    fn refusals() {
        let check = |name: &str, reason: &str| {
            let message = name.parse::<Trainer>().unwrap_err();
            assert!(message.contains(reason), "{message}");
        };
        check("STUNetTrainer", "expected STUNetTrainer_small");
        check("STUNetTrainer_tiny", "expected STUNetTrainer_small");
        check("MyTrainer", "expected STUNetTrainer_small");
        check("nnUNetTrainerDA5", "own_augmentation.rs");
        check("nnUNetTrainerNoDeepSupervision", "own_loss.rs");
        check("nnUNetTrainerAdan1en3", "adan-pytorch");
        check("nnUNetTrainerAdanCosAnneal", "adan-pytorch");
        check("nnUNetTrainer_onlyMirror01_1500ep", "--no-mirroring");
        check("nnUNetTrainer_DASegOrd0", "own_augmentation.rs");
        check("nnUNetTrainerBenchmark_5epochs", "--epochs 5");
        check("nnUNetTrainerTopk", "expected STUNetTrainer_small");
        check("nnUNetTrainer_probabilisticOversampling_033", "--foreground SHARE");
        check("../STUNetTrainer_base", "expected STUNetTrainer_small");
        check("STUNetTrainer_base/x", "expected STUNetTrainer_small");
    }
}
