use super::*;
use crate::geometry::Geometry;
use crate::labels::{CompactLabelMap, LabelSet, LabelVoxels};
use crate::statistics::{CaseStatistics, StatisticsInput};
use ndarray::{Array3, s};

/// A body of voxels of 10 mm: 60 along z, 20 along y and 40 along x, whose x runs to the left.
struct Body {
    labels: CompactLabelMap,
    set: LabelSet,
}

impl Body {
    fn empty() -> Self {
        let geometry = Geometry::axis_aligned([60, 20, 40], [10.0; 3]).unwrap();
        let voxels = LabelVoxels::Words(Array3::zeros((60, 20, 40)));
        Self { labels: CompactLabelMap { voxels, geometry }, set: LabelSet::totalsegmentator() }
    }

    /// Puts a box `[from, to)` of z, y, x.
    fn with(mut self, name: &str, from: [usize; 3], to: [usize; 3]) -> Self {
        let value = self.set.choose([name]).unwrap().into_iter().next().unwrap();
        let LabelVoxels::Words(voxels) = &mut self.labels.voxels else { unreachable!("words") };
        voxels.slice_mut(s![from[0]..to[0], from[1]..to[1], from[2]..to[2]]).fill(value);
        self
    }

    /// Vertebrae of one voxel in height from the top, by name.
    fn spine(mut self, names: &[&str]) -> Self {
        for (index, name) in names.iter().enumerate() {
            let z = 50 - 2 * index;
            self = self.with(name, [z, 11, 18], [z + 1, 16, 23]);
        }
        self
    }

    fn warnings(&self) -> Vec<LabelWarning> {
        let names = self.set.painted();
        let found =
            CaseStatistics::of("a", &self.labels, &names, StatisticsInput::default()).unwrap();
        warnings(&found.labels)
    }

    fn check(&self, expected: &[(WarningKind, &str)]) {
        let found = self.warnings();
        let kinds: Vec<WarningKind> = found.iter().map(|warning| warning.kind).collect();
        let wanted: Vec<WarningKind> = expected.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, wanted, "{found:#?}");
        for (warning, (_, words)) in found.iter().zip(expected) {
            assert!(warning.message.contains(words), "{words:?} not in {:?}", warning.message);
        }
    }
}

#[test]
fn a_good_body() {
    let good = Body::empty()
        .spine(&["vertebrae_T11", "vertebrae_T12", "vertebrae_L1", "vertebrae_L2"])
        .with("liver", [20, 3, 3], [35, 10, 15])
        .with("kidney_left", [20, 10, 26], [28, 14, 30])
        .with("kidney_right", [18, 10, 10], [26, 14, 14]);
    good.check(&[]);
    Body::empty().check(&[]);
}

#[test]
fn vertebrae_out_of_order_and_missing() {
    use WarningKind::{Gap, OutOfOrder};
    let spine = |names: &[&str]| Body::empty().spine(names);
    spine(&["vertebrae_L1", "vertebrae_T12"])
        .check(&[(OutOfOrder, "vertebrae_L1 lies above vertebrae_T12")]);
    spine(&["vertebrae_T10", "vertebrae_T12"])
        .check(&[(Gap, "vertebrae_T11 is not there between vertebrae_T10 and vertebrae_T12")]);
    spine(&["vertebrae_C7", "vertebrae_T3"])
        .check(&[(Gap, "vertebrae_T1, vertebrae_T2 are not there")]);
    let both = spine(&["vertebrae_T12", "vertebrae_T10"]);
    both.check(&[(Gap, "vertebrae_T11"), (OutOfOrder, "vertebrae_T12 lies above vertebrae_T10")]);
}

#[test]
fn ribs_slope() {
    use WarningKind::{Gap, OutOfOrder};
    // The eighth ends below the ninth, and begins above it.
    let sloping = Body::empty().with("rib_left_8", [20, 5, 30], [40, 6, 31]).with(
        "rib_left_9",
        [30, 5, 33],
        [38, 6, 34],
    );
    sloping.check(&[]);
    let swapped = Body::empty().with("rib_left_9", [20, 5, 30], [40, 6, 31]).with(
        "rib_left_8",
        [30, 5, 33],
        [38, 6, 34],
    );
    swapped.check(&[(OutOfOrder, "rib_left_9 lies above rib_left_8")]);
    let gap = Body::empty().with("rib_right_4", [40, 5, 5], [42, 6, 7]).with(
        "rib_right_6",
        [30, 5, 5],
        [32, 6, 7],
    );
    gap.check(&[(Gap, "a rib is missing: rib_right_5 is not there")]);
}

#[test]
fn left_on_the_right() {
    let wrong = Body::empty().with("kidney_right", [20, 10, 26], [28, 14, 30]).with(
        "kidney_left",
        [18, 10, 10],
        [26, 14, 14],
    );
    wrong.check(&[(WarningKind::Swapped, "swapped: kidney_left on the right")]);
    // The same voxels under a header that says that x runs to the right.
    let affine =
        [[10.0, 0.0, 0.0, 0.0], [0.0, 10.0, 0.0, 0.0], [0.0, 0.0, 10.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
    let geometry = Geometry::from_world_from_voxel([60, 20, 40], &affine).unwrap();
    let labels = CompactLabelMap { geometry, ..wrong.labels };
    Body { labels, ..wrong }.check(&[]);
    assert_eq!(other_side("Left kidney").as_deref(), Some("Right kidney"));
    assert_eq!(other_side("kidney_left").as_deref(), Some("kidney_right"));
    assert_eq!(other_side("liver"), None);
}

#[test]
fn volumes_of_adults() {
    use WarningKind::{Cut, Volume};
    // 20 × 16 × 30 voxels of a millilitre.
    let large = Body::empty().with("liver", [20, 2, 5], [40, 18, 35]);
    large.check(&[(Volume, "liver is large for an adult: 9600 ml, expected at most 5000 ml")]);
    let small = Body::empty().with("liver", [20, 2, 5], [22, 4, 7]);
    small.check(&[(Volume, "liver is small for an adult: 8.0 ml, expected at least 400 ml")]);
    // What is cut may be small.
    let cut = Body::empty().with("liver", [58, 2, 0], [60, 4, 2]);
    cut.check(&[(Cut, "liver (right, superior)")]);
    // Vessels and bones go on.
    let long = Body::empty().with("aorta", [20, 10, 20], [60, 11, 21]);
    long.check(&[]);
}

#[test]
fn models_with_other_names() {
    let set = LabelSet::from_names(["background", "tumour left", "tumour right", "rest"]).unwrap();
    let body = Body { set, ..Body::empty() }
        .with("tumour right", [20, 10, 26], [28, 14, 30])
        .with("tumour left", [18, 10, 10], [26, 14, 14])
        .with("rest", [0, 0, 0], [1, 1, 1]);
    use WarningKind::{Cut, Swapped};
    body.check(&[(Swapped, "tumour left"), (Cut, "rest (right, anterior, inferior)")]);
}

#[test]
fn many_are_counted() {
    let names: Vec<String> = (0..9).map(|i| i.to_string()).collect();
    assert_eq!(list(&names), "0, 1, 2, 3, 4, 5 and 3 more");
    assert_eq!(list(&names[..2]), "0, 1");
}
