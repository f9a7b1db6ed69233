//! The maps that come with the library.

use super::LabelMapping;

macro_rules! maps {
    ($($name:literal: $task:literal,)*) => {
        /// Names of the label maps that come with the library: datasets on which STU-Net's paper scored
        /// its TotalSegmentator models without training.
        pub const PUBLISHED: &[&str] = &[$($name),*];

        /// Name, folder name of the dataset, text.
        const MAPS: &[(&str, &str, &str)] = &[
            $(($name, $task, include_str!(concat!("published/", $name, ".labels"))),)*
        ];
    };
}

maps! {
    "liver": "Task003_Liver",
    "pancreas": "Task007_Pancreas",
    "spleen": "Task009_Spleen",
    "btcv": "Task011_BTCV",
    "btcv_cervix": "Task012_BTCV_Cervix",
    "abdomenct1k": "Task020_AbdomenCT1K",
    "kits2021": "Task021_KiTS2021",
    "flare22": "Task022_FLARE22",
    "ct_org": "Task030_CT_ORG",
    "amos22": "Task032_AMOS22_Task1",
    "kipa22": "Task036_KiPA22",
    "verse2020": "Task083_VerSe2020",
    "word": "Task560_WORD",
    "segthor": "Task605_SegThor",
}

pub(super) fn find(name: &str) -> Option<LabelMapping> {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    let (.., text) = MAPS.iter().find(|(short, task, _)| same(short) || same(task))?;
    Some(LabelMapping::parse(text, None).expect("published maps are tested"))
}
