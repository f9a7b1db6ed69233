use super::*;
use crate::sample::{MemoryCase, TrainingCase};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const STRIDES: [[usize; 3]; 3] = [[2, 2, 2], [1, 2, 2], [2, 2, 2]];

fn cases() -> Vec<MemoryCase> {
    let make = |i: u64| {
        let shape = [14 + i as usize, 20, 18];
        let [z, y, x] = shape;
        let image = stunet_testing::prng::uniform(i, 0, z * y * x);
        let mut labels = Array3::from_elem(shape, 0);
        labels[[3, 4, 5 + i as usize]] = 1;
        labels[[9, 15, 2]] = 2;
        labels[[0, 0, 0]] = -1;
        let image = Array4::from_shape_vec([1, z, y, x], image).unwrap();
        MemoryCase::new(format!("case {i}"), image, labels).unwrap()
    };
    (0..3).map(make).collect()
}

fn config(num_threads: usize) -> LoaderConfig {
    let augmentation = Augmentation::v1([8, 12, 10]);
    LoaderConfig { seed: 5, num_threads, ..LoaderConfig::new(augmentation, 3, &STRIDES) }
}

fn expected(config: &LoaderConfig, range: std::ops::Range<u64>) -> Vec<TrainingBatch> {
    let cases = cases();
    range.map(|k| batch(&cases, config, k).unwrap()).collect()
}

#[test]
fn threads_and_restarts_do_not_matter() {
    let expected = expected(&config(1), 0..12);
    assert!(expected.windows(2).all(|pair| pair[0] != pair[1]), "every batch is another");
    for threads in [1, 2, 7] {
        for queue in [1, 5] {
            let config = LoaderConfig { queue, ..config(threads) };
            for start in [0, 4] {
                let loader = Loader::start(Arc::new(cases()), config.clone(), start);
                let found = loader.take(12 - start as usize).collect::<Result<Vec<_>>>().unwrap();
                assert_eq!(found, expected[start as usize..], "{threads} threads from {start}");
            }
        }
    }
}

#[test]
fn the_seed_matters() {
    let cases = cases();
    let other = LoaderConfig { seed: 6, ..config(1) };
    assert_ne!(batch(&cases, &config(1), 0).unwrap(), batch(&cases, &other, 0).unwrap());
}

#[test]
fn patches_have_targets_at_every_scale() {
    for batch in expected(&config(1), 0..20) {
        for (i, patch) in batch.patches.iter().enumerate() {
            assert_eq!(patch.index, batch.index * 3 + i as u64);
            assert_eq!(patch.image.shape(), [1, 8, 12, 10]);
            let shapes: Vec<_> = patch.targets.iter().map(|t| t.shape().to_vec()).collect();
            assert_eq!(shapes, [[8, 12, 10], [4, 6, 5], [4, 3, 2]]);
            assert!(patch.targets.iter().flatten().all(|l| (0..=2).contains(l)));
        }
    }
}

/// Without augmentation the drawn voxel is still in the patch.
#[test]
fn forced_patches_show_foreground() {
    let augmentation = Augmentation::none([4, 4, 4]);
    let config = LoaderConfig::new(augmentation, 3, &STRIDES);
    let cases = cases();
    let mut free = 0;
    for index in 0..60 {
        let batch = batch(&cases, &config, index).unwrap();
        let shows = |i: usize| batch.patches[i].targets[0].iter().any(|l| *l > 0);
        assert!(shows(2), "the last of three is forced");
        free += usize::from(shows(0)) + usize::from(shows(1));
    }
    assert!(free < 60, "free patches of 4 x 4 x 4 rarely show one of two voxels: {free}");
}

/// Counts what is opened, and may refuse, fail or be slow.
struct Watched {
    cases: Vec<MemoryCase>,
    opened: Arc<AtomicUsize>,
    bad: Option<usize>,
    delay: Duration,
    panics: bool,
}

impl Watched {
    fn new(delay: Duration) -> (Self, Arc<AtomicUsize>) {
        let opened = Arc::new(AtomicUsize::new(0));
        let watched =
            Self { cases: cases(), opened: opened.clone(), bad: None, delay, panics: false };
        (watched, opened)
    }
}

impl TrainingCases for Watched {
    fn len(&self) -> usize {
        self.cases.len()
    }

    fn open(&self, index: usize) -> Result<Box<dyn TrainingCase + '_>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.delay);
        assert!(!self.panics, "a bug");
        if self.bad == Some(index) {
            return Err(DataError::NotFound);
        }
        self.cases.open(index)
    }

    fn name(&self, index: usize) -> String {
        self.cases.name(index)
    }
}

#[test]
fn an_error_names_its_case_and_others_go_on() {
    let (mut watched, _) = Watched::new(Duration::ZERO);
    watched.bad = Some(1);
    let found: Vec<_> = Loader::start(Arc::new(watched), config(2), 0).take(40).collect();
    let expected = expected(&config(1), 0..40);
    let mut failed = 0;
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.into_iter().zip(expected) {
        let touches = expected.patches.iter().any(|p| p.case == "case 1");
        match found {
            Ok(batch) => assert_eq!((batch, touches), (expected, false)),
            Err(error) => {
                assert!(touches);
                assert_eq!(error.to_string(), "case case 1: no such file or folder");
                failed += 1;
            }
        }
    }
    assert!((1..40).contains(&failed), "{failed}");
}

#[test]
fn malformed_and_missing_cases_are_errors() {
    let none: Vec<MemoryCase> = Vec::new();
    let error = batch(&none, &config(1), 0).unwrap_err();
    assert_eq!(error.to_string(), "no training cases: expected at least one");
    let image = Array4::zeros([1, 4, 4, 4]);
    let error = MemoryCase::new("a", image, Array3::zeros([4, 4, 5])).unwrap_err();
    assert!(error.to_string().contains("[4, 4, 4]"), "{error}");
}

#[test]
#[should_panic(expected = "a bug")]
fn a_panic_is_passed_on() {
    let (mut watched, _) = Watched::new(Duration::ZERO);
    watched.panics = true;
    let _ = Loader::start(Arc::new(watched), config(2), 0).next();
}

#[test]
fn the_queue_is_bounded_and_dropping_stops() {
    let delay = Duration::from_millis(20);
    let (watched, opened) = Watched::new(delay);
    let watched: Arc<Watched> = Arc::new(watched);
    let config = LoaderConfig { queue: 4, ..config(2) };
    let mut loader = Loader::start(watched.clone(), config, 0);
    loader.next().unwrap().unwrap();
    // Long enough for everything that may be asked for: four batches ahead of the second.
    while opened.load(Ordering::SeqCst) < 15 {
        std::thread::sleep(delay);
    }
    std::thread::sleep(10 * delay);
    assert_eq!(opened.load(Ordering::SeqCst), 15);
    loader.next().unwrap().unwrap();
    drop(loader);
    assert!(opened.load(Ordering::SeqCst) <= 18);
    assert_eq!(Arc::strong_count(&watched), 1, "no thread holds the cases");
}

#[test]
fn dropping_does_not_do_the_work_that_is_left() {
    // So long that this thread is run again before any of the others has done its first case.
    let (watched, opened) = Watched::new(Duration::from_secs(1));
    let config = LoaderConfig { queue: 100, ..config(2) };
    drop(Loader::start(Arc::new(watched), config, 0));
    assert!(opened.load(Ordering::SeqCst) <= 2, "two threads were at it");
}
