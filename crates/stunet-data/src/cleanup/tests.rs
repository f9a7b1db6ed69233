use super::*;
use ndarray::Array3;
use proptest::prelude::*;
use std::collections::BTreeSet;
use stunet_testing::prng;

fn map(voxels: Array3<u16>, spacing_mm: [f64; 3]) -> CompactLabelMap {
    let (z, y, x) = voxels.dim();
    let geometry = Geometry::axis_aligned([z, y, x], spacing_mm).unwrap();
    CompactLabelMap { voxels: LabelVoxels::Words(voxels), geometry }
}

/// A volume of boxes `[from, to)` of labels, later ones over earlier ones.
fn boxes(shape: [usize; 3], boxes: &[(u16, [usize; 3], [usize; 3])]) -> CompactLabelMap {
    let mut voxels = Array3::zeros(shape);
    for (label, from, to) in boxes {
        let part = ndarray::s![from[0]..to[0], from[1]..to[1], from[2]..to[2]];
        voxels.slice_mut(part).fill(*label);
    }
    map(voxels, [2.0, 1.0, 0.5])
}

fn of(values: &[u16]) -> LabelChoice {
    LabelChoice::Of(BTreeSet::from_iter(values.iter().copied()))
}

/// Two parts of label 1 (8 and 4 voxels) and two of label 2 (1 and 1).
fn parts() -> CompactLabelMap {
    boxes(
        [4, 5, 6],
        &[
            (1, [0, 0, 0], [2, 2, 2]),
            (1, [0, 3, 0], [1, 5, 2]),
            (2, [3, 0, 5], [4, 1, 6]),
            (2, [3, 4, 0], [4, 5, 1]),
        ],
    )
}

#[test]
fn the_largest_part_stays_and_equal_ones_do() {
    let mut labels = parts();
    let clean = CleanUp { largest: LabelChoice::All, ..CleanUp::default() };
    let changes = clean.apply(&mut labels);
    let expected = boxes(
        [4, 5, 6],
        &[(1, [0, 0, 0], [2, 2, 2]), (2, [3, 0, 5], [4, 1, 6]), (2, [3, 4, 0], [4, 5, 1])],
    );
    assert_eq!(labels, expected);
    assert_eq!(
        changes,
        [LabelChange { label: 1, removed_parts: 1, removed_voxels: 4, filled_voxels: 0 }]
    );
    assert_eq!(clean.apply(&mut labels), [], "a second time changes nothing");
}

#[test]
fn others_are_left_alone() {
    let mut labels = parts();
    let clean = CleanUp { largest: of(&[2]), ..CleanUp::default() };
    assert_eq!((clean.apply(&mut labels), labels), (Vec::new(), parts()));
    assert!(CleanUp::default().is_nothing() && !clean.is_nothing());
    assert!(CleanUp { largest: of(&[]), ..CleanUp::default() }.is_nothing());
}

#[test]
fn small_parts_go() {
    // A voxel is a microlitre.
    let check = |min_ml: f64, small: LabelChoice, removed: &[(u16, u64)]| {
        let mut labels = parts();
        let clean = CleanUp { small, min_ml, ..CleanUp::default() };
        let changes = clean.apply(&mut labels);
        let found: Vec<_> = changes.iter().map(|of| (of.label, of.removed_voxels)).collect();
        assert_eq!(found, removed, "{min_ml} ml");
    };
    check(0.001, LabelChoice::All, &[]);
    check(0.0011, LabelChoice::All, &[(2, 2)]);
    check(0.0041, LabelChoice::All, &[(1, 4), (2, 2)]);
    check(0.0041, of(&[1]), &[(1, 4)]);
    check(1.0, LabelChoice::All, &[(1, 12), (2, 2)]);
}

#[test]
fn faces_or_corners() {
    let voxels = Array3::from_shape_vec((1, 2, 4), vec![3, 3, 0, 0, 0, 0, 3, 0]).unwrap();
    for (connectivity, left) in [(Connectivity::Corners, 3), (Connectivity::Faces, 2)] {
        let mut labels = map(voxels.clone(), [1.0; 3]);
        let clean = CleanUp { largest: LabelChoice::All, connectivity, ..CleanUp::default() };
        clean.apply(&mut labels);
        assert_eq!(labels.voxels.iter().filter(|v| *v == 3).count(), left);
    }
}

fn filled(mut labels: CompactLabelMap, holes: LabelChoice) -> (CompactLabelMap, u64) {
    let changes = CleanUp { holes, ..CleanUp::default() }.apply(&mut labels);
    (labels, changes.iter().map(|change| change.filled_voxels).sum())
}

