use super::*;
use stunet_data::labels::LabelSet;
use stunet_model::weights::writer::{self, Contents, SgdRecord, V1Metadata, V2Metadata};

fn config(in_channels: usize, num_classes: usize) -> StuNetConfig {
    StuNetConfig { width: [2, 2, 3, 3, 4, 4], ..StuNetConfig::small(in_channels, num_classes) }
}

fn network(config: &StuNetConfig) -> StuNet {
    config.init_seeded(Initialisation::PyTorchDefault, 1, &Device::flex()).unwrap()
}

fn values(network: &StuNet) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    network.for_each_parameter(&mut |spec, parameter| {
        all.insert(spec.name.clone(), parameter.to_data().iter::<f32>().collect());
    });
    all
}

/// The same network in every form that is read.
fn files(folder: &Path, network: &StuNet) -> Vec<PathBuf> {
    let config = network.config();
    let [v1, v2] = ["pre.model", "checkpoint_final.pth"].map(|name| folder.join(name));
    let mut source = network.source();
    let contents = Contents {
        config: &config,
        parameters: &mut source,
        momentum: None,
        optimiser: SgdRecord::default(),
    };
    writer::write_v1(&v1, contents, &V1Metadata::default()).unwrap();
    let mut source = network.source();
    let contents = Contents {
        config: &config,
        parameters: &mut source,
        momentum: None,
        optimiser: SgdRecord::default(),
    };
    writer::write_v2(&v2, contents, &V2Metadata::default()).unwrap();
    let own = folder.join("own");
    folder::save(&own, &config, &mut network.source(), Default::default(), Default::default())
        .unwrap();
    let training = folder.join(crate::checkpoint::LATEST);
    let state = crate::checkpoint::State {
        config,
        progress: Default::default(),
        loss_scale: None,
        optimiser: Default::default(),
        frozen: Vec::new(),
        low_rank: None,
        identity: None,
        run: Default::default(),
    };
    let mut weights = Vec::new();
    network.for_each_parameter(&mut |spec, p| weights.push((spec.name.clone(), p.to_data())));
    crate::checkpoint::save(&training, &state, &[(Group::Weights, weights)]).unwrap();
    vec![v1, v2, own, training]
}

#[test]
fn every_form_gives_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 5));
    let expected = values(&source);
    for file in files(folder.path(), &source) {
        let (network, report) =
            transfer(&file, &config(1, 3), &TransferOptions::default(), &Device::flex()).unwrap();
        let found = values(&network);
        for (name, values) in &found {
            assert_eq!(name.starts_with("decoder.heads."), *values != expected[name], "{name}");
        }
        assert_eq!(report.heads.len(), 10);
        assert_eq!(report.copied.len() + 10, found.len());
        assert!(report.repeated.is_empty() && report.initialised.is_empty());
        assert!(report.unused.is_empty());
    }
}

#[test]
fn heads_are_skipped_even_if_they_fit() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 3));
    let file = &files(folder.path(), &source)[0];
    let (network, _) =
        transfer(file, &config(1, 3), &TransferOptions::default(), &Device::flex()).unwrap();
    assert_ne!(
        values(&network)["decoder.heads.4.weight"],
        values(&source)["decoder.heads.4.weight"]
    );
}

#[test]
fn the_stem_is_repeated_for_every_channel() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 3));
    let file = &files(folder.path(), &source)[3];
    let narrow = values(&source);
    let check = |divide_stem: bool, divisor: f32, words: &str| {
        let options = TransferOptions { divide_stem, ..TransferOptions::default() };
        let (network, report) = transfer(file, &config(3, 3), &options, &Device::flex()).unwrap();
        let wide = values(&network);
        for (name, size) in
            [("encoder.stages.0.0.conv1.weight", 27), ("encoder.stages.0.0.skip.weight", 1)]
        {
            for (out, filters) in wide[name].chunks(3 * size).enumerate() {
                for (k, value) in filters.iter().enumerate() {
                    assert_eq!(*value, narrow[name][out * size + k % size] / divisor, "{name}");
                }
            }
        }
        assert_eq!(report.repeated.len(), 2);
        assert!(report.to_string().contains(words), "{report}");
    };
    check(false, 1.0, "2 of the stem repeated for every channel)");
    check(true, 3.0, "divided by 3");
}

