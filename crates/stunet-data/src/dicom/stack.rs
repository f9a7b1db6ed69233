//! Slices to a grid: their order, their distances, and what is wrong with them.
//!
//! Only positions and orientations count; file names, `InstanceNumber`, `SliceThickness` and
//! `SliceLocation` do not.

use super::header::Frame;
use crate::error::Result;
use crate::geometry::Geometry;

/// A slice of a series.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// Which of the series' images, and which of its frames.
    pub image: usize,
    pub frame: usize,
    /// What people call it: its `InstanceNumber`, or the number of its frame.
    pub number: i64,
    /// Rows and columns.
    pub size: [usize; 2],
    pub place: Frame,
}

/// Slices in their order along the normal.
#[derive(Debug)]
pub(super) struct Stack {
    pub slices: Vec<Slice>,
    /// Along the normal, in mm, rising.
    heights: Vec<f64>,
    /// Between neighbours, in mm: the mean, or the median where it is not the same everywhere.
    spacing: f64,
    /// What is said of distances that differ.
    pub uneven: Option<Uneven>,
}

/// Distances that differ.
#[derive(Clone, Debug)]
pub(super) struct Uneven {
    /// Where, for people.
    pub what: String,
    /// Whether slices between may be made up: the widest gap is at most two and a half distances.
    pub safe: bool,
}

/// Largest difference of the components of two unit vectors that count as one.
const SAME_DIRECTION: f64 = 1e-3;
/// Largest part of a distance between slices by which one may lie beside its place.
const SAME_PLACE: f64 = 0.1;
/// Distance between slices that count as lying on each other, in mm.
const ON_EACH_OTHER: f64 = 1e-3;
/// The widest gap that is filled, in distances between slices.
const WIDEST: f64 = 2.5;

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn minus(a: &[f64; 3], b: &[f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| a[i] - b[i])
}

fn unit(v: [f64; 3]) -> [f64; 3] {
    let length = dot(&v, &v).sqrt();
    v.map(|v| v / length)
}

/// Unit vectors along a row, a column and the normal, at right angles.
fn axes(place: &Frame) -> [[f64; 3]; 3] {
    let [row, column] = place.along;
    let row = unit(row);
    let along = dot(&row, &column);
    let column = unit(std::array::from_fn(|i| column[i] - along * row[i]));
    let normal = std::array::from_fn(|i| {
        let (j, k) = ((i + 1) % 3, (i + 2) % 3);
        row[j] * column[k] - row[k] * column[j]
    });
    [row, column, normal]
}

fn vector(v: &[f64; 3]) -> String {
    format!("({:.2}, {:.2}, {:.2})", v[0], v[1], v[2])
}

/// Puts slices into their order.
///
/// # Errors
/// A sentence on what keeps them from being one volume, and where.
pub(super) fn stack(mut slices: Vec<Slice>) -> std::result::Result<Stack, String> {
    let first = slices.first().ok_or("no slices")?.clone();
    check_alike(&slices, &first)?;
    let [.., normal] = axes(&first.place);
    let height = |slice: &Slice| dot(&slice.place.position, &normal);
    slices.sort_by(|a, b| height(a).total_cmp(&height(b)));
    let heights: Vec<f64> = slices.iter().map(height).collect();
    if slices.len() < 2 {
        return Err("expected at least two slices, found one".to_owned());
    }
    let steps: Vec<f64> = heights.windows(2).map(|pair| pair[1] - pair[0]).collect();
    check_doubled(&slices, &steps)?;
    check_tilt(&slices, normal)?;
    let last = slices.len() - 1;
    let between = minus(&slices[last].place.position, &slices[0].place.position);
    let mean = dot(&between, &between).sqrt() / last as f64;
    let even =
        (0..=last).all(|i| (heights[i] - heights[0] - mean * i as f64).abs() <= SAME_PLACE * mean);
    let uneven = (!even).then(|| uneven(&slices, &steps));
    let spacing = if even { mean } else { median(&steps) };
    Ok(Stack { slices, heights, spacing, uneven })
}

fn differs(a: &[f64], b: &[f64], most: f64) -> bool {
    a.iter().zip(b).any(|(a, b)| (a - b).abs() > most)
}

