use super::*;
use crate::geometry::Geometry;
use crate::geometry::Leniency;
use crate::image::Image;
use crate::labels::{LabelMap, LabelSet};
use crate::nifti;
use crate::preprocess::preprocess_with_labels;
use ndarray::{Array3, Array4};
use std::path::PathBuf;
use std::time::Duration;

/// A raw dataset of a few small cases, and a folder for its store.
struct Scene {
    home: tempfile::TempDir,
    sources: Vec<TrainingCaseFiles>,
}

impl Scene {
    fn new(names: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut scene = Self { home, sources: Vec::new() };
        for (seed, name) in names.iter().enumerate() {
            let image = scene.path(&format!("{name}_0000.nii"));
            let labels = scene.path(&format!("{name}.nii"));
            nifti::write_image(&image, &volume(seed as u64)).unwrap();
            scene.write_labels(name, seed as u64 + 100);
            scene.sources.push(TrainingCaseFiles {
                name: (*name).to_owned(),
                images: vec![image],
                labels,
            });
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write_labels(&self, name: &str, seed: u64) {
        let drawn = stunet_testing::prng::integers(seed, 1, 6 * 8 * 10, 3);
        let drawn = drawn.into_iter().map(|v| v as u16).collect();
        let data = Array3::from_shape_vec([6, 8, 10], drawn).unwrap();
        let map = LabelMap::new(data, geometry()).unwrap();
        nifti::write_labelmap(&self.path(&format!("{name}.nii")), &map, 2).unwrap();
    }

    fn fill(&self, options: &FillOptions) -> FillReport {
        self.fill_with(&plans(), options, &|_| ControlFlow::Continue(())).unwrap()
    }

    fn fill_with(
        &self,
        plans: &Plans,
        options: &FillOptions,
        on_event: &(dyn Fn(FillEvent<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<FillReport> {
        let info = DatasetInfo {
            leniency: Leniency::default(),
            reader: Default::default(),
            channel_names: vec!["CT".to_owned()],
            labels: LabelSet::numbered(3).unwrap(),
            file_ending: ".nii".to_owned(),
        };
        fill(&self.path("store"), plans, (&info, &self.sources), options, on_event)
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store")).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(&format!("store/{name}.safetensors"))).unwrap()
    }
}

fn geometry() -> Geometry {
    Geometry::axis_aligned([6, 8, 10], [3.0, 2.0, 1.0]).unwrap()
}

fn volume(seed: u64) -> Image {
    let values = stunet_testing::prng::uniform(seed, 0, 480);
    Image::new(Array4::from_shape_vec((1, 6, 8, 10), values).unwrap(), geometry()).unwrap()
}

fn plans() -> Plans {
    Plans::totalsegmentator()
}

/// What became of every case: `w`ritten, `k`ept, `f`ailed.
fn outcomes(report: &FillReport) -> String {
    let letter = |(_, outcome): &(String, Outcome)| match outcome {
        Outcome::Written { .. } => 'w',
        Outcome::Kept => 'k',
        Outcome::Failed(_) => 'f',
    };
    report.cases.iter().map(letter).collect()
}

#[test]
fn a_stored_case_is_the_preprocessed_one() {
    let scene = Scene::new(&["b", "a"]);
    assert_eq!(outcomes(&scene.fill(&FillOptions::default())), "ww");
    let store = scene.store();
    assert_eq!(store.names(), ["a", "b"]);
    for source in &scene.sources {
        let image = nifti::read_image(&source.images).unwrap();
        let map = nifti::read_labelmap(&source.labels).unwrap();
        let (expected, labels) = preprocess_with_labels(&image, Some(&map), &plans()).unwrap();
        let case = store.find(&source.name).unwrap();
        assert_eq!(case.image(), expected.image);
        assert_eq!(case.labels(), labels);
        assert_eq!(case.trace(), &expected.trace);
        for label in [1, 2] {
            let voxels = case.locations().get(label);
            assert!(!voxels.is_empty());
            let holds = |v: &[u32; 3]| labels[v.map(|i| i as usize)] == label as i16;
            assert!(voxels.iter().all(holds));
        }
    }
}

#[test]
fn files_depend_on_neither_workers_nor_memory() {
    let scene = Scene::new(&["a", "b", "c", "d"]);
    let run = |num_workers, memory_bytes| {
        let options =
            FillOptions { num_workers, memory_bytes, redo: true, ..FillOptions::default() };
        assert_eq!(outcomes(&scene.fill(&options)), "wwww");
        ["a", "b", "c", "d"].map(|name| scene.bytes(name))
    };
    let alone = run(1, 1 << 30);
    assert_eq!(alone, run(3, 1 << 30));
    assert_eq!(alone, run(3, 1), "too little memory for any case: one after the other");
}

#[test]
fn finished_cases_are_kept_until_something_changes() {
    let scene = Scene::new(&["a", "b"]);
    let options = FillOptions::default();
    assert_eq!(outcomes(&scene.fill(&options)), "ww");
    let before = scene.bytes("a");
    assert_eq!(outcomes(&scene.fill(&options)), "kk");
    assert_eq!(outcomes(&scene.fill(&FillOptions { redo: true, ..options })), "ww");
    assert_eq!(scene.bytes("a"), before);

    scene.write_labels("b", 77);
    assert_eq!(outcomes(&scene.fill(&options)), "kw", "labels were corrected");
    std::fs::write(scene.path("store/a.safetensors"), &before[..before.len() - 9]).unwrap();
    assert_eq!(outcomes(&scene.fill(&options)), "wk", "a file was cut short");
    let mut bent = before.clone();
    *bent.last_mut().unwrap() ^= 1;
    std::fs::write(scene.path("store/a.safetensors"), bent).unwrap();
    assert_eq!(outcomes(&scene.fill(&options)), "wk", "a bit was flipped");
    assert_eq!(scene.bytes("a"), before);

    let go = |_: FillEvent<'_>| ControlFlow::Continue(());
    let patch = Plans { patch_size: [64; 3], ..plans() };
    assert_eq!(outcomes(&scene.fill_with(&patch, &options, &go).unwrap()), "kk");
    let spacing = Plans { spacing_mm: [2.0; 3], ..plans() };
    assert_eq!(outcomes(&scene.fill_with(&spacing, &options, &go).unwrap()), "ww");
    assert_eq!(scene.store().find("a").unwrap().image().shape(), [1, 9, 8, 5]);
}

#[test]
fn a_bad_case_is_named_and_the_others_go_on() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"]);
    let bytes = std::fs::read(&scene.sources[1].images[0]).unwrap();
    std::fs::write(&scene.sources[1].images[0], &bytes[..bytes.len() - 40]).unwrap();
    scene.sources[2].labels = scene.path("absent.nii");
    let other = Geometry::axis_aligned([6, 8, 10], [3.0, 2.0, 1.5]).unwrap();
    let map = LabelMap::new(Array3::zeros([6, 8, 10]), other).unwrap();
    nifti::write_labelmap(&scene.sources[3].labels, &map, 2).unwrap();
    let report = scene.fill(&FillOptions::default());
    assert_eq!(outcomes(&report), "wfffw");
    assert_eq!(scene.store().names(), ["a", "e"]);
    assert_eq!(scene.store().unfinished(), ["b", "c", "d"]);
    let told: Vec<(&str, String)> = report.failures().map(|(c, e)| (c, e.to_string())).collect();
    assert_eq!(told.len(), 3);
    for ((case, message), (name, words, file)) in told.iter().zip([
        ("b", "truncated", "b_0000.nii"),
        ("c", "no such file", "absent.nii"),
        ("d", "spacing differs", "d.nii"),
    ]) {
        assert!(*case == name && message.contains(words), "{message}");
        assert!(message.ends_with(file), "{message}");
    }
}

#[test]
fn interrupted_and_continued() {
    let scene = Scene::new(&["a", "b", "c"]);
    let options = FillOptions { num_workers: 1, ..FillOptions::default() };
    let after_the_first = |event: FillEvent<'_>| match event {
        FillEvent::Done { done, total, .. } => {
            assert_eq!((done, total), (1, 3));
            ControlFlow::Break(())
        }
        FillEvent::Started { .. } => ControlFlow::Continue(()),
    };
    let report = scene.fill_with(&plans(), &options, &after_the_first).unwrap();
    assert!(report.interrupted);
    assert_eq!(outcomes(&report), "w");
    // A case in work is dropped, too.
    let at_once = |event: FillEvent<'_>| match event {
        FillEvent::Started { case: "b" } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let report = scene.fill_with(&plans(), &options, &at_once).unwrap();
    assert!(report.interrupted);
    assert_eq!(scene.store().names(), ["a"]);
    assert_eq!(outcomes(&scene.fill(&options)), "kww");
}

#[test]
fn leftovers_of_a_killed_program_go_away() {
    let scene = Scene::new(&["a"]);
    std::fs::create_dir(scene.path("store")).unwrap();
    std::fs::write(scene.path("store/.stunet-x1y2.tmp"), b"half a case").unwrap();
    std::fs::write(scene.path("store/notes.tmp"), b"not ours").unwrap();
    scene.fill(&FillOptions::default());
    assert!(!scene.path("store/.stunet-x1y2.tmp").exists());
    assert!(scene.path("store/notes.tmp").exists());
}

#[test]
fn two_programs_do_not_fill_one_folder() {
    let scene = Scene::new(&["a"]);
    std::fs::create_dir(scene.path("store")).unwrap();
    let held = lock(&scene.path("store")).unwrap();
    let go = |_: FillEvent<'_>| ControlFlow::Continue(());
    let refused = scene.fill_with(&plans(), &FillOptions::default(), &go).unwrap_err();
    assert!(refused.to_string().starts_with("another program is preprocessing"), "{refused}");
    assert!(!scene.path("store/store.json").exists());
    drop(held);
    assert_eq!(outcomes(&scene.fill(&FillOptions::default())), "w");
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_a_link_is_not_followed() {
    let scene = Scene::new(&["a"]);
    std::fs::create_dir(scene.path("store")).unwrap();
    std::os::unix::fs::symlink(scene.path("elsewhere"), scene.path("store/.stunet-lock")).unwrap();
    let message = lock(&scene.path("store")).unwrap_err().to_string();
    assert!(message.contains("found a link"), "{message}");
    assert!(!scene.path("elsewhere").exists());
}

#[test]
fn memory_is_handed_out_as_it_comes_back() {
    let budget = Budget::new(10);
    let first = budget.take(8);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (budget, order) = (&budget, &order);
        scope.spawn(move || {
            let _all = budget.take(99);
            guard(order).push("large");
        });
        while budget.queue.try_lock().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        scope.spawn(move || {
            let _little = budget.take(1);
            guard(order).push("small");
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(guard(order).is_empty(), "the small one does not overtake");
        drop(first);
    });
    assert_eq!(*guard(&order), ["large", "small"]);
    assert_eq!(*guard(&budget.free), 10);
}

#[test]
fn the_estimate_is_above_what_the_arrays_take() {
    let scene = Scene::new(&["a"]);
    let bytes = memory_of(&scene.sources[0], &plans(), Leniency::default()).unwrap();
    let (raw, result) = (6 * 8 * 10, 12 * 11 * 7);
    // Volume, labels, marked labels, mask; a pass in single precision; image and labels.
    assert!(bytes >= raw * (4 + 2 + 2 + 1) + result * 4 + result * (4 + 2), "{bytes}");
}

/// Before it is read: a header may promise more voxels than the machine has memory.
#[test]
fn a_case_that_is_larger_than_memory_is_named_and_the_others_go_on() {
    let scene = Scene::new(&["a", "b"]);
    let needed = memory_of(&scene.sources[0], &plans(), Leniency::default()).unwrap();
    let check = |limit_bytes: u64, expected: &str| {
        let options = FillOptions { limit_bytes, redo: true, ..FillOptions::default() };
        let report = scene.fill(&options);
        assert_eq!(outcomes(&report), expected);
        for (_, error) in report.failures() {
            let line = error.to_string();
            assert!(line.starts_with("memory: this case needs about"), "{line}");
        }
    };
    check(needed - 1, "ff");
    check(u64::MAX, "ww");
}
