use super::*;
use ndarray::Array3;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use stunet_data::geometry::Geometry;
use stunet_data::labels::LabelMap;
use stunet_data::metrics::Bootstrap;
use stunet_data::nifti;

const SHAPE: [usize; 3] = [5, 7, 11];

/// Labels 0 to 3 in runs, as anatomy has them.
fn labels(seed: u64) -> Array3<u16> {
    let drawn = stunet_testing::prng::integers(seed, 0, SHAPE.iter().product(), 8);
    let mut last = 0;
    let values = drawn.into_iter().map(|v| {
        if v < 4 {
            last = v as u16;
        }
        last
    });
    Array3::from_shape_vec(SHAPE, values.collect()).unwrap()
}

fn counted(a: &Array3<u16>, b: &Array3<u16>, class: &Class, ignore: Option<u16>) -> Counts {
    Contingency::of(a.view(), b.view()).counts(class, ignore)
}

/// The definition, voxel by voxel.
fn counted_naively(a: &Array3<u16>, b: &Array3<u16>, class: &Class, ignore: Option<u16>) -> Counts {
    let mut counts = Counts::default();
    for (reference, prediction) in a.iter().zip(b).filter(|(r, _)| Some(**r) != ignore) {
        match (class.holds(*reference), class.holds(*prediction)) {
            (true, true) => counts.true_positives += 1,
            (false, true) => counts.false_positives += 1,
            (true, false) => counts.false_negatives += 1,
            (false, false) => counts.true_negatives += 1,
        }
    }
    counts
}

proptest! {
    #[test]
    fn dice_is_symmetric_and_in_0_to_1(one in 0u64..1000, other in 0u64..1000, label in 0u16..5) {
        let (a, b) = (labels(one), labels(other));
        for class in [Class::Label(label), Class::Region(vec![label, 2])] {
            let (there, back) = (counted(&a, &b, &class, None), counted(&b, &a, &class, None));
            let (dice, iou) = (there.dice(), there.iou());
            prop_assert_eq!(dice.to_bits(), back.dice().to_bits());
            prop_assert_eq!(iou.to_bits(), back.iou().to_bits());
            prop_assert!(dice.is_nan() || (0.0..=1.0).contains(&dice));
            prop_assert!(iou.is_nan() || iou <= dice);
            let same = counted(&a, &a, &class, None).dice();
            prop_assert!(same.is_nan() || same == 1.0);
        }
    }

    #[test]
    fn runs_count_what_voxels_count(one in 0u64..1000, other in 0u64..1000, ignore in 0u16..5) {
        let (a, b) = (labels(one), labels(other));
        let ignore = Some(ignore).filter(|i| *i < 4);
        for class in [Class::Label(0), Class::Label(2), Class::Region(vec![1, 3])] {
            let found = counted(&a, &b, &class, ignore);
            prop_assert_eq!(found, counted_naively(&a, &b, &class, ignore));
            let left = a.iter().filter(|v| Some(**v) != ignore).count() as u64;
            prop_assert_eq!(found.num_voxels(), left);
        }
    }
}

#[test]
fn transposed_views_are_counted_in_place() {
    let (a, b) = (labels(1), labels(2));
    let class = Class::Label(2);
    let turned =
        Contingency::of(a.view().permuted_axes([2, 0, 1]), b.view().permuted_axes([2, 0, 1]));
    assert_eq!(turned.counts(&class, None), counted(&a, &b, &class, None));
    assert_eq!(turned.values(), [0, 1, 2, 3]);
}

#[test]
fn scores_that_do_not_exist_are_nan() {
    let check = |counts: [u64; 4], score: fn(&Counts) -> f64, expected: f64| {
        let [true_positives, false_positives, false_negatives, true_negatives] = counts;
        let counts = Counts { true_positives, false_positives, false_negatives, true_negatives };
        let found = score(&counts);
        assert!(found == expected || found.is_nan() && expected.is_nan(), "{counts:?}: {found}");
    };
    // Nothing in either; only in the prediction; only in the reference; everywhere in both.
    let (neither, predicted, missed, all) =
        ([0, 0, 0, 9], [0, 2, 0, 7], [0, 0, 3, 6], [9, 0, 0, 0]);
    for score in [Counts::dice, Counts::iou, Counts::precision, Counts::recall] {
        check(neither, score, f64::NAN);
        check(all, score, 1.0);
    }
    check(predicted, Counts::dice, 0.0);
    check(predicted, Counts::precision, 0.0);
    check(predicted, Counts::false_discovery_rate, 1.0);
    check(predicted, Counts::recall, f64::NAN);
    check(predicted, Counts::false_negative_rate, f64::NAN);
    check(missed, Counts::dice, 0.0);
    check(missed, Counts::precision, f64::NAN);
    check(missed, Counts::recall, 0.0);
    check(missed, Counts::accuracy, 6.0 / 9.0);
    check(missed, Counts::false_omission_rate, 3.0 / 9.0);
    check(all, Counts::true_negative_rate, f64::NAN);
    check(all, Counts::false_omission_rate, f64::NAN);
    check(neither, Counts::accuracy, 1.0);
}

