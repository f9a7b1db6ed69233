//! nnU-Net's spellings of options.

use std::ffi::OsString;

/// nnU-Net's options of one dash and several letters, which clap does not support.
const SPELLINGS: [(&str, &str); 15] = [
    ("-ref", "--reference"),
    ("-plans_json", "--plans"),
    ("-dataset_json", "--dataset-json"),
    ("-pp_pkl_file", "--steps"),
    ("-tr", "--trainer"),
    ("-chk", "--checkpoint"),
    ("-djfile", "--dataset-json"),
    ("-pfile", "--plans"),
    ("-il", "--ignore-label"),
    ("-np", "--np"),
    ("-step_size", "--step-size"),
    ("-num_parts", "--num-parts"),
    ("-part_id", "--part-id"),
    ("-device", "--device"),
    ("-pretrained_weights", "--pretrained"),
];

/// nnU-Net's spelling of an option as clap knows it: `-chk`, and `--disable_tta` with hyphens.
pub fn spell_out(arg: OsString) -> OsString {
    let Some(text) = arg.to_str() else { return arg };
    if let Some((_, long)) = SPELLINGS.into_iter().find(|(short, _)| text == *short) {
        return long.into();
    }
    let (name, value) = text.split_once('=').map_or((text, None), |(name, of)| (name, Some(of)));
    if !name.starts_with("--") || !name.contains('_') {
        return arg;
    }
    let name = name.replace('_', "-");
    value.map_or_else(|| name.clone(), |value| format!("{name}={value}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_clap_knows_them() {
        let check = |given: &str, expected: &str| {
            assert_eq!(spell_out(given.into()), OsString::from(expected));
        };
        check("-chk", "--checkpoint");
        check("--disable_tta", "--disable-tta");
        check("--max_memory=a_b", "--max-memory=a_b");
        check("case_0000.nii.gz", "case_0000.nii.gz");
        check("-x_y", "-x_y");
    }
}
