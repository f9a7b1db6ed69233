//! Names for several labels at once, such as `ribs`.

use super::LabelSet;
use std::collections::BTreeSet;

/// A name for several labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelGroup {
    /// Its name, such as `ribs`.
    pub name: &'static str,
    /// What it holds, in words.
    pub holds: &'static str,
    /// Names of labels; `*` at the end stands for any ending.
    patterns: &'static [&'static str],
}

/// The groups: of the structures of TotalSegmentator, under the names of both of its versions.
///
/// A group holds those of its labels that a label set has.
pub const GROUPS: [LabelGroup; 30] = [
    group("adrenal_glands", "both adrenal glands", &["adrenal_gland_*"]),
    group(
        "bones",
        "all bones but those of the face",
        &[
            "rib_*",
            "vertebrae_*",
            "sacrum",
            "hip_*",
            "femur_*",
            "humerus_*",
            "scapula_*",
            "clavicula_*",
            "sternum",
            "skull",
        ],
    ),
    group("bowel", "duodenum, small bowel and colon", &["duodenum", "small_bowel", "colon"]),
    group("cervical_vertebrae", "C1 to C7", &["vertebrae_C*"]),
    group("claviculas", "both clavicles", &["clavicula_*"]),
    group("femurs", "both femurs", &["femur_*"]),
    group("gluteal_muscles", "gluteus maximus, medius and minimus of both sides", &["gluteus_*"]),
    group("heart_chambers", "atria, ventricles and myocardium", &["heart_*"]),
    group("hips", "both hip bones", &["hip_*"]),
    group("humeri", "both humeri", &["humerus_*"]),
    group(
        "iliac_vessels",
        "iliac arteries and veins of both sides",
        &["iliac_artery_*", "iliac_vena_*"],
    ),
    group("kidneys", "both kidneys", &["kidney_left", "kidney_right"]),
    group("lumbar_vertebrae", "L1 to L5", &["vertebrae_L*"]),
    group("lung_left", "the lobes of the left lung", LEFT_LUNG),
    group("lung_right", "the lobes of the right lung", RIGHT_LUNG),
    group("lungs", "the lobes of both lungs", &["lung_*"]),
    group(
        "muscles",
        "gluteal muscles, iliopsoas and autochthonous muscles of the back",
        &["gluteus_*", "iliopsoas_*", "autochthon_*"],
    ),
    group("ribs", "all ribs", &["rib_*"]),
    group("ribs_left", "ribs of the left side", &["rib_left_*"]),
    group("ribs_right", "ribs of the right side", &["rib_right_*"]),
    group("scapulas", "both shoulder blades", &["scapula_*"]),
    group("shoulders", "shoulder blades, clavicles and humeri", SHOULDERS),
    group("spine", "vertebrae and sacrum", &["vertebrae_*", "sacrum"]),
    group("thoracic_vertebrae", "T1 to T12", &["vertebrae_T*"]),
    group("vertebrae", "all vertebrae", &["vertebrae_*"]),
    group("urinary_tract", "kidneys and urinary bladder", URINARY),
    group(
        "vessels",
        "aorta, vena cava, portal, pulmonary and iliac vessels",
        &[
            "aorta",
            "inferior_vena_cava",
            "superior_vena_cava",
            "portal_vein_and_splenic_vein",
            "pulmonary_artery",
            "pulmonary_vein",
            "iliac_artery_*",
            "iliac_vena_*",
        ],
    ),
    group("abdominal_organs", "liver, spleen, kidneys, pancreas, stomach and others", ABDOMEN),
    group("thoracic_organs", "lungs, heart, trachea and esophagus", THORAX),
    group("all", "every label but the background", &["*"]),
];

const LEFT_LUNG: &[&str] = &["lung_upper_lobe_left", "lung_lower_lobe_left", "lung_left"];
const RIGHT_LUNG: &[&str] =
    &["lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "lung_right"];
const SHOULDERS: &[&str] = &["scapula_*", "clavicula_*", "humerus_*"];
const URINARY: &[&str] = &["kidney_left", "kidney_right", "urinary_bladder"];
const ABDOMEN: &[&str] = &[
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
    "pancreas",
    "stomach",
    "gallbladder",
    "adrenal_gland_*",
    "duodenum",
    "small_bowel",
    "colon",
    "urinary_bladder",
    "prostate",
];
const THORAX: &[&str] = &["lung_*", "heart", "heart_*", "trachea", "esophagus"];

const fn group(
    name: &'static str,
    holds: &'static str,
    patterns: &'static [&'static str],
) -> LabelGroup {
    LabelGroup { name, holds, patterns }
}

impl LabelGroup {
    /// The values of its labels in a set; none if the set has no label of it.
    pub fn values(&self, labels: &LabelSet) -> BTreeSet<u16> {
        let of = |name: &str| self.patterns.iter().any(|pattern| matches(pattern, name));
        let labels = labels.labels().iter().skip(1).filter(|label| of(&label.name));
        labels.flat_map(|label| label.values.iter().copied()).filter(|value| *value != 0).collect()
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_the_published_labels() {
        let labels = LabelSet::totalsegmentator();
        let check = |name: &str, count: usize| {
            let group = GROUPS.iter().find(|group| group.name == name).unwrap();
            assert_eq!(group.values(&labels).len(), count, "{name}");
        };
        check("ribs", 24);
        check("ribs_left", 12);
        check("vertebrae", 24);
        check("cervical_vertebrae", 7);
        check("thoracic_vertebrae", 12);
        check("lumbar_vertebrae", 5);
        check("spine", 25);
        check("lungs", 5);
        check("lung_left", 2);
        check("lung_right", 3);
        check("kidneys", 2);
        check("heart_chambers", 5);
        check("gluteal_muscles", 6);
        check("muscles", 10);
        check("iliac_vessels", 4);
        check("vessels", 8);
        check("bones", 24 + 24 + 1 + 2 + 2 + 2 + 2 + 2);
        check("all", 104);
    }

    #[test]
    fn names_are_unique_and_no_labels() {
        let labels = LabelSet::totalsegmentator();
        for (index, group) in GROUPS.iter().enumerate() {
            assert!(GROUPS[..index].iter().all(|other| other.name != group.name), "{}", group.name);
            assert!(labels.labels().iter().all(|label| label.name != group.name));
            assert!(!group.values(&labels).is_empty(), "{}", group.name);
        }
        let other = LabelSet::from_names(["background", "tumour"]).unwrap();
        let found: Vec<_> =
            GROUPS.iter().filter(|group| !group.values(&other).is_empty()).collect();
        assert_eq!((found.len(), found[0].name), (1, "all"));
    }
}