#[test]
fn holes_that_one_label_encloses() {
    let hollow = [(1, [1, 1, 1], [6, 6, 6]), (0, [2, 2, 2], [5, 5, 5])];
    let solid = boxes([7, 7, 7], &hollow[..1]);
    assert_eq!(filled(boxes([7, 7, 7], &hollow), LabelChoice::All), (solid, 27));
    // Another label in the hole stays, and what is around it is no hole of one label.
    let both = boxes([7, 7, 7], &[hollow[0], hollow[1], (2, [3, 3, 3], [4, 4, 4])]);
    assert_eq!(filled(both.clone(), LabelChoice::All), (both, 0));
    let full = boxes([7, 7, 7], &[hollow[0], (2, [2, 2, 2], [5, 5, 5])]);
    assert_eq!(filled(full.clone(), LabelChoice::All), (full, 0));
    // Open by a face; a corner lets nothing in.
    let open = boxes([7, 7, 7], &[hollow[0], hollow[1], (0, [3, 3, 5], [4, 4, 7])]);
    assert_eq!(filled(open.clone(), LabelChoice::All), (open, 0));
    let corner = boxes([7, 7, 7], &[hollow[0], hollow[1], (0, [1, 1, 1], [2, 2, 2])]);
    assert_eq!(filled(corner, LabelChoice::All).1, 27);
    let not_meant = boxes([7, 7, 7], &hollow);
    assert_eq!(filled(not_meant.clone(), of(&[2])), (not_meant, 0));
}

#[test]
fn a_plane_has_no_front_and_back() {
    let ring = [(1, [0, 1, 1], [1, 4, 4]), (0, [0, 2, 2], [1, 3, 3])];
    let slice = boxes([1, 5, 5], &ring);
    assert_eq!(filled(slice.clone(), LabelChoice::All), (slice.clone(), 0));
    let plane = CompactLabelMap { geometry: slice.geometry.into_plane(1.0).unwrap(), ..slice };
    assert_eq!(filled(plane, LabelChoice::All).1, 1);
}

#[test]
fn parts_go_before_holes_are_filled() {
    let mut labels = boxes(
        [7, 7, 7],
        &[(1, [1, 1, 1], [6, 6, 6]), (2, [3, 3, 3], [4, 4, 4]), (2, [0, 0, 0], [1, 2, 2])],
    );
    let clean =
        CleanUp { largest: LabelChoice::All, holes: LabelChoice::All, ..CleanUp::default() };
    let changes = clean.apply(&mut labels);
    assert_eq!(changes.len(), 2);
    assert_eq!((changes[0].filled_voxels, changes[1].removed_voxels), (1, 1));
}

proptest! {
    /// The definition of a hole, voxel by voxel, of any labels.
    #[test]
    fn holes_by_visits(seed in 0u64..100_000, labels in 1u64..3, spread in 1u64..6) {
        let [depth, height, width] = [4usize, 5, 6];
        let values: Vec<u16> = prng::integers(seed, 0, 120, labels + spread)
            .iter()
            .map(|v| if *v as u64 > labels { 1 } else { *v as u16 })
            .collect();
        let voxels = Array3::from_shape_vec((depth, height, width), values).unwrap();
        let mut expected = voxels.clone();
        let mut seen = Array3::from_elem(voxels.dim(), false);
        for first in 0..120 {
            let at = (first / 30, first / 6 % 5, first % 6);
            if voxels[at] != 0 || seen[at] {
                continue;
            }
            let (mut open, mut inside, mut around, mut border) =
                (vec![at], Vec::new(), BTreeSet::new(), false);
            seen[at] = true;
            while let Some((z, y, x)) = open.pop() {
                inside.push((z, y, x));
                for (dz, dy, dx) in
                    [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
                {
                    let next = z
                        .checked_add_signed(dz)
                        .zip(y.checked_add_signed(dy))
                        .zip(x.checked_add_signed(dx));
                    let next = next.map(|((z, y), x)| (z, y, x));
                    match next.and_then(|next| Some((next, *voxels.get(next)?))) {
                        None => border = true,
                        Some((next, 0)) => {
                            if !std::mem::replace(&mut seen[next], true) {
                                open.push(next);
                            }
                        }
                        Some((_, label)) => drop(around.insert(label)),
                    }
                }
            }
            if let (false, [label]) = (border, &around.into_iter().collect::<Vec<_>>()[..]) {
                inside.iter().for_each(|at| expected[*at] = *label);
            }
        }
        let (found, _) = filled(map(voxels, [1.0; 3]), LabelChoice::All);
        prop_assert_eq!(found.voxels.to_words(), expected);
    }
}
