use super::*;
use crate::geometry::Geometry;
use crate::image::Image;
use crate::plans::Plans;
use crate::preprocess::{RestoreOrder, preprocess};
use ndarray::{Array3, Array4};
use proptest::prelude::*;

fn image(shape: [usize; 3], spacing: [f64; 3]) -> Image {
    let [z, y, x] = shape;
    let geometry = Geometry::axis_aligned(shape, spacing).unwrap();
    let value = |(_, z, y, x): (usize, usize, usize, usize)| (z * 97 + y * 31 + x * 7) as f32 + 1.0;
    Image::new(Array4::from_shape_fn((1, z, y, x), value), geometry).unwrap()
}

proptest! {
    /// What is predicted of a part is what the whole would have there, and lies where it lies.
    #[test]
    fn a_part_is_a_part_of_the_whole(
        shape in [4usize..20, 4usize..20, 4usize..20],
        spacing in [0.6f64..3.0, 0.6f64..3.0, 0.6f64..3.0],
        order in prop::sample::select(vec![[0usize, 1, 2], [2, 0, 1], [1, 0, 2]]),
        from in [0usize..8, 0usize..8, 0usize..8],
        size in [1usize..12, 1usize..12, 1usize..12],
    ) {
        let plans = Plans { transpose_forward: order, ..Plans::totalsegmentator() };
        let whole = preprocess(&image(shape, spacing), &plans).unwrap();
        let file_box: BoundingBox = std::array::from_fn(|axis| {
            let begin = from[axis].min(shape[axis] - 1);
            [begin, (begin + size[axis]).min(shape[axis])]
        });
        let network = whole.trace.network_box(file_box).unwrap();
        let part = whole.clone().within(network);
        let [z, y, x] = network.map(|[from, to]| from..to);
        prop_assert_eq!(&part.image, &whole.image.slice(ndarray::s![.., z, y, x]));
        prop_assert_eq!(part.trace.network_shape(), network.map(|[from, to]| to - from));
        // Every voxel of the box is restored.
        let bounds = part.trace.bounding_box();
        for (inside, wanted) in bounds.iter().zip(file_box) {
            prop_assert!(inside[0] <= wanted[0] && wanted[1] <= inside[1]);
        }
        // Taps look at the same voxels.
        let (ours, theirs) = (part.trace.taps(), whole.trace.taps());
        for axis in 0..3 {
            let [from, to] = order.map(|axis| bounds[axis])[axis];
            let begin = network[axis][0];
            let shifted: Vec<usize> = ours[axis].lower.iter().map(|at| at + begin).collect();
            prop_assert_eq!(&shifted[..], &theirs[axis].lower[from..to]);
            for (index, at) in ours[axis].upper.iter().enumerate() {
                let counts = ours[axis].weight_upper[index] > 0.0;
                prop_assert!(!counts || at + begin == theirs[axis].upper[from + index]);
            }
            prop_assert_eq!(&ours[axis].weight_upper[..], &theirs[axis].weight_upper[from..to]);
        }
        let ones = Array3::from_elem(part.trace.output_shape(), 1u16);
        let pasted = part.trace.paste(ones.view()).data;
        for ((z, y, x), label) in pasted.indexed_iter() {
            let inside = [z, y, x].iter().zip(bounds).all(|(at, [from, to])| (from..to).contains(at));
            prop_assert_eq!(*label == 1, inside);
        }
        // Labels of the part restored are those of the whole, as far as the part reaches.
        let labels = Array3::from_shape_fn(whole.trace.network_shape(), |(z, y, x)| {
            u16::from((z / 2 + y / 3 + x / 2) % 2 == 0)
        });
        let [z, y, x] = network.map(|[from, to]| from..to);
        let own = labels.slice(ndarray::s![z, y, x]);
        let restored = part.trace.restore_labels(own, RestoreOrder::Nearest).data;
        let expected = whole.trace.restore_labels(labels.view(), RestoreOrder::Nearest).data;
        let [z, y, x] = file_box.map(|[from, to]| from..to);
        let at = ndarray::s![z, y, x];
        prop_assert_eq!(restored.slice(at.clone()), expected.slice(at));
    }
}

#[test]
fn a_box_outside_of_the_content() {
    let mut image = image([8, 8, 8], [1.5; 3]);
    image.data.slice_mut(ndarray::s![.., 0..4, .., ..]).fill(0.0);
    let prepared = preprocess(&image, &Plans::totalsegmentator()).unwrap();
    assert_eq!(prepared.trace.network_box([[0, 3], [0, 8], [0, 8]]), None);
    let found = prepared.trace.network_box([[2, 6], [0, 8], [1, 3]]);
    assert_eq!(found, Some([[0, 2], [0, 8], [1, 3]]));
}

#[test]
fn a_file_whose_axes_were_turned() {
    use crate::geometry::Turn;
    let turn = Turn::new([2, 0, 1], [true, false, false]).unwrap();
    let geometry = Geometry::axis_aligned([4, 5, 6], [1.5; 3]).unwrap();
    let turned = geometry.turned(turn, [1.5; 3]).unwrap();
    let data = Array4::from_elem((1, 6, 4, 5), 7.0);
    let image = Image::new(data, turned).unwrap();
    let prepared = preprocess(&image, &Plans::totalsegmentator()).unwrap();
    // The file's x, backwards, is the first axis.
    let found = prepared.trace.network_box([[0, 1], [2, 4], [1, 3]]).unwrap();
    assert_eq!(found, [[3, 5], [0, 1], [2, 4]]);
    let part = prepared.within(found);
    assert_eq!(part.trace.file_box(), [[0, 1], [2, 4], [1, 3]]);
    let pasted = part.trace.paste(Array3::from_elem((2, 1, 2), 1).view()).data;
    assert_eq!(pasted.dim(), (4, 5, 6));
    assert_eq!(pasted.slice(ndarray::s![0..1, 2..4, 1..3]).sum(), 4);
    assert_eq!(pasted.sum(), 4);
}
