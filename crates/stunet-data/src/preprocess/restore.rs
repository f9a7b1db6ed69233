//! The trace of preprocessing, and the way back to the file's grid.

use super::crop::BoundingBox;
use super::part::Part;
use super::resample::{AxisTaps, LabelRule, Resampling, resize_labels};
use crate::error::{DataError, Result, invalid};
use crate::geometry::{Geometry, Turn};
use crate::labels::LabelMap;
use crate::plans::{Plans, inverse};
use crate::reference::{Reference, RestoreAxis};
use ndarray::{Array3, ArrayView3, ArrayViewMut3};
use serde::{Deserialize, Serialize};

/// How labels at the network's resolution are brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestoreOrder {
    /// The nearest voxel (mode `fastest`).
    Nearest,
    /// Linear interpolation of each label's indicator (mode `fast`).
    Linear,
}

/// What preprocessing did, for undoing it.
///
/// # Shapes
/// Three frames, all in the order slow to fast: the *file's* `[z, y, x]`; the *output* frame, which
/// is transposed and cropped but at the file's resolution; and the *network's*, which is resampled.
/// Where a reader turned the axes ([`Geometry::turn`]), the first of them is the turned one, and
/// labels come back in the file's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawTrace")]
pub struct Trace {
    pub(super) geometry: Geometry,
    pub(super) bounds: BoundingBox,
    pub(super) transpose_forward: [usize; 3],
    /// Of the whole volume, also where only a part of it is there.
    pub(super) network_shape: [usize; 3],
    network_spacing_mm: [f64; 3],
    reference: Reference,
    force_separate_z: Option<bool>,
    /// Left out where it is the usual one.
    #[serde(default, skip_serializing_if = "is_usual")]
    resampling: Resampling,
    #[serde(skip)]
    pub(super) part: Option<Part>,
}

/// A trace as it stands in a file.
#[derive(Deserialize)]
struct RawTrace {
    geometry: Geometry,
    bounds: BoundingBox,
    transpose_forward: [usize; 3],
    network_shape: [usize; 3],
    network_spacing_mm: [f64; 3],
    reference: Reference,
    force_separate_z: Option<bool>,
    #[serde(default)]
    resampling: Resampling,
}

fn is_usual(resampling: &Resampling) -> bool {
    *resampling == Resampling::default()
}

impl TryFrom<RawTrace> for Trace {
    type Error = DataError;

    /// A trace that was read is one that preprocessing could have made: its shape follows from the
    /// rest, and nothing it is asked for reaches beyond a volume.
    fn try_from(raw: RawTrace) -> Result<Self> {
        let bad = |key, expected: &str, found: &dyn std::fmt::Debug| {
            Err(invalid("trace", key, expected, format_args!("{found:?}")))
        };
        let volume = raw.geometry.shape();
        if volume.iter().map(|n| *n as f64).product::<f64>() > MAX_VOXELS {
            return bad("geometry.shape", "a volume that fits into memory", &volume);
        }
        if raw.bounds.iter().zip(volume).any(|(&[from, to], length)| from >= to || to > length) {
            let expected = format!("a box with content inside the volume {volume:?}");
            return bad("bounds", &expected, &raw.bounds);
        }
        let mut axes = raw.transpose_forward;
        axes.sort_unstable();
        if axes != [0, 1, 2] {
            return bad("transpose_forward", "an order of 0, 1, 2", &raw.transpose_forward);
        }
        if raw.network_spacing_mm.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return bad("network_spacing_mm", "three lengths above 0", &raw.network_spacing_mm);
        }
        let made = Self::made(
            raw.geometry,
            raw.bounds,
            (raw.transpose_forward, raw.network_spacing_mm),
            (raw.reference, raw.force_separate_z, raw.resampling),
        )?;
        if made.network_shape != raw.network_shape {
            let expected = format!("{:?}, as box and spacings say", made.network_shape);
            return bad("network_shape", &expected, &raw.network_shape);
        }
        Ok(made)
    }
}

/// Where the output frame lies in the file's volume.
///
/// ```
/// use stunet_data::preprocess::Placement;
/// let mut volume = ndarray::Array3::<u16>::zeros([2, 3, 4]);
/// let whole = Placement::whole([2, 3, 4]);
/// whole.view_mut(&mut volume)[[1, 2, 3]] = 7;
/// assert_eq!(volume[[1, 2, 3]], 7);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    shape: [usize; 3],
    turn: Turn,
    bounds: BoundingBox,
    transpose_forward: [usize; 3],
}

