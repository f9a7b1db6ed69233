use super::*;
use stunet_model::StuNetConfig;

fn groups() -> Groups {
    let tensor = |values: Vec<f32>| TensorData::new(values, [2, 2]);
    vec![
        (
            Group::Weights,
            vec![
                ("a".to_owned(), tensor(vec![1.0, -0.0, f32::MIN_POSITIVE, 3.5])),
                ("b".to_owned(), TensorData::new(vec![0.1f64, 0.2, 0.3], [3])),
            ],
        ),
        (Group::Momentum, vec![("a".to_owned(), tensor(vec![0.5; 4]))]),
    ]
}

fn state() -> State {
    let progress = Progress { epoch: 3, iteration: 7, next_batch: 757, ..Progress::default() };
    State {
        config: StuNetConfig::small(1, 2),
        progress,
        loss_scale: None,
        optimiser: BTreeMap::new(),
        frozen: Vec::new(),
        low_rank: None,
        identity: None,
        run: serde_json::json!({ "seed": 12345 }),
    }
}

fn saved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LATEST);
    save(&path, &state(), &groups()).unwrap();
    (folder, path)
}

#[test]
fn what_is_saved_returns_bit_for_bit() {
    let (_folder, path) = saved();
    assert!(is_training_checkpoint(&path));
    let checkpoint = TrainingCheckpoint::open(&path).unwrap();
    assert_eq!(*checkpoint.state(), state());
    for (group, tensors) in groups() {
        assert_eq!(checkpoint.read_all(group).unwrap(), tensors);
    }
    assert!(!checkpoint.has(Group::Ema));
    assert_eq!(checkpoint.shape(Group::Weights, "b"), Some(&[3][..]));
    assert!(checkpoint.read(Group::Momentum, "b").is_err());
}

#[test]
fn any_safetensors_reader_reads_it() {
    let (_folder, path) = saved();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("momentum/a").unwrap().shape(), [2, 2]);
}

#[test]
fn every_damaged_byte_is_noticed() {
    let (folder, path) = saved();
    let bytes = std::fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged");
    for at in 0..bytes.len() {
        let mut copy = bytes.clone();
        copy[at] ^= 1;
        std::fs::write(&damaged, &copy).unwrap();
        let error = TrainingCheckpoint::open(&damaged).expect_err(&format!("byte {at}"));
        let line = error.to_string();
        assert!(line.starts_with("expected ") && line.ends_with("damaged"), "{line}");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let (folder, path) = saved();
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut");
    for length in 0..bytes.len() {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        assert!(TrainingCheckpoint::open(&cut).is_err(), "{length} bytes");
    }
    assert!(TrainingCheckpoint::open(&folder.path().join("absent")).is_err());
}

/// A file of version 1, in which parameters had other names, opens under the names of today.
#[test]
fn a_file_of_version_1_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LATEST);
    let tensor = |value| TensorData::new(vec![value; 4], [2, 2]);
    let group = |group, value| (group, vec![("decoder.3.0.skip.bias".to_owned(), tensor(value))]);
    let mut old = vec![group(Group::Weights, 1f32), group(Group::Momentum, 2.0)];
    old[0].1.push(("heads.4.weight".to_owned(), tensor(3.0)));
    save(&path, &state(), &old).unwrap();

    let mut bytes = std::fs::read(&path).unwrap();
    let place = |bytes: &[u8], text: &[u8]| {
        bytes.windows(text.len()).position(|window| window == text).unwrap() + text.len()
    };
    let version = place(&bytes, br#""version":""#);
    assert_eq!(bytes[version], b'2');
    bytes[version] = b'1';
    let crc = place(&bytes, br#""crc32":""#);
    bytes[crc..crc + 8].copy_from_slice(NO_CRC);
    let sum = format!("{:08x}", crc32fast::hash(&bytes[8..]));
    bytes[crc..crc + 8].copy_from_slice(sum.as_bytes());
    std::fs::write(&path, &bytes).unwrap();

    let checkpoint = TrainingCheckpoint::open(&path).unwrap();
    assert_eq!(*checkpoint.state(), state());
    let names: Vec<_> = checkpoint.names(Group::Weights).collect();
    assert_eq!(names, ["decoder.heads.4.weight", "decoder.stages.3.0.skip.bias"]);
    let read = |group, name: &str| checkpoint.read(group, name).unwrap();
    assert_eq!(read(Group::Weights, "decoder.heads.4.weight"), tensor(3.0));
    assert_eq!(read(Group::Momentum, "decoder.stages.3.0.skip.bias"), tensor(2.0));
}

#[test]
fn a_failed_write_leaves_the_old_one() {
    let (folder, path) = saved();
    let before = std::fs::read(&path).unwrap();
    let io = |e| TrainError::io("write", &path, e);
    let failed = atomic::write(&path, io, |file| -> Result<()> {
        file.write_all(b"half").unwrap();
        Err(TrainError::NoMoreBatches(0))
    });
    assert!(failed.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::write(folder.path().join(".stunet-abc.part"), b"left by a killed run").unwrap();
    atomic::sweep(folder.path()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_second_name_keeps_what_it_named() {
    let (folder, path) = saved();
    let best = folder.path().join(BEST);
    for _ in 0..2 {
        assert!(atomic::link(&path, &best));
    }
    let before = std::fs::read(&best).unwrap();
    let later = State { progress: Progress { epoch: 4, ..state().progress }, ..state() };
    save(&path, &later, &groups()).unwrap();
    assert_eq!(std::fs::read(&best).unwrap(), before);
    assert_eq!(TrainingCheckpoint::open(&path).unwrap().state().progress.epoch, 4);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