#[test]
fn equal_channels_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let file = &files(folder.path(), &network(&config(2, 3)))[0];
    let options = TransferOptions { divide_stem: true, ..TransferOptions::default() };
    let (_, report) = transfer(file, &config(2, 3), &options, &Device::flex()).unwrap();
    assert!(report.repeated.is_empty());
    assert!(!report.divided && report.stem.is_none());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = &files(folder.path(), &network(&config(1, 3)))[1];
    let check = |config: StuNetConfig, without_upsampling: bool, name: &str| {
        let options = TransferOptions { without_upsampling, ..TransferOptions::default() };
        let line = transfer(file, &config, &options, &Device::flex()).unwrap_err().to_string();
        assert!(line.contains(name) && line.ends_with("checkpoint_final.pth"), "{line}");
    };
    let wide = StuNetConfig { width: [2, 2, 3, 3, 4, 5], ..config(1, 3) };
    check(wide, true, "encoder.stages.5.0.conv1.weight");
    let deep = StuNetConfig { depth: [1, 1, 2, 1, 1, 1], ..config(1, 3) };
    check(
        deep,
        false,
        "encoder.stages.2.1.conv1.weight: expected shape [3, 3, 3, 3, 3], found none",
    );
}

/// An upsampling with nothing in the file: nnU-Net 1's rule lets it pass, nnU-Net 2's does not.
#[test]
fn the_two_rules_differ_in_the_upsamplings() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 3));
    let mut weights = Vec::new();
    source.for_each_parameter(&mut |spec, parameter| {
        if spec.name != "decoder.upsample.2.weight" {
            weights.push((spec.name.clone(), parameter.to_data()));
        }
    });
    let state = crate::checkpoint::State {
        config: source.config(),
        progress: Default::default(),
        loss_scale: None,
        optimiser: Default::default(),
        frozen: Vec::new(),
        low_rank: None,
        identity: None,
        run: Default::default(),
    };
    let file = folder.path().join("partial.safetensors");
    crate::checkpoint::save(&file, &state, &[(Group::Weights, weights)]).unwrap();
    let with = |without_upsampling| {
        let options = TransferOptions { without_upsampling, ..TransferOptions::default() };
        transfer(&file, &config(1, 3), &options, &Device::flex())
    };
    let (_, report) = with(true).unwrap();
    assert_eq!(report.initialised, ["decoder.upsample.2.weight"]);
    assert!(with(false).unwrap_err().to_string().contains("decoder.upsample.2.weight"));
}

#[test]
fn heads_are_kept_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 3));
    let expected = values(&source);
    let keep = TransferOptions { keep_heads: true, ..TransferOptions::default() };
    for file in files(folder.path(), &source) {
        let (found, report) = transfer(&file, &config(1, 3), &keep, &Device::flex()).unwrap();
        assert_eq!(values(&found), expected);
        assert!(report.heads.is_empty() && report.copied.len() == expected.len());
        assert!(report.to_string().ends_with("carried over, the heads among them"), "{report}");
        let error = transfer(&file, &config(1, 4), &keep, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("heads.0.weight: expected shape [4,"), "{error}");
    }
}

/// As many labels, and the same names where the file knows them.
#[test]
fn heads_are_kept_for_the_same_labels_only() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 3));
    let labels = |names: &[&str]| LabelSet::from_names(names.iter().copied()).unwrap();
    let (own, other) =
        (labels(&["background", "liver", "tumour"]), labels(&["background", "a", "b"]));
    let all = files(folder.path(), &source);
    let check = |file: &Path, labels: &LabelSet| check_labels(file, labels);
    for file in &all {
        assert!(labels_of(file).unwrap().is_none(), "nothing says so: {}", file.display());
        check(file, &own).unwrap();
        check(file, &other).unwrap();
        let line = check(file, &labels(&["background", "liver"])).unwrap_err().to_string();
        let begin = "heads can be kept for the same labels only: expected 2 labels (background, liver), \
                     found 3 outputs whose labels are not known; leave them out";
        assert!(line.starts_with(begin), "{line}");
    }
    // Each of the places where labels may stand.
    own.save(&all[2].join("labels.json")).unwrap();
    let dataset = serde_json::json!({"labels": {"background": 0, "liver": 1, "tumour": 2}});
    let metadata = V2Metadata {
        init_args: serde_json::json!({ "dataset_json": dataset }),
        ..V2Metadata::default()
    };
    let contents = Contents {
        config: &source.config(),
        parameters: &mut source.source(),
        momentum: None,
        optimiser: SgdRecord::default(),
    };
    writer::write_v2(&all[1], contents, &metadata).unwrap();
    let checkpoint = TrainingCheckpoint::open(&all[3]).unwrap();
    let mut state = checkpoint.state().clone();
    state.run = serde_json::json!({ "about": { "labels": own } });
    let weights = checkpoint.read_all(Group::Weights).unwrap();
    drop(checkpoint);
    crate::checkpoint::save(&all[3], &state, &[(Group::Weights, weights)]).unwrap();
    for file in &all[1..] {
        assert_eq!(labels_of(file).unwrap().as_ref(), Some(&own), "{}", file.display());
        check(file, &own).unwrap();
        let line = check(file, &other).unwrap_err().to_string();
        let lists =
            "expected 3 labels (background, a, b), found 3 labels (background, liver, tumour); ";
        assert!(line.contains(lists) && line.contains(&file.display().to_string()), "{line}");
        let turned = labels(&["background", "tumour", "liver"]);
        assert!(check(file, &turned).is_err(), "the order is that of the outputs");
    }
}

