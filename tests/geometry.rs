//! Geometry survives read, preprocess, restore, write: all 48 axis orientations, and oblique ones.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use ndarray::Axis;
use stunet_data::geometry::Affine;
use stunet_data::nifti::{read_image, read_labelmap, write_labelmap};
use stunet_data::plans::{Normalization, Plans, Reference};
use stunet_data::preprocess::{RestoreOrder, preprocess};
use stunet_testing::nifti_bytes::NiftiBytes;

const SIZE_XYZ: [i16; 3] = [11, 7, 5];
const SPACING_XYZ: [f32; 3] = [0.5, 1.0, 3.0];
const ORIGIN: [f32; 3] = [12.5, -107.25, 1030.75];

/// Axis `i` of the file points along `signs[i]` times world axis `order[i]`.
fn orientation(order: [usize; 3], signs: [f32; 3]) -> [[f32; 3]; 3] {
    let mut axes = [[0.0; 3]; 3];
    for (axis, (world, sign)) in order.into_iter().zip(signs).enumerate() {
        axes[world][axis] = sign;
    }
    axes
}

fn orientations() -> Vec<[[f32; 3]; 3]> {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let signs = (0..8).map(|bits| [0, 1, 2].map(|b| if bits >> b & 1 == 0 { 1.0 } else { -1.0 }));
    signs.flat_map(|s| orders.map(|order| orientation(order, s))).collect()
}

/// A rotation about all three world axes.
fn rotation(angles: [f64; 3]) -> [[f64; 3]; 3] {
    let [(sa, ca), (sb, cb), (sc, cc)] = angles.map(f64::sin_cos);
    [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
}

fn oblique(axes: [[f32; 3]; 3], angles: [f64; 3]) -> [[f32; 3]; 3] {
    let r = rotation(angles);
    std::array::from_fn(|i| {
        std::array::from_fn(|j| (0..3).map(|k| r[i][k] * f64::from(axes[k][j])).sum::<f64>() as f32)
    })
}

fn file(axes: [[f32; 3]; 3]) -> NiftiBytes {
    let mut file = NiftiBytes::ramp(SIZE_XYZ);
    file.spacing_xyz = SPACING_XYZ;
    for (row, out) in file.affine.iter_mut().enumerate() {
        let [x, y, z] = axes[row];
        *out = [x * SPACING_XYZ[0], y * SPACING_XYZ[1], z * SPACING_XYZ[2], ORIGIN[row]];
    }
    // Whole numbers above 0, so that they can be labels and nothing is cropped.
    file.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 251 + 1) as f32);
    file
}

/// The rows of the sform as they stand in an uncompressed file, read without the reader.
fn sform_of(bytes: &[u8]) -> Vec<f32> {
    bytes[280..328].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn assert_affine(what: &str, found: impl IntoIterator<Item = f64>, expected: &[[f32; 4]; 3]) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.as_flattened().len(), "{what}");
    for (found, expected) in found.into_iter().zip(expected.as_flattened()) {
        let distance = (found - f64::from(*expected)).abs();
        assert!(distance <= 1e-5, "{what}: {found} instead of {expected}");
    }
}

fn rows(affine: &Affine) -> Vec<f64> {
    affine[..3].iter().flatten().copied().collect()
}

/// Reads, preprocesses, restores and writes one file under one plan.
fn round_trip(axes: [[f32; 3]; 3], plans: &Plans, order: RestoreOrder) {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in_0000.nii"), folder.path().join("out.nii"));
    let expected = file(axes);
    std::fs::write(&input, expected.bytes()).unwrap();
    let image = read_image(&[&input]).unwrap();
    assert_affine("read", rows(&image.geometry.world_from_voxel()), &expected.affine);
    let prepared = preprocess(&image, plans).unwrap();
    let labels = prepared.image.index_axis(Axis(0), 0).mapv(|v| v.round() as u16);
    let restored = prepared.trace.restore_labels(labels.view(), order);
    write_labelmap(&output, &restored, 255).unwrap();
    let written = sform_of(&std::fs::read(&output).unwrap());
    assert_affine("written", written.into_iter().map(f64::from), &expected.affine);
    let again = read_labelmap(&output).unwrap();
    assert_affine("read again", rows(&again.geometry.world_from_voxel()), &expected.affine);
    assert_eq!(again.geometry.spacing_mm(), image.geometry.spacing_mm());
    if prepared.trace.network_shape() == prepared.trace.output_shape() {
        let voxels = image.data.index_axis(Axis(0), 0).mapv(|v| v as u16);
        assert_eq!(again.data, voxels, "every voxel is back in its place");
    }
}

fn plans(reference: Reference, transpose: [usize; 3], spacing_zyx: [f64; 3]) -> Plans {
    let mut plans = Plans {
        reference,
        transpose_forward: transpose,
        spacing_mm: transpose.map(|axis| spacing_zyx[axis]),
        ..Plans::totalsegmentator()
    };
    plans.channels[0].scheme = Normalization::None;
    plans
}

fn check(axes: [[f32; 3]; 3]) {
    let (same, other) = ([3.0, 1.0, 0.5], [1.5, 1.5, 1.5]);
    for reference in [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28] {
        for transpose in [[0, 1, 2], [2, 0, 1]] {
            round_trip(axes, &plans(reference, transpose, same), RestoreOrder::Nearest);
            round_trip(axes, &plans(reference, transpose, other), RestoreOrder::Linear);
        }
    }
}

#[test]
fn orientations_along_the_axes() {
    let all = orientations();
    assert_eq!(all.len(), 48);
    all.into_iter().for_each(check);
}

#[test]
fn orientations_oblique() {
    for (i, axes) in orientations().into_iter().enumerate() {
        let step = i as f64;
        check(oblique(axes, [0.1 + 0.13 * step, -0.4 + 0.07 * step, 0.2 - 0.11 * step]));
    }
}