/// Two folders of labelmaps.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new(references: &[&str], predictions: &[&str]) -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        for (folder, names, seed) in [("ref", references, 0), ("pred", predictions, 100)] {
            std::fs::create_dir(scene.path(folder)).unwrap();
            for (i, name) in names.iter().enumerate() {
                scene.write(&format!("{folder}/{name}"), labels(seed + i as u64), [3.0, 1.0, 0.5]);
            }
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, labels: Array3<u16>, spacing: [f64; 3]) {
        let (z, y, x) = labels.dim();
        let map = LabelMap::new(labels, Geometry::axis_aligned([z, y, x], spacing).unwrap());
        nifti::write_labelmap(&self.path(name), &map.unwrap(), 3).unwrap();
    }

    fn pairs(&self, missing: Missing) -> Result<Vec<Pair>, InferError> {
        pairs(&self.path("ref"), &self.path("pred"), missing)
    }

    fn evaluate(&self) -> Result<Evaluation, InferError> {
        evaluate(&self.pairs(Missing::Refuse)?, &rules(), &|_| ControlFlow::Continue(()))
    }
}

fn rules() -> EvaluationRules {
    EvaluationRules {
        classes: [0, 1, 2, 3].map(Class::Label).to_vec(),
        ..EvaluationRules::default()
    }
}

#[test]
fn pairs_by_name() {
    let scene = Scene::new(&["b.nii", "a.nii.gz", "c.nii"], &["c.nii.gz", "a.nii.gz"]);
    for other in ["pred/plans.json", "pred/._b.nii", "ref/._a.nii.gz"] {
        std::fs::write(scene.path(other), "{}").unwrap();
    }
    let names: Vec<String> =
        scene.pairs(Missing::Skip).unwrap().into_iter().map(|pair| pair.name).collect();
    assert_eq!(names, ["a", "c"]);
    let check = |result: Result<Vec<Pair>, InferError>, words: &str, path: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words) && message.ends_with(path), "{message}");
    };
    check(scene.pairs(Missing::Refuse), "found none for b", "pred");
    scene.write("pred/d.nii", labels(1), [1.0; 3]);
    check(scene.pairs(Missing::Skip), "found none for d", "ref");
    scene.write("ref/a.nii", labels(1), [1.0; 3]);
    check(scene.pairs(Missing::Skip), "a.nii", "ref");
    check(pairs(&scene.path("none"), &scene.path("pred"), Missing::Skip), "cannot read", "none");
    check(Scene::new(&["a.nii"], &[]).pairs(Missing::Skip), "found none", "pred");
    #[cfg(unix)]
    {
        let scene = Scene::new(&["a.nii", "b.nii"], &["a.nii"]);
        std::os::unix::fs::symlink("absent", scene.path("pred/b.nii")).unwrap();
        check(scene.pairs(Missing::Skip), "link leads to is not there", "b.nii");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let scene = Scene::new(&["a.nii", "b.nii", "c.nii"], &["a.nii", "b.nii", "c.nii"]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| scene.evaluate().unwrap())
    };
    let one = run(1);
    assert_eq!(one, run(3));
    assert_eq!(one.cases.iter().map(|c| c.pair.name.as_str()).collect::<String>(), "abc");
    let dice: Vec<f64> = one.cases.iter().map(|case| case.counts[2].dice()).collect();
    assert_eq!(one.mean_dice(2), (dice[0] + dice[1] + dice[2]) / 3.0);
    let means = [1, 2, 3].map(|class| one.mean_dice(class));
    assert_eq!(one.foreground_dice(), (means[0] + means[1] + means[2]) / 3.0);
}

#[test]
fn another_shape_is_refused_and_another_grid_is_noted() {
    let scene = Scene::new(&["a.nii"], &[]);
    scene.write("pred/a.nii", labels(3), [3.0, 1.0, 0.6]);
    let noted = scene.evaluate().unwrap();
    assert!(noted.cases[0].note.as_ref().unwrap().contains("spacing"), "{noted:?}");
    let other = labels(3).slice_move(ndarray::s![.., ..6, ..]);
    scene.write("pred/a.nii", other, [3.0, 1.0, 0.5]);
    let message = scene.evaluate().unwrap_err().to_string();
    assert!(message.contains("expected [5, 7, 11], found [5, 6, 11]"), "{message}");
    assert!(message.ends_with("a.nii"), "{message}");
}