impl Placement {
    /// An output that is the whole volume, in its own axis order.
    pub fn whole(shape: [usize; 3]) -> Self {
        let bounds = shape.map(|n| [0, n]);
        Self { shape, turn: Turn::NONE, bounds, transpose_forward: [0, 1, 2] }
    }

    /// Shape of the file's volume.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The output frame's part of a volume of the file, transposed and cropped.
    ///
    /// # Panics
    /// When the volume has another shape than [`Placement::shape`].
    pub fn view_mut<'a, T>(&self, volume: &'a mut Array3<T>) -> ArrayViewMut3<'a, T> {
        assert_eq!(volume.shape(), self.shape, "a volume of another shape than the file's");
        let [z, y, x] = self.bounds.map(|[from, to]| ndarray::Slice::from(from..to));
        let turned = self.turn.apply(volume.view_mut());
        turned.slice_move(ndarray::s![z, y, x]).permuted_axes(self.transpose_forward)
    }
}

/// Voxels beyond which a resampled volume is taken for a wrong spacing (64 GiB in single precision).
const MAX_VOXELS: f64 = (1u64 << 34) as f64;

impl Trace {
    pub(super) fn new(geometry: &Geometry, bounds: BoundingBox, plans: &Plans) -> Result<Self> {
        Self::made(
            geometry.clone(),
            bounds,
            (plans.transpose_forward, plans.spacing_mm),
            (plans.reference, plans.force_separate_z, plans.resampling),
        )
    }

    /// The trace that follows from a box in a file's volume and the network's axes and spacing.
    fn made(
        geometry: Geometry,
        bounds: BoundingBox,
        (transpose_forward, network_spacing_mm): ([usize; 3], [f64; 3]),
        (reference, force_separate_z, resampling): (Reference, Option<bool>, Resampling),
    ) -> Result<Self> {
        let spacing = transposed(geometry.spacing_mm(), transpose_forward);
        let cropped = transposed(bounds.map(|[from, to]| to - from), transpose_forward);
        // Halves go to the even neighbour, in NumPy as in Python. One voxel is the least.
        let shape: [f64; 3] = std::array::from_fn(|axis| {
            let factor = spacing[axis] / network_spacing_mm[axis];
            (factor * cropped[axis] as f64).round_ties_even().max(1.0)
        });
        if shape.iter().product::<f64>() > MAX_VOXELS {
            return Err(DataError::ResampledTooLarge { shape });
        }
        Ok(Self {
            geometry,
            bounds,
            transpose_forward,
            network_shape: shape.map(|n| n as usize),
            network_spacing_mm,
            reference,
            force_separate_z,
            resampling,
            part: None,
        })
    }

    /// Whether these plans lead to this trace: axes, spacing, and whose arithmetic.
    pub fn follows(&self, plans: &Plans) -> bool {
        self.transpose_forward == plans.transpose_forward
            && self.network_spacing_mm == plans.spacing_mm
            && self.reference == plans.reference
            && self.force_separate_z == plans.force_separate_z
            && self.resampling == plans.resampling
    }

    /// Grid of the file, as the reader turned it.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The nonzero region, half-open ranges in the file's frame; of it the part that is there.
    pub fn bounding_box(&self) -> BoundingBox {
        let Some(part) = &self.part else { return self.bounds };
        let part = transposed(part.output, inverse(self.transpose_forward));
        std::array::from_fn(|axis| part[axis].map(|at| self.bounds[axis][0] + at))
    }

    /// Axis of the file that is output and network axis 0, 1, 2.
    pub fn transpose_forward(&self) -> [usize; 3] {
        self.transpose_forward
    }

    /// Shape at the network's resolution, network's frame.
    pub fn network_shape(&self) -> [usize; 3] {
        match &self.part {
            Some(part) => part.network.map(|[from, to]| to - from),
            None => self.network_shape,
        }
    }

    /// Shape at the file's resolution, transposed and cropped.
    pub fn output_shape(&self) -> [usize; 3] {
        transposed(self.bounding_box().map(|[from, to]| to - from), self.transpose_forward)
    }

    /// Network axis that is resampled apart on the way in, if any.
    ///
    /// # Source
    /// nnU-Net: the largest over the smallest spacing above 3, of the file or else of the plan, with
    /// a single coarsest axis.
    pub fn separate_axis(&self) -> Option<usize> {
        let spacing = transposed(self.geometry.spacing_mm(), self.transpose_forward);
        self.decide([spacing, self.network_spacing_mm])
    }

