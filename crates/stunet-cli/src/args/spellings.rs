//! nnU-Net's spellings of options.

/// nnU-Net's options of one dash and several letters, which clap does not support.
const SPELLINGS: [(&str, &str); 10] = [
    ("-ref", "--reference"),
    ("-plans_json", "--plans"),
    ("-dataset_json", "--dataset-json"),
    ("-pp_pkl_file", "--steps"),
    ("-tr", "--trainers"),
    ("-chk", "--checkpoint"),
    ("-djfile", "--dataset-json"),
    ("-pfile", "--plans"),
    ("-il", "--ignore-label"),
    ("-np", "--np"),
];

/// nnU-Net's spelling of an option as clap knows it.
pub fn spell_out(arg: std::ffi::OsString) -> std::ffi::OsString {
    match SPELLINGS.into_iter().find(|(short, _)| arg == *short) {
        Some((_, long)) => long.into(),
        None => arg,
    }
}
