//! Volumes of organs between which nearly all adults lie.

use super::{LabelWarning, WarningKind};
use crate::statistics::LabelStatistics;

/// The volumes that are plausible for a structure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlausibleVolume {
    /// Name of a label without its side and number: `kidney` is both kidneys.
    pub structure: &'static str,
    /// Millilitres below which a structure that does not touch the border of the image is small.
    pub min_ml: f64,
    /// Millilitres above which it is large.
    pub max_ml: f64,
    /// Whether scans hold it as a whole, as they hold a liver, and not an aorta or a femur: one that is cut
    /// deserves a hint.
    pub compact: bool,
}

/// Wide limits for adults: from well below the smallest to well above the largest volumes that studies
/// of healthy adults report, and with room for common disease, such as an enlarged spleen or a full
/// bladder. They find segmentations that are wrong by a multiple, and are no norms.
pub const ADULT_VOLUMES: [PlausibleVolume; 43] = [
    of("adrenal_gland", 0.5, 40.0),
    long("aorta", 30.0, 900.0),
    long("autochthon", 100.0, 1800.0),
    of("brain", 700.0, 2100.0),
    long("clavicula", 8.0, 100.0),
    long("colon", 80.0, 4000.0),
    of("duodenum", 10.0, 350.0),
    long("esophagus", 8.0, 150.0),
    long("femur", 100.0, 1100.0),
    of("gallbladder", 1.0, 400.0),
    long("gluteus_maximus", 150.0, 2200.0),
    long("gluteus_medius", 80.0, 900.0),
    long("gluteus_minimus", 15.0, 350.0),
    of("heart", 200.0, 2500.0),
    of("heart_atrium", 15.0, 600.0),
    of("heart_myocardium", 40.0, 600.0),
    of("heart_ventricle", 30.0, 700.0),
    long("hip", 120.0, 900.0),
    long("humerus", 50.0, 500.0),
    long("iliac_artery", 2.0, 200.0),
    long("iliac_vena", 3.0, 200.0),
    long("iliopsoas", 80.0, 1000.0),
    long("inferior_vena_cava", 10.0, 350.0),
    of("kidney", 30.0, 800.0),
    of("liver", 400.0, 5000.0),
    of("lung_lower_lobe", 100.0, 3500.0),
    of("lung_middle_lobe", 40.0, 1500.0),
    of("lung_upper_lobe", 100.0, 3500.0),
    of("pancreas", 10.0, 350.0),
    long("portal_vein_and_splenic_vein", 3.0, 200.0),
    of("prostate", 5.0, 400.0),
    long("pulmonary_artery", 15.0, 350.0),
    long("rib", 0.5, 80.0),
    long("sacrum", 70.0, 550.0),
    long("scapula", 40.0, 350.0),
    long("small_bowel", 80.0, 4000.0),
    of("spleen", 20.0, 3000.0),
    of("stomach", 20.0, 4000.0),
    long("trachea", 8.0, 150.0),
    of("urinary_bladder", 2.0, 2500.0),
    long("vertebrae_C", 3.0, 90.0),
    long("vertebrae_T", 6.0, 130.0),
    long("vertebrae_L", 20.0, 220.0),
];

const fn of(structure: &'static str, min_ml: f64, max_ml: f64) -> PlausibleVolume {
    PlausibleVolume { structure, min_ml, max_ml, compact: true }
}

const fn long(structure: &'static str, min_ml: f64, max_ml: f64) -> PlausibleVolume {
    PlausibleVolume { compact: false, ..of(structure, min_ml, max_ml) }
}

impl PlausibleVolume {
    /// That of a label, by its name.
    pub fn of_label(name: &str) -> Option<&'static Self> {
        let structure = structure(name);
        ADULT_VOLUMES.iter().find(|volume| volume.structure == structure)
    }
}

/// The name without side and number.
fn structure(name: &str) -> String {
    let parts = name.split('_').filter(|part| !matches!(*part, "left" | "right"));
    let mut parts: Vec<&str> = parts.collect();
    if parts.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        parts.pop();
    }
    let joined = parts.join("_");
    match joined.starts_with("vertebrae_") {
        true => joined.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(),
        false => joined,
    }
}

/// A hint for every label outside its limits.
pub(super) fn implausible(labels: &[LabelStatistics]) -> Vec<LabelWarning> {
    let hint = |label: &LabelStatistics| {
        let position = label.position.as_ref()?;
        let limits = PlausibleVolume::of_label(&label.name)?;
        let (found, whole) = (label.volume_ml, position.touches.is_empty());
        let (size, limit) = match found {
            ml if ml > limits.max_ml => ("large", format!("at most {} ml", limits.max_ml)),
            ml if ml < limits.min_ml && whole => {
                ("small", format!("at least {} ml", limits.min_ml))
            }
            _ => return None,
        };
        Some(LabelWarning {
            kind: WarningKind::Volume,
            labels: vec![label.name.clone()],
            message: format!(
                "{} is {size} for an adult: {}, expected {limit}",
                label.name,
                millilitres(found)
            ),
        })
    };
    labels.iter().filter_map(hint).collect()
}

/// A volume for people.
fn millilitres(ml: f64) -> String {
    match ml {
        ml if ml < 1.0 => format!("{ml:.3} ml"),
        ml if ml < 100.0 => format!("{ml:.1} ml"),
        ml => format!("{ml:.0} ml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelSet;

    #[test]
    fn nearly_every_published_label_has_limits() {
        let labels = LabelSet::totalsegmentator();
        let without: Vec<&str> = (labels.labels()[1..].iter().map(|label| label.name.as_str()))
            .filter(|name| PlausibleVolume::of_label(name).is_none())
            .collect();
        assert_eq!(without, ["face"]);
        assert_eq!(structure("vertebrae_T12"), "vertebrae_T");
        assert_eq!(structure("rib_left_10"), "rib");
        assert_eq!(structure("kidney_left"), "kidney");
        assert_eq!(structure("lung_upper_lobe_left"), "lung_upper_lobe");
        assert_eq!(PlausibleVolume::of_label("tumour"), None);
    }

    #[test]
    fn limits_are_limits() {
        for volume in ADULT_VOLUMES {
            assert!(
                0.0 < volume.min_ml && volume.min_ml * 5.0 < volume.max_ml
                    || volume.structure == "brain"
            );
        }
    }
}