    /// Network axis that is resampled apart on the way out, if any.
    ///
    /// # Source
    /// Not always the axis of the way in, and reproduced as it is:
    /// * nnU-Net 1 asks the file's spacing, then the plan's, which is transposed, and uses the
    ///   axis found for either on the array in the *file's* order;
    /// * 2.2 asks the plan's spacing, then the file's without transposing it, and uses the axis on
    ///   the array in the *network's* order;
    /// * 2.8 asks the plan's, then the file's in the network's order.
    pub fn separate_axis_of_restore(&self) -> Option<usize> {
        let file = self.geometry.spacing_mm();
        let network = self.network_spacing_mm;
        match self.reference.conventions().preprocessing.restore_axis {
            RestoreAxis::FileFirst => {
                let file_axis = self.decide([file, network])?;
                Some(inverse(self.transpose_forward)[file_axis])
            }
            RestoreAxis::PlansFirstNotTransposed => self.decide([network, file]),
            RestoreAxis::PlansFirst => {
                self.decide([network, transposed(file, self.transpose_forward)])
            }
        }
    }

    /// Where the output frame lies in the file's volume.
    pub fn placement(&self) -> Placement {
        Placement {
            shape: self.geometry.in_file().shape(),
            turn: self.geometry.turn(),
            bounds: self.bounding_box(),
            transpose_forward: self.transpose_forward,
        }
    }

    fn decide(&self, spacings: [[f64; 3]; 2]) -> Option<usize> {
        let chosen = match self.force_separate_z {
            Some(false) => None,
            Some(true) => Some(spacings[0]),
            None => spacings.into_iter().find(|s| largest(s) / smallest(s) > 3.0),
        }?;
        let coarse = |axis: &usize| largest(&chosen) / chosen[*axis] == 1.0;
        let mut coarsest = (0..3).filter(coarse);
        match (coarsest.next(), coarsest.next()) {
            (Some(axis), None) => Some(axis),
            _ => None,
        }
    }

    /// Per network axis, where each voxel of the output frame looks at the network's resolution:
    /// linear, nearest on the axis that is resampled apart.
    pub fn taps(&self) -> [AxisTaps; 3] {
        match &self.part {
            Some(part) => part.taps(self.whole_taps()),
            None => self.whole_taps(),
        }
    }

    pub(super) fn whole_taps(&self) -> [AxisTaps; 3] {
        let separate = self.separate_axis_of_restore();
        let from = self.network_shape;
        let to = transposed(self.bounds.map(|[from, to]| to - from), self.transpose_forward);
        std::array::from_fn(|axis| match separate {
            Some(apart) if apart == axis => AxisTaps::nearest(from[axis], to[axis]),
            _ => AxisTaps::linear(from[axis], to[axis]),
        })
    }

    /// Puts labels of the output frame where they belong in the file's volume; the rest is 0.
    ///
    /// # Panics
    /// When the array has another shape than [`Trace::output_shape`].
    pub fn paste(&self, labels: ArrayView3<'_, u16>) -> LabelMap {
        assert_eq!(labels.shape(), self.output_shape(), "labels of another shape than the output");
        let placement = self.placement();
        let mut data = Array3::zeros(placement.shape());
        placement.view_mut(&mut data).assign(&labels);
        LabelMap { data, geometry: self.geometry.in_file().clone() }
    }

    /// Brings labels at the network's resolution back to the file's grid.
    ///
    /// # Panics
    /// When the array has another shape than [`Trace::network_shape`].
    ///
    /// # Deviations
    /// Where nnU-Net 1 stops with an assertion (spacing apart on two equal axes), the axes are
    /// resampled together.
    pub fn restore_labels(&self, labels: ArrayView3<'_, u16>, order: RestoreOrder) -> LabelMap {
        assert_eq!(
            labels.shape(),
            self.network_shape(),
            "labels of another shape than the network's"
        );
        if let Some(part) = &self.part {
            let mut whole = Array3::zeros(self.network_shape);
            let [z, y, x] = part.network.map(|[from, to]| ndarray::Slice::from(from..to));
            whole.slice_mut(ndarray::s![z, y, x]).assign(&labels);
            return Self { part: None, ..self.clone() }.restore_labels(whole.view(), order);
        }
        let separate = self.separate_axis_of_restore();
        let backward = inverse(self.transpose_forward);
        let conventions = &self.reference.conventions().preprocessing;
        let rule = match order {
            RestoreOrder::Nearest => LabelRule::Nearest,
            RestoreOrder::Linear => conventions.label_rule,
        };
        if order == RestoreOrder::Linear && conventions.labels_restored_in_file_order {
            let shape = self.bounds.map(|[from, to]| to - from);
            let apart = separate.map(|axis| self.transpose_forward[axis]);
            let labels = resize_labels(labels.permuted_axes(backward), shape, rule, apart);
            return self.paste(labels.view().permuted_axes(self.transpose_forward));
        }
        let labels = resize_labels(labels, self.output_shape(), rule, separate);
        self.paste(labels.view())
    }
}