#[test]
fn a_listener_hears_every_case_and_may_stop() {
    let scene = Scene::new(&["a.nii", "b.nii", "c.nii"], &["a.nii", "b.nii", "c.nii"]);
    let pairs = scene.pairs(Missing::Refuse).unwrap();
    let heard = Mutex::new(Vec::new());
    evaluate(&pairs, &rules(), &|counted| {
        heard.lock().unwrap().push((counted.done, counted.total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(*heard.lock().unwrap(), [(1, 3), (2, 3), (3, 3)]);
    let stopped = evaluate(&pairs, &rules(), &|_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(InferError::Interrupted)));
}

#[test]
fn summaries_are_what_python_reads() {
    let scene = Scene::new(&["a.nii"], &["a.nii"]);
    let result = scene.evaluate().unwrap();
    let rules = EvaluationRules {
        classes: vec![Class::Label(1), Class::Label(9)],
        ..EvaluationRules::default()
    };
    let absent = evaluate(&[result.cases[0].pair.clone()], &rules, &|_| ControlFlow::Continue(()));
    let path = scene.path("summary.json");
    let absent = absent.unwrap();
    absent.write_v2(&path).unwrap();
    // People are shown the mean of what there is.
    assert_eq!(absent.dice_of_classes_there(), (absent.mean_dice(0), 1));
    assert_eq!(result.dice_of_classes_there(), (result.foreground_dice(), 0));
    let text = std::fs::read_to_string(&path).unwrap();
    // A class without a voxel: NaN in the case, in its mean, and in the mean of the foreground.
    assert_eq!(text.matches("\"Dice\": NaN").count(), 3, "{text}");
    assert!(text.starts_with("{\n    \"foreground_mean\": {\n        \"Dice\": NaN"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text.replace("NaN", "null")).unwrap();
    let counts = result.cases[0].counts[1];
    let metrics = &json["metric_per_case"][0]["metrics"]["1"];
    assert_eq!(metrics["TP"], counts.true_positives);
    assert_eq!(metrics["Dice"], counts.dice());
    let message = result.write_v2(Path::new("/nowhere/at/all/summary.json")).unwrap_err();
    assert!(message.to_string().starts_with("cannot write"), "{message}");
}

/// An evaluation of one class whose Dice rises from case to case, with one that stands apart.
fn synthetic(num_cases: u64) -> Evaluation {
    let case = |number: u64| CaseCounts {
        pair: Pair {
            name: format!("case{number}"),
            reference: PathBuf::new(),
            prediction: PathBuf::new(),
        },
        counts: vec![Counts {
            true_positives: if number == 0 { 0 } else { 1000 + number },
            false_positives: 100,
            false_negatives: 50,
            true_negatives: 0,
        }],
        voxel_volume_mm3: 2.0,
        surfaces: Vec::new(),
        lesions: Vec::new(),
        note: (number == 0).then(|| "<b>".to_owned()),
    };
    let rules = EvaluationRules { classes: vec![Class::Label(1)], ..EvaluationRules::default() };
    Evaluation { rules, cases: (0..num_cases).map(case).collect() }
}

#[test]
fn a_page_stays_small_and_names_what_stands_apart() {
    let folder = tempfile::tempdir().unwrap();
    let page = |num_cases| {
        let evaluation = synthetic(num_cases);
        let report = EvaluationReport::new(&evaluation, |_| None, Bootstrap::default());
        let path = folder.path().join("report.html");
        report.write_html(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    };
    let small = page(10);
    // Six scores.
    assert_eq!(small.matches("<circle").count(), 6 * 10);
    assert!(small.contains("&lt;b&gt;") && !small.contains("<b>"), "{small}");
    let large = page(6000);
    assert!(large.contains("case0: 0.0000") && large.len() < 200_000, "{}", large.len());
    assert!(large.matches("<circle").count() < 6000);
}

#[test]
fn a_run_compared_with_itself_and_with_a_worse_one() {
    let bootstrap = Bootstrap { resamples: 200, ..Bootstrap::default() };
    let (good, mut bad) = (synthetic(20), synthetic(25));
    bad.cases.iter_mut().for_each(|case| case.counts[0].false_positives = 300);
    let names = || ["a".to_owned(), "b".to_owned()];
    let same = Comparison::new(&good, &good, names(), &bootstrap);
    let dice = |comparison: &Comparison| {
        let (metric, found) = &comparison.differences[0];
        assert_eq!(*metric, Metric::Dice);
        found[0]
    };
    assert_eq!(
        (dice(&same).mean, dice(&same).test.p_value, dice(&same).better),
        (0.0, 1.0, [0, 0])
    );
    let found = Comparison::new(&good, &bad, names(), &bootstrap);
    // The first case has no true voxel in either.
    assert_eq!((found.num_cases, dice(&found).cases, dice(&found).better), (20, 20, [19, 0]));
    assert!(dice(&found).mean > 0.0 && dice(&found).interval.unwrap().low > 0.0);
    assert_eq!(dice(&found).test.p_value, 2.0 / f64::from(1 << 19));
    // Errors are compared by their size: fewer false voxels are better.
    let (metric, errors) = &found.differences[4];
    assert_eq!((*metric, errors[0].better), (Metric::VolumeError, [20, 0]));
}
