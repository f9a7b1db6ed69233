//! Checks of labels against anatomy: hints that a segmentation, or the orientation of its scan, may be
//! wrong.
//!
//! They know the names of TotalSegmentator; of a model with other names those apply that need none:
//! sides that are swapped, by `left` and `right` in names, and labels at the border of the image.
//! Nothing here changes a label, and none of it is a diagnosis: limits are wide, and for adults.

mod volumes;

pub use volumes::{ADULT_VOLUMES, PlausibleVolume};

use crate::geometry::BodySide;
use crate::statistics::{LabelPosition, LabelStatistics};
use serde::Serialize;

/// What is implausible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// A vertebra or a rib lies above one that is above it by its name.
    OutOfOrder,
    /// One is missing between two others.
    Gap,
    /// What is called left lies to the right of what is called right.
    Swapped,
    /// An organ is smaller or larger than in adults.
    Volume,
    /// An organ touches the border of the image, where it may be cut. Structures that mostly go on beyond
    /// a scan (vessels, bowel, bones, muscles) are left out.
    Cut,
}

/// A hint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelWarning {
    /// What it is about.
    pub kind: WarningKind,
    /// The labels it is about, by name.
    pub labels: Vec<String>,
    /// It in words, one line.
    pub message: String,
}

/// Names in a message before the others are counted.
const NAMED: usize = 6;
/// By how much a rib may begin above the one before it.
const RIB_TOLERANCE_MM: f64 = 5.0;

/// Looks at the labels of one case.
///
/// ```
/// use ndarray::Array3;
/// use stunet_data::geometry::Geometry;
/// use stunet_data::labels::{CompactLabelMap, LabelVoxels};
/// use stunet_data::plausibility::{WarningKind, warnings};
/// use stunet_data::statistics::{CaseStatistics, StatisticsInput};
/// // ITK's axes: x runs to the patient's left, so that the first voxels along it are the right.
/// let mut voxels = Array3::<u8>::zeros((5, 5, 9));
/// voxels[[2, 2, 1]] = 1;
/// voxels[[2, 2, 7]] = 2;
/// let geometry = Geometry::axis_aligned([5, 5, 9], [40.0; 3])?;
/// let labels = CompactLabelMap { voxels: LabelVoxels::Bytes(voxels), geometry };
/// let names = [(1, "kidney_left"), (2, "kidney_right")];
/// let found = CaseStatistics::of("a", &labels, &names, StatisticsInput::default())?;
/// let warnings = warnings(&found.labels);
/// assert_eq!(warnings[0].kind, WarningKind::Swapped);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
pub fn warnings(labels: &[LabelStatistics]) -> Vec<LabelWarning> {
    let mut found = Vec::new();
    let height = |position: &LabelPosition| Some(position.centroid_mm.z);
    let vertebrae = vertebrae();
    chain(labels, "vertebra", &vertebrae, &height, 0.0, &mut found);
    // Ribs slope: that of a lower number may end below, but not begin there.
    let top = |position: &LabelPosition| {
        (!position.touches.contains(&BodySide::Superior)).then_some(position.box_mm.z[1])
    };
    for side in ["left", "right"] {
        let ribs: Vec<String> = (1..=12).map(|number| format!("rib_{side}_{number}")).collect();
        chain(labels, "rib", &ribs, &top, RIB_TOLERANCE_MM, &mut found);
    }
    found.extend(swapped(labels));
    found.extend(volumes::implausible(labels));
    found.extend(cut(labels));
    found
}

/// From head to feet.
fn vertebrae() -> Vec<String> {
    let of = |part: char, count: usize| (1..=count).map(move |i| format!("vertebrae_{part}{i}"));
    of('C', 7).chain(of('T', 12)).chain(of('L', 5)).chain(of('S', 1)).collect()
}

/// The label of a name, if it has voxels.
fn present<'a>(
    labels: &'a [LabelStatistics],
    name: &str,
) -> Option<(&'a LabelStatistics, &'a LabelPosition)> {
    let label = labels.iter().find(|label| label.name == name)?;
    Some((label, label.position.as_ref()?))
}

/// A row of bones that is numbered from head to feet.
fn chain(
    labels: &[LabelStatistics],
    what: &str,
    names: &[String],
    height: &dyn Fn(&LabelPosition) -> Option<f64>,
    tolerance_mm: f64,
    found: &mut Vec<LabelWarning>,
) {
    let there: Vec<(usize, Option<f64>)> = (names.iter().enumerate())
        .filter_map(|(place, name)| Some((place, height(present(labels, name)?.1))))
        .collect();
    let known = |name: &&String| labels.iter().any(|label| label.name == **name);
    for pair in there.windows(2) {
        let [(upper, high), (lower, low)] = [pair[0], pair[1]];
        let missing: Vec<String> = names[upper + 1..lower].iter().filter(known).cloned().collect();
        if !missing.is_empty() {
            let verb = if missing.len() == 1 { "is" } else { "are" };
            found.push(LabelWarning {
                kind: WarningKind::Gap,
                message: format!(
                    "a {what} is missing: {} {verb} not there between {} and {}",
                    list(&missing),
                    names[upper],
                    names[lower]
                ),
                labels: missing,
            });
        }
        if high.zip(low).is_some_and(|(high, low)| low > high + tolerance_mm) {
            let message = format!("out of order: {} lies above {}", names[lower], names[upper]);
            let labels = vec![names[upper].clone(), names[lower].clone()];
            found.push(LabelWarning { kind: WarningKind::OutOfOrder, labels, message });
        }
    }
}

/// Pairs by name whose left is the right by place.
fn swapped(labels: &[LabelStatistics]) -> Option<LabelWarning> {
    let is_swapped = |left: &&LabelStatistics| {
        let right = other_side(&left.name).and_then(|name| present(labels, &name));
        let left = left.position.as_ref();
        left.zip(right).is_some_and(|(left, (_, right))| left.centroid_mm.x > right.centroid_mm.x)
    };
    let wrong: Vec<String> =
        labels.iter().filter(is_swapped).map(|label| label.name.clone()).collect();
    (!wrong.is_empty()).then(|| LabelWarning {
        kind: WarningKind::Swapped,
        message: format!(
            "left and right are swapped: {} on the right of the other side; is the orientation in the \
             scan's header true?",
            list(&wrong)
        ),
        labels: wrong,
    })
}

/// The name of the right one of a left one.
fn other_side(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let at = lower.find("left")?;
    let right = if name[at..].starts_with('L') { "Right" } else { "right" };
    Some(format!("{}{right}{}", &name[..at], &name[at + "left".len()..]))
}

/// Labels at the border of the image, but for those that mostly go on beyond it, such as vessels and
/// muscles.
fn cut(labels: &[LabelStatistics]) -> Option<LabelWarning> {
    let touching = |label: &LabelStatistics| {
        PlausibleVolume::of_label(&label.name).is_none_or(|limits| limits.compact).then_some(())?;
        let sides = &label.position.as_ref()?.touches;
        let names: Vec<&str> = sides.iter().map(|side| side.name()).collect();
        (!sides.is_empty()).then(|| (label.name.clone(), names.join(", ")))
    };
    let touching: Vec<(String, String)> = labels.iter().filter_map(touching).collect();
    let told: Vec<String> =
        touching.iter().map(|(name, sides)| format!("{name} ({sides})")).collect();
    (!touching.is_empty()).then(|| LabelWarning {
        kind: WarningKind::Cut,
        message: format!("at the border of the image, where it may be cut: {}", list(&told)),
        labels: touching.into_iter().map(|(name, _)| name).collect(),
    })
}

/// Names with commas; of many the first.
fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