fn transposed<T: Copy>(values: [T; 3], forward: [usize; 3]) -> [T; 3] {
    forward.map(|axis| values[axis])
}

fn largest(values: &[f64; 3]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max)
}

fn smallest(values: &[f64; 3]) -> f64 {
    values.iter().copied().fold(f64::MAX, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::preprocess::preprocess;
    use ndarray::Array4;
    use proptest::prelude::*;

    fn trace(reference: Reference, spacing: [f64; 3], transpose: [usize; 3]) -> Trace {
        let geometry = Geometry::axis_aligned([5, 7, 11], spacing).unwrap();
        let plans = Plans {
            reference,
            spacing_mm: [1.5, 1.0, 2.0],
            transpose_forward: transpose,
            ..Plans::totalsegmentator()
        };
        Trace::new(&geometry, [[0, 5], [1, 7], [2, 9]], &plans).unwrap()
    }

    #[test]
    fn frames() {
        let t = trace(Reference::NnUNetV1, [3.0, 1.0, 0.5], [2, 0, 1]);
        assert_eq!(t.output_shape(), [7, 5, 6]);
        // 0.5 / 1.5 * 7 = 2.33, 3 / 1 * 5 = 15, 1 / 2 * 6 = 3.
        assert_eq!(t.network_shape(), [2, 15, 3]);
        let taps = t.taps();
        assert_eq!([0, 1, 2].map(|axis| taps[axis].len()), t.output_shape());
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let geometry = Geometry::axis_aligned([5, 7, 9], [0.5; 3]).unwrap();
        let plans = Plans { spacing_mm: [1.0; 3], ..Plans::totalsegmentator() };
        let t = Trace::new(&geometry, [[0, 5], [0, 7], [0, 9]], &plans).unwrap();
        assert_eq!(t.network_shape(), [2, 4, 4]);
    }

    #[test]
    fn the_coarse_axis_on_the_way_in() {
        let apart = |spacing| trace(Reference::NnUNetV28, spacing, [0, 1, 2]).separate_axis();
        assert_eq!(apart([5.0, 1.0, 1.0]), Some(0));
        assert_eq!(apart([1.0, 1.0, 5.0]), Some(2));
        assert_eq!(apart([3.0, 1.0, 1.0]), None, "three times is not enough");
        assert_eq!(apart([5.0, 5.0, 1.0]), None, "two coarse axes");
        let turned = trace(Reference::NnUNetV28, [5.0, 1.0, 1.0], [1, 2, 0]);
        assert_eq!(turned.separate_axis(), Some(2));
    }

    /// The file's coarse axis is 0 (z), which the plan makes network axis 1.
    #[test]
    fn the_coarse_axis_on_the_way_out_by_version() {
        let apart =
            |reference| trace(reference, [5.0, 1.0, 1.0], [2, 0, 1]).separate_axis_of_restore();
        assert_eq!(apart(Reference::NnUNetV1), Some(1));
        assert_eq!(apart(Reference::NnUNetV22), Some(0), "2.2 forgets to transpose");
        assert_eq!(apart(Reference::NnUNetV28), Some(1));
        // A coarse plan axis 0: version 1 takes it for the file's axis 0, which is network axis 1.
        let geometry = Geometry::axis_aligned([5, 7, 11], [1.0; 3]).unwrap();
        let out = |reference| {
            let plans = Plans {
                reference,
                spacing_mm: [6.0, 1.0, 1.0],
                transpose_forward: [2, 0, 1],
                ..Plans::totalsegmentator()
            };
            let t = Trace::new(&geometry, [[0, 5], [0, 7], [0, 11]], &plans).unwrap();
            (t.separate_axis(), t.separate_axis_of_restore())
        };
        assert_eq!(out(Reference::NnUNetV1), (Some(0), Some(1)));
        assert_eq!(out(Reference::NnUNetV22), (Some(0), Some(0)));
    }

    #[test]
    fn a_wrong_spacing_is_refused_and_not_allocated() {
        let geometry = Geometry::axis_aligned([5, 7, 11], [1e6; 3]).unwrap();
        let plans = Plans::totalsegmentator();
        let error = Trace::new(&geometry, [[0, 5], [0, 7], [0, 11]], &plans).unwrap_err();
        assert!(error.to_string().contains("spacing"), "{error}");
    }

    #[test]
    fn a_trace_that_was_read_is_one_that_could_have_been_made() {
        let made = trace(Reference::NnUNetV28, [3.0, 1.0, 0.5], [2, 0, 1]);
        let json = serde_json::to_value(&made).unwrap();
        let read = |json| serde_json::from_value::<Trace>(json).map_err(|e| e.to_string());
        assert_eq!(read(json.clone()).unwrap(), made);
        let check = |pointer: &str, value: serde_json::Value, expected: &str| {
            let mut json = json.clone();
            *json.pointer_mut(pointer).unwrap() = value;
            let message = read(json).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        // The file's volume is [5, 7, 11], the box [[0, 5], [1, 7], [2, 9]].
        check("/bounds/2/1", 12.into(), "a box with content inside the volume [5, 7, 11]");
        check("/bounds/0/0", 5.into(), "a box with content");
        check("/bounds/0/0", u64::MAX.into(), "a box with content");
        check("/bounds/1/1", 6.into(), "network_shape");
        check("/network_shape/1", 1.into(), "as box and spacings say");
        check("/network_spacing_mm/0", 0.into(), "three lengths above 0");
        check("/network_spacing_mm/0", 1e-300.into(), "spacing");
        check("/transpose_forward/0", 0.into(), "an order of 0, 1, 2");
        check("/transpose_forward/0", 9.into(), "an order of 0, 1, 2");
        check("/geometry/shape/0", (1u64 << 60).into(), "fits into memory");
        check("/geometry/shape/0", 0.into(), "dimensions");
        check("/geometry/spacing_mm/0", (-1).into(), "spacing");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn restoring_keeps_geometry_and_places_labels(
            shape in prop::array::uniform3(2usize..9),
            spacing in prop::array::uniform3(0.4f64..7.0),
            order in Just([0usize, 1, 2]).prop_shuffle(),
            corner in prop::array::uniform3(0usize..2),
            version in 0usize..3,
        ) {
            let geometry = Geometry::axis_aligned(shape, spacing).unwrap();
            let mut data = Array4::zeros((1, shape[0], shape[1], shape[2]));
            let [z, y, x] = corner;
            data.slice_mut(ndarray::s![.., z.., y.., x..]).fill(1.0);
            let image = Image::new(data, geometry.clone()).unwrap();
            let plans = Plans {
                reference: [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28][version],
                transpose_forward: order,
                ..Plans::totalsegmentator()
            };
            let prepared = preprocess(&image, &plans).unwrap();
            let trace = prepared.trace;
            prop_assert_eq!(&prepared.image.shape()[1..], trace.network_shape());
            let labels = Array3::from_elem(trace.network_shape(), 7u16);
            for order in [RestoreOrder::Nearest, RestoreOrder::Linear] {
                let restored = trace.restore_labels(labels.view(), order);
                prop_assert_eq!(&restored.geometry, &geometry);
                for (at, label) in restored.data.indexed_iter() {
                    let inside = at.0 >= z && at.1 >= y && at.2 >= x;
                    prop_assert_eq!(*label, if inside { 7 } else { 0 });
                }
            }
            let pasted = trace.paste(Array3::from_elem(trace.output_shape(), 7).view());
            prop_assert_eq!(pasted.data, trace.restore_labels(labels.view(), RestoreOrder::Nearest).data);
        }

        #[test]
        fn what_is_pasted_comes_out_where_it_was_cropped(
            order in Just([0usize, 1, 2]).prop_shuffle(),
        ) {
            let geometry = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5]).unwrap();
            let values = (0..385).map(|v| v as u16 + 1).collect();
            let original = Array3::from_shape_vec((5, 7, 11), values).unwrap();
            let plans = Plans { transpose_forward: order, ..Plans::totalsegmentator() };
            let trace = Trace::new(&geometry, [[1, 4], [2, 7], [0, 9]], &plans).unwrap();
            let cropped = original.slice(ndarray::s![1..4, 2..7, 0..9]).permuted_axes(order);
            let pasted = trace.paste(cropped);
            for (at, label) in pasted.data.indexed_iter() {
                let inside = (1..4).contains(&at.0) && at.1 >= 2 && at.2 < 9;
                prop_assert_eq!(*label, if inside { original[at] } else { 0 });
            }
        }
    }
}