/// Whether slices run in several orientations of which none has more than half of them.
pub(super) fn is_mixed(slices: &[Slice]) -> bool {
    let mut kinds: Vec<(&Frame, usize)> = Vec::new();
    for slice in slices {
        let same = |(of, _): &&mut (&Frame, usize)| {
            (0..2).all(|i| !differs(&of.along[i], &slice.place.along[i], SAME_DIRECTION))
        };
        match kinds.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => kinds.push((&slice.place, 1)),
        }
        // A walk around the patient: projections.
        if kinds.len() > 16 {
            return true;
        }
    }
    kinds.len() > 1 && kinds.iter().all(|(_, count)| 2 * count <= slices.len())
}

fn check_alike(slices: &[Slice], first: &Slice) -> std::result::Result<(), String> {
    for slice in slices {
        let (number, of) = (slice.number, first.number);
        if slice.size != first.size {
            let [[r, c], [rows, columns]] = [first.size, slice.size];
            return Err(format!(
                "expected images of one size, found {r} × {c} in image {of} and {rows} × {columns} \
                 in image {number}"
            ));
        }
        let (a, b) = (&first.place, &slice.place);
        let turned = (0..2).find(|i| differs(&a.along[*i], &b.along[*i], SAME_DIRECTION));
        if let Some(axis) = turned {
            let line = ["rows", "columns"][axis];
            return Err(format!(
                "expected one orientation, found images that run differently: the {line} of image \
                 {of} along {}, those of image {number} along {} (separate the images by \
                 orientation)",
                vector(&a.along[axis]),
                vector(&b.along[axis])
            ));
        }
        if differs(&a.spacing, &b.spacing, 1e-3 * a.spacing[0].min(a.spacing[1])) {
            let show = |s: [f64; 2]| format!("{} × {} mm", s[1], s[0]);
            return Err(format!(
                "expected one pixel spacing, found {} in image {of} and {} in image {number}",
                show(a.spacing),
                show(b.spacing)
            ));
        }
    }
    Ok(())
}

fn check_doubled(slices: &[Slice], steps: &[f64]) -> std::result::Result<(), String> {
    let doubled: Vec<usize> = (0..steps.len()).filter(|i| steps[*i] < ON_EACH_OTHER).collect();
    let Some(&at) = doubled.first() else {
        return Ok(());
    };
    let (a, b) = (&slices[at], &slices[at + 1]);
    let marks = super::header::MARKS.into_iter();
    let mark = |slice: &Slice, tag| {
        slice.place.marks.iter().find(|(of, _)| *of == tag).map(|(_, value)| value.clone())
    };
    let differ = marks.filter(|(tag, _)| mark(a, *tag) != mark(b, *tag)).map(|(_, name)| name);
    let names: Vec<_> = differ.collect();
    let reason = match names.is_empty() {
        true => String::new(),
        false => format!("; they differ in {}", names.join(", ")),
    };
    Err(format!(
        "expected one image at each position, found {} position(s) with several, the first at {} mm: \
         images {} and {}{reason} (remove those that do not belong to the volume)",
        doubled.len(),
        place_text(a),
        a.number,
        b.number
    ))
}

/// A position for people.
fn place_text(slice: &Slice) -> String {
    vector(&slice.place.position)
}

