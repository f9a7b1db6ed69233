use super::*;
use ndarray::s;

/// What `scripts/reference/preprocessed.py` recorded of Blosc2 4.14 and NumPy.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/preprocessed/arrays").join(name)
}

const SHAPE: [usize; 4] = [2, 5, 12, 19];

/// The recorded array, times `factor`.
fn expected(factor: f32) -> Array4<f32> {
    Array4::from_shape_fn(SHAPE, |(c, z, y, x)| match (c, z) {
        (0, 0..3) => 0.0,
        _ => ((7 * c + 5 * z + 3 * y + x) % 11) as f32 * 0.25 * factor - 1.25 * factor,
    })
}

fn noise() -> Array4<f32> {
    let mut state = 12345u32;
    Array4::from_shape_simple_fn(SHAPE, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 9) as f32 / 8_388_608.0
    })
}

/// The whole array, and boxes of it that begin and end anywhere.
fn check(name: &str, expected: &Array4<f32>) {
    let found = ArrayFile::open(&file(name)).unwrap();
    assert_eq!(found.shape(), SHAPE, "{name}");
    assert_eq!(found.read::<f32>([0; 4], SHAPE).unwrap(), expected, "{name}");
    let boxes = [
        ([1, 2, 3, 4], [1, 3, 6, 9]),
        ([0, 4, 11, 18], [2, 1, 1, 1]),
        ([0, 0, 9, 7], [1, 5, 2, 1]),
        ([0, 3, 0, 0], [2, 2, 12, 19]),
    ];
    for (first, size) in boxes {
        let [c, z, y, x] = std::array::from_fn(|a| first[a]..first[a] + size[a]);
        let part = found.read::<f32>(first, size).unwrap();
        assert_eq!(part, expected.slice(s![c, z, y, x]), "{name}, {size:?} from {first:?}");
    }
    assert_eq!(found.read::<f32>([0; 4], [0; 4]).unwrap().len(), 0);
}

#[test]
fn every_form_that_nnunet_writes() {
    for name in ["lz4hc", "lz4hc_shuffled", "zstd_shuffled", "split", "zlib", "blosclz", "many"] {
        check(&format!("{name}.b2nd"), &expected(1.0));
    }
    for name in ["int16.b2nd", "int8.b2nd", "defaults.b2nd", "short.npy"] {
        check(name, &expected(4.0));
        let labels = ArrayFile::open(&file(name)).unwrap().read::<i16>([0; 4], SHAPE).unwrap();
        assert_eq!(labels.mapv(f32::from), expected(4.0), "{name}");
    }
    for name in ["single.npy", "half.npy"] {
        check(name, &expected(1.0));
    }
    for name in ["noise.b2nd", "copied.b2nd"] {
        check(name, &noise());
    }
}

#[test]
fn chunks_of_one_value() {
    check("zeros.b2nd", &Array4::zeros(SHAPE));
    check("full.b2nd", &Array4::from_elem(SHAPE, 2.5));
    let nans = ArrayFile::open(&file("nans.b2nd")).unwrap();
    assert!(nans.read::<f32>([0; 4], SHAPE).unwrap().iter().all(|v| v.is_nan()));
    let message = nans.read::<i16>([0; 4], SHAPE).unwrap_err().to_string();
    assert!(message.contains("whole numbers") && message.ends_with("nans.b2nd"), "{message}");
}

#[test]
fn numbers() {
    let number = |name| ArrayFile::open(&file(name)).unwrap().number();
    assert_eq!(number("int8.b2nd"), Number::Int8);
    assert_eq!(number("half.npy"), Number::Half);
    assert!(number("lz4hc.b2nd").is_float() && !number("defaults.b2nd").is_float());
}

#[test]
fn what_nnunet_does_not_write_is_refused_by_name() {
    let refused = |name: &str, words: &str| {
        let found = ArrayFile::open(&file(name)).and_then(|f| f.read::<f32>([0; 4], SHAPE));
        let message = found.unwrap_err().to_string();
        assert!(message.contains(words) && message.ends_with(name), "{message}");
    };
    refused("bits.b2nd", "found filter 2");
    refused("none.b2nd", "no such file");
    let fraction = ArrayFile::open(&file("single.npy")).unwrap();
    assert!(fraction.read::<i16>([0; 4], SHAPE).is_err(), "labels have no fraction");
    let beyond = fraction.read::<f32>([0, 0, 0, 1], SHAPE).unwrap_err().to_string();
    assert!(beyond.contains("a box within [2, 5, 12, 19]"), "{beyond}");
}

/// Cut anywhere, and with any byte changed: an error or other values, and never a panic.
#[test]
fn damaged_files() {
    let home = tempfile::tempdir().unwrap();
    for name in ["lz4hc_shuffled.b2nd", "zstd_shuffled.b2nd", "zeros.b2nd", "half.npy"] {
        let whole = std::fs::read(file(name)).unwrap();
        let path = home.path().join(name);
        let mut refused = 0;
        let mut tried = 0;
        let mut attempt = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let found = ArrayFile::open(&path).and_then(|f| f.read::<f32>([0; 4], f.shape()));
            refused += usize::from(found.is_err());
            tried += 1;
            found.is_err()
        };
        for length in (0..whole.len()).step_by(whole.len() / 100) {
            // Behind the list of chunks stands what is not needed.
            assert!(attempt(&whole[..length]) || length + 64 > whole.len(), "{name} to {length}");
        }
        for at in (0..whole.len().min(600)).chain((600..whole.len()).step_by(97)) {
            for change in [0xff, 1] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                attempt(&bytes);
            }
        }
        assert!(refused > tried / 10, "{name}: {refused} of {tried}");
    }
}
