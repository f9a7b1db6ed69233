//! What is compared, and how.

use stunet_data::geometry::Leniency;
use stunet_data::labels::LabelSet;
use stunet_data::mapping::LabelMapping;
use stunet_data::metrics::{Class, LesionRules, SurfaceRules};
use stunet_data::nifti::Reader;

/// What is compared, and where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationRules {
    /// Each is compared on its own.
    pub classes: Vec<Class>,
    /// Voxels of this value in the reference are left out of every count.
    pub ignore: Option<u16>,
    /// Which of nnU-Net's readers opens both files: one that turns compares across orientations.
    pub reader: Reader,
    /// What of their headers is forgiven.
    pub leniency: Leniency,
    /// How labels of reference and prediction correspond, if they differ: both are renumbered first, and
    /// classes and the ignored value are those after it.
    pub mapping: Option<LabelMapping>,
    /// What is measured between surfaces, if anything is: it takes longer than counting.
    pub surface: Option<SurfaceRules>,
    /// When lesions count as found, if they are counted.
    pub lesions: Option<LesionRules>,
}

impl EvaluationRules {
    /// The foreground of a label set, voxels counted alone: see [`Class::foreground_of`].
    pub fn of(labels: &LabelSet) -> Self {
        let classes = Class::foreground_of(labels);
        Self { classes, ignore: labels.ignore(), ..Self::default() }
    }

    /// What a label map scores: its structures, then its groups.
    pub fn of_mapping(mapping: LabelMapping) -> Self {
        let classes = mapping.scored().into_iter().map(|(_, class)| class).collect();
        Self { classes, ignore: mapping.ignored(), mapping: Some(mapping), ..Self::default() }
    }
}