/// Fails where slices are shifted against each other within their planes.
fn check_tilt(slices: &[Slice], normal: [f64; 3]) -> std::result::Result<(), String> {
    let (first, last) = (&slices[0], &slices[slices.len() - 1]);
    let most = SAME_PLACE * first.place.spacing[0].min(first.place.spacing[1]);
    let beside = |slice: &Slice| -> f64 {
        let from = minus(&slice.place.position, &first.place.position);
        let along = dot(&from, &normal);
        let rest: [f64; 3] = std::array::from_fn(|i| from[i] - along * normal[i]);
        dot(&rest, &rest).sqrt()
    };
    let Some(shifted) = slices.iter().find(|slice| beside(slice) > most) else {
        return Ok(());
    };
    let between = minus(&last.place.position, &first.place.position);
    let degrees = (beside(last) / dot(&between, &normal).abs()).atan().to_degrees();
    let line = slices.iter().all(|slice| {
        let from = minus(&slice.place.position, &first.place.position);
        let share = dot(&from, &normal) / dot(&between, &normal);
        let off: [f64; 3] = std::array::from_fn(|i| from[i] - share * between[i]);
        dot(&off, &off).sqrt() <= most
    });
    Err(match line {
        true => format!(
            "expected slices right above each other, found them shifted by {degrees:.1} degrees \
             (gantry tilt): image {} lies {:.1} mm beside image {} (convert the series with dcm2niix, \
             which undoes the tilt, and give the NIfTI file)",
            last.number,
            beside(last),
            first.number
        ),
        false => format!(
            "expected slices right above each other, found image {} {:.1} mm beside image {}",
            shifted.number,
            beside(shifted),
            first.number
        ),
    })
}

fn median(steps: &[f64]) -> f64 {
    let mut sorted = steps.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn uneven(slices: &[Slice], steps: &[f64]) -> Uneven {
    let usual = median(steps);
    let odd = |i: &usize| (steps[*i] - usual).abs() > SAME_PLACE * usual;
    let strange: Vec<usize> = (0..steps.len()).filter(odd).collect();
    let off = |i: &usize| (steps[*i] - usual).abs();
    let most = strange.iter().copied().max_by(|a, b| off(a).total_cmp(&off(b)));
    let at = most.unwrap_or_else(|| (steps.len() - 1) / 2);
    let widest = steps.iter().copied().fold(0.0, f64::max);
    let [before, after] = [at, at + 1].map(|i| &slices[i]);
    let gaps: f64 = strange.iter().map(|i| (steps[*i] / usual - 1.0).max(0.0).round()).sum();
    // Whole distances between slices: some are missing.
    let whole = |i: &usize| {
        let ratio = steps[*i] / usual;
        ratio > 1.5 && (ratio - ratio.round()).abs() < 2.0 * SAME_PLACE
    };
    let place = format!(
        "{:.2} mm between image {} at {} and image {} at {}",
        steps[at],
        before.number,
        place_text(before),
        after.number,
        place_text(after)
    );
    let what = match !strange.is_empty() && strange.iter().all(whole) {
        true => format!(
            "expected a slice every {usual:.2} mm, found about {gaps:.0} missing, the widest gap \
             {place}"
        ),
        false => format!("expected a slice every {usual:.2} mm, found for example {place}"),
    };
    Uneven { what, safe: widest <= WIDEST * usual }
}

impl Stack {
    /// The grid: that of the slices, or with equal distances where theirs differ.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn geometry(&self) -> Result<Geometry> {
        let first = &self.slices[0];
        let [row, column, normal] = axes(&first.place);
        let direction = std::array::from_fn(|r| [row[r], column[r], normal[r]]);
        let ([rows, columns], [dx, dy]) = (first.size, first.place.spacing);
        let shape = [self.taps().len(), rows, columns];
        Geometry::new(shape, [self.spacing, dy, dx], first.place.position, direction)
    }

    /// Of every slice of the grid: the slice below, and how much of the next one is in it.
    pub fn taps(&self) -> Vec<(usize, f64)> {
        let last = self.slices.len() - 1;
        if self.uneven.is_none() {
            return (0..=last).map(|i| (i, 0.0)).collect();
        }
        let (low, high) = (self.heights[0], self.heights[last]);
        // A hundredth of a distance may be missing at the upper end.
        let count = ((high - low) / self.spacing + 0.01).floor() as usize + 1;
        let tap = |i: usize| {
            let height = (low + self.spacing * i as f64).min(high);
            let above = self.heights.partition_point(|h| *h <= height);
            let below = above.saturating_sub(1).min(last - 1);
            let step = self.heights[below + 1] - self.heights[below];
            (below, ((height - self.heights[below]) / step).clamp(0.0, 1.0))
        };
        (0..count).map(tap).collect()
    }

    /// Distance between slices, in mm.
    pub fn spacing(&self) -> f64 {
        self.spacing
    }
}
