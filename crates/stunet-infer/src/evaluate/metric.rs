//! The scores of a case and class, by name.

use super::{CaseCounts, EvaluationRules};

/// A score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Dice coefficient of the voxels.
    Dice,
    /// Intersection over union of the voxels.
    Iou,
    /// Part of the predicted voxels that is right.
    Precision,
    /// Part of the reference's voxels that is predicted.
    Recall,
    /// Predicted volume less the reference's.
    VolumeError,
    /// The same, as a part of the reference's.
    RelativeVolumeError,
    /// Largest distance of the surfaces.
    Hausdorff,
    /// The same without the farthest 5 %.
    Hausdorff95,
    /// Mean distance of the surfaces.
    MeanDistance,
    /// Normalised surface Dice at the tolerance of this index.
    Nsd(usize),
    /// F1 of lesions.
    LesionF1,
    /// Part of the reference's lesions that is found.
    LesionSensitivity,
    /// Part of the predicted lesions that is right.
    LesionPrecision,
}

/// Which values of a score are good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Large ones, up to 1.
    Higher,
    /// Small ones, down to 0.
    Lower,
    /// Those near 0, which may be above or below.
    NearZero,
}

impl Metric {
    /// Those that are measured under these rules.
    pub fn measured(rules: &EvaluationRules) -> Vec<Self> {
        let counted = [Self::Dice, Self::Iou, Self::Precision, Self::Recall];
        let volumes = [Self::VolumeError, Self::RelativeVolumeError];
        let mut all = [&counted[..], &volumes[..]].concat();
        if let Some(surface) = &rules.surface {
            all.extend([Self::Hausdorff, Self::Hausdorff95, Self::MeanDistance]);
            all.extend((0..surface.tolerances_mm.len()).map(Self::Nsd));
        }
        if rules.lesions.is_some() {
            all.extend([Self::LesionF1, Self::LesionSensitivity, Self::LesionPrecision]);
        }
        all
    }

    /// Its name in files, such as `hd95_mm` or `nsd_2mm`.
    pub fn key(self, rules: &EvaluationRules) -> String {
        match self {
            Self::Dice => "dice".to_owned(),
            Self::Iou => "iou".to_owned(),
            Self::Precision => "precision".to_owned(),
            Self::Recall => "recall".to_owned(),
            Self::VolumeError => "volume_error_ml".to_owned(),
            Self::RelativeVolumeError => "relative_volume_error".to_owned(),
            Self::Hausdorff => "hd_mm".to_owned(),
            Self::Hausdorff95 => "hd95_mm".to_owned(),
            Self::MeanDistance => "assd_mm".to_owned(),
            Self::Nsd(index) => format!("nsd_{}mm", tolerance(rules, index)),
            Self::LesionF1 => "lesion_f1".to_owned(),
            Self::LesionSensitivity => "lesion_sensitivity".to_owned(),
            Self::LesionPrecision => "lesion_precision".to_owned(),
        }
    }

    /// Its name for readers, such as `HD95 (mm)`.
    pub fn title(self, rules: &EvaluationRules) -> String {
        match self {
            Self::Dice => "Dice".to_owned(),
            Self::Iou => "IoU".to_owned(),
            Self::Precision => "Precision".to_owned(),
            Self::Recall => "Recall".to_owned(),
            Self::VolumeError => "Volume error (mL)".to_owned(),
            Self::RelativeVolumeError => "Relative volume error".to_owned(),
            Self::Hausdorff => "HD (mm)".to_owned(),
            Self::Hausdorff95 => "HD95 (mm)".to_owned(),
            Self::MeanDistance => "ASSD (mm)".to_owned(),
            Self::Nsd(index) => format!("NSD at {} mm", tolerance(rules, index)),
            Self::LesionF1 => "Lesion F1".to_owned(),
            Self::LesionSensitivity => "Lesion sensitivity".to_owned(),
            Self::LesionPrecision => "Lesion precision".to_owned(),
        }
    }

    /// Which of its values are good ones.
    pub fn better(self) -> Better {
        match self {
            Self::VolumeError | Self::RelativeVolumeError => Better::NearZero,
            Self::Hausdorff | Self::Hausdorff95 | Self::MeanDistance => Better::Lower,
            _ => Better::Higher,
        }
    }

    /// Its value for a class of a case; NaN where it does not exist or was not measured.
    ///
    /// # Panics
    /// When there is no class of that index.
    pub fn of(self, case: &CaseCounts, class: usize) -> f64 {
        let counts = &case.counts[class];
        let surface = case.surfaces.get(class);
        let lesions = case.lesions.get(class);
        let voxels = counts.num_predicted() as f64 - counts.num_reference() as f64;
        let found = match self {
            Self::Dice => Some(counts.dice()),
            Self::Iou => Some(counts.iou()),
            Self::Precision => Some(counts.precision()),
            Self::Recall => Some(counts.recall()),
            Self::VolumeError => Some(voxels * case.voxel_volume_mm3 / 1000.0),
            Self::RelativeVolumeError => match counts.num_reference() {
                0 => None,
                reference => Some(voxels / reference as f64),
            },
            Self::Hausdorff => surface.map(|s| s.hausdorff_mm),
            Self::Hausdorff95 => surface.map(|s| s.hausdorff95_mm),
            Self::MeanDistance => surface.map(|s| s.mean_distance_mm),
            Self::Nsd(index) => surface.and_then(|s| s.nsd.get(index).copied()),
            Self::LesionF1 => lesions.map(|l| l.f1()),
            Self::LesionSensitivity => lesions.map(|l| l.sensitivity()),
            Self::LesionPrecision => lesions.map(|l| l.precision()),
        };
        found.unwrap_or(f64::NAN)
    }
}

fn tolerance(rules: &EvaluationRules, index: usize) -> f64 {
    rules.surface.as_ref().and_then(|s| s.tolerances_mm.get(index).copied()).unwrap_or(f64::NAN)
}
