//! Models opened from the disk and from memory are the same, and so is what is said of bad ones.

use super::*;

type Contents = Vec<(String, Vec<u8>)>;

/// The files of a folder, under names that begin with its own.
fn contents(folder: &Path) -> Contents {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder.parent().unwrap()).unwrap().to_str().unwrap();
            found.push((name.to_owned(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// Opened both ways, with everything but the paths compared.
fn both(folder: &Path, options: &OpenOptions) {
    let disk = Model::open(folder, options).unwrap();
    let memory = Model::from_files(contents(folder), options).unwrap();
    assert!(disk.digest().is_some());
    assert_eq!(disk.digest(), memory.digest());
    let [mut disk, mut memory] = [disk, memory].map(|model| model.description);
    for (fold, prefix) in [
        (&mut disk.folds, folder.parent().unwrap()),
        (&mut memory.folds, Path::new(files::IN_MEMORY)),
    ] {
        for fold in fold {
            fold.path = fold.path.strip_prefix(prefix).unwrap().to_owned();
        }
    }
    assert_eq!(disk, memory);
}

fn fails(files: Contents, words: &[&str]) {
    let message = Model::from_files(files, &options()).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    for word in words.iter().chain(&[files::IN_MEMORY]) {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
}

/// A results folder of two folds, each of other weights than that of the other.
fn results_folder(parent: &Path) -> std::path::PathBuf {
    let results = parent.join("STUNetTrainer_small__nnUNetPlans__3d_fullres");
    for fold in ["0", "1"] {
        write_v2(&results, fold, &config(1, 3), &[0, 1]);
    }
    results
}

#[test]
fn every_kind_of_folder() {
    let folder = tempfile::tempdir().unwrap();
    let results = results_folder(folder.path());
    let zero = OpenOptions { folds: Folds::Numbers(vec![0]), ..options() };
    let best = results.join("fold_0/checkpoint_best.pth");
    both(&results, &options());
    both(&results, &zero);
    std::fs::copy(results.join("fold_0/checkpoint_final.pth"), &best).unwrap();
    both(&results, &OpenOptions { checkpoint: Some("checkpoint_best".into()), ..zero });

    let own = folder.path().join("own");
    let model = Model::open(&results, &options()).unwrap();
    model.save_folder_as(&own, StoredPrecision::F16).unwrap();
    both(&own, &options());

    let v1 = folder.path().join("v1");
    let file = v1.join("fold_0/model_final_checkpoint.model");
    write_v1(&file, &config(2, 4), 1, Some(v1_plans(2, 4)));
    both(&v1, &options());
    let bare = folder.path().join("bare");
    write_v1(&bare.join("small_ep4k.model"), &config(1, 105), 1, None);
    both(&bare, &options());
}

#[test]
fn contents_may_be_shared_and_folders_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let files = contents(&results_folder(folder.path()));
    let shared: Vec<_> =
        files.iter().map(|(name, bytes)| (name, Arc::new(bytes.clone()))).collect();
    let model = Model::from_files(shared.clone(), &options()).unwrap();
    let short = shared
        .iter()
        .map(|(name, bytes)| (format!("./{}", name.split_once('/').unwrap().1), bytes.clone()));
    let short = Model::from_files(short, &options()).unwrap();
    assert_eq!(short.digest(), model.digest());
    let path = Path::new(files::IN_MEMORY).join("fold_1/checkpoint_final.pth");
    assert_eq!(short.description().folds[1].path, path);
}

#[test]
fn a_file_that_is_missing_or_broken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let results = results_folder(folder.path());
    let own = folder.path().join("own");
    let zero = OpenOptions { folds: Folds::Numbers(vec![0]), ..options() };
    Model::open(&results, &zero).unwrap().save_folder(&own).unwrap();
    let without = |folder: &Path, name: &str| {
        let mut files = contents(folder);
        let there = files.len();
        files.retain(|(other, _)| !other.ends_with(name));
        assert_eq!(files.len(), there - 1);
        files
    };
    for name in ["plans.json", "labels.json", "weights.safetensors"] {
        fails(without(&own, name), &[&format!("expected own/{name}"), "own/network.json"]);
    }
    fails(without(&own, "network.json"), &["weights without their network.json"]);
    fails(without(&results, "plans.json"), &["expected", "checkpoint_final.pth"]);
    fails(without(&results, "dataset.json"), &["expected", "dataset.json"]);
    // A folder is there when a file is in it.
    let first = without(&results, "fold_0/checkpoint_final.pth");
    let message = Model::from_files(first, &zero).unwrap_err().to_string();
    assert!(message.contains("expected fold_0, found fold_1"), "{message}");
    for (folder, name) in [
        (&own, "weights.safetensors"),
        (&own, "network.json"),
        (&own, "labels.json"),
        (&results, "plans.json"),
        (&results, "fold_1/checkpoint_final.pth"),
    ] {
        for length in [0, 1, 100] {
            let mut files = contents(folder);
            let file = files.iter_mut().find(|(other, _)| other.ends_with(name)).unwrap();
            file.1.truncate(file.1.len().saturating_sub(1).min(length));
            fails(files, &[name]);
        }
    }
    // Cut at its end, where only the length tells.
    let mut files = contents(&own);
    let weights = files.iter_mut().find(|(name, _)| name.ends_with(".safetensors")).unwrap();
    weights.1.pop();
    fails(files, &["weights.safetensors", "bytes"]);
    // A value that is another one, which the checksum tells.
    let mut files = contents(&own);
    let weights = files.iter_mut().find(|(name, _)| name.ends_with(".safetensors")).unwrap();
    *weights.1.last_mut().unwrap() ^= 1;
    fails(files, &["weights.safetensors", "checksum"]);
}

#[test]
fn names_that_are_none_are_refused() {
    let with = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), Vec::new())).collect();
    fails(Vec::new(), &["found no files"]);
    fails(with(&["readme.txt", "a/b.bin"]), &["a/b.bin", "readme.txt"]);
    let many: Vec<_> = (0..20).map(|i| format!("{i:02}.txt")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    fails(with(&many), &["00.txt", "and 12 more"]);
    for name in ["", ".", "../plans.json", "a/../../b", "/etc/plans.json"] {
        fails(with(&[name]), &["expected names such as", name]);
    }
    fails(with(&["plans.json", "./plans.json"]), &["every file once", "plans.json again"]);
}