/// Two channels of the file for three of the network, and back.
#[test]
fn the_stem_is_adapted_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(2, 3));
    let file = &files(folder.path(), &source)[2];
    let narrow = values(&source);
    let name = "encoder.stages.0.0.skip.weight";
    let check = |to: usize,
                 stem: StemAdaptation,
                 expected: &dyn Fn(&[f32]) -> Vec<f32>,
                 words: &str| {
        let options = TransferOptions { stem, ..TransferOptions::default() };
        let (network, report) = transfer(file, &config(to, 3), &options, &Device::flex()).unwrap();
        let wide = values(&network);
        for (found, file) in wide[name].chunks(to).zip(narrow[name].chunks(2)) {
            assert_eq!(found, expected(file), "{stem:?} {to}");
        }
        let table = report.table(&network.config()).to_string();
        assert!(table.contains(words), "{table}");
        assert!(
            wide["encoder.stages.1.0.conv1.weight"] == narrow["encoder.stages.1.0.conv1.weight"]
        );
    };
    use StemAdaptation::{Average, First, Repeat};
    check(3, Repeat, &|v| vec![v[0], v[1], v[0]], "for 2 channels repeated for 3");
    check(3, First, &|v| vec![v[0], v[1], 0.0], "for the first 2 of 3 channels, 0 for the others");
    check(1, First, &|v| vec![v[0]], "for the first 1 of 2 channels");
    check(1, Average, &|v| vec![(v[0] + v[1]) / 2.0], "for 2 channels averaged for 1");
    let options = TransferOptions { stem: StemAdaptation::New, ..TransferOptions::default() };
    let (network, report) = transfer(file, &config(1, 3), &options, &Device::flex()).unwrap();
    assert_eq!(report.initialised.len(), 2, "{report}");
    assert_ne!(values(&network)[name][0], narrow[name][0]);
}

/// Labels in another order, one of them new and one gone.
#[test]
fn heads_are_taken_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = network(&config(1, 3));
    let all = files(folder.path(), &source);
    let labels = |names: &[&str]| LabelSet::from_names(names.iter().copied()).unwrap();
    let wanted = labels(&["background", "tumour", "kidney", "liver"]);
    let error = heads_by_name(&all[2], &wanted).unwrap_err().to_string();
    assert!(error.contains("3 outputs whose labels are not known"), "{error}");
    labels(&["background", "liver", "tumour"]).save(&all[2].join("labels.json")).unwrap();
    let rows = heads_by_name(&all[2], &wanted).unwrap();
    assert_eq!(rows, [Some(0), Some(2), None, Some(1)]);
    let options = TransferOptions { head_rows: Some(rows), ..TransferOptions::default() };
    let (found, report) = transfer(&all[2], &config(1, 4), &options, &Device::flex()).unwrap();
    let [found, file] = [&found, &source].map(values);
    for (name, width) in [("decoder.heads.4.weight", 2), ("decoder.heads.0.bias", 1)] {
        let [found, file] =
            [&found[name], &file[name]].map(|v| v.chunks(width).collect::<Vec<_>>());
        assert_eq!([found[0], found[1], found[3]], [file[0], file[2], file[1]], "{name}");
        assert!(!file.contains(&found[2]), "{name}");
    }
    assert!(report.to_string().contains("the heads by name for 3 of 4 outputs"), "{report}");
    let table = report.table(&config(1, 4));
    assert_eq!(table.rows.iter().map(|row| row.new).sum::<usize>(), 0);
    assert!(
        table.to_string().contains("by name, 3 of 4 outputs\nleft out of the file: nothing"),
        "{table}"
    );
}
