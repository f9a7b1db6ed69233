use super::*;
use std::collections::BTreeMap;

/// A scan small enough for a test.
fn coarse(region: Option<BodyPart>) -> ScanOptions {
    ScanOptions { region, in_plane_mm: [3.5, 5.0], slice_mm: [4.0, 6.0], turn_axes: false }
}

/// Values by label.
fn values(phantom: &Phantom) -> BTreeMap<&'static str, Vec<f32>> {
    let mut found: BTreeMap<_, Vec<f32>> = BTreeMap::new();
    for (value, label) in phantom.image.iter().zip(&phantom.labels) {
        if *label > 0 {
            found.entry(STRUCTURES[usize::from(*label) - 1]).or_default().push(*value);
        }
    }
    found
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn every_structure_is_in_every_torso_and_of_a_plausible_size() {
    // Least and most millilitres, after how much they vary among people.
    let expected: [(&str, f64, f64); 14] = [
        ("lung_right", 900.0, 4000.0),
        ("lung_left", 700.0, 3800.0),
        ("heart", 300.0, 1300.0),
        ("liver", 800.0, 3200.0),
        ("spleen", 30.0, 600.0),
        ("kidney_right", 70.0, 380.0),
        ("kidney_left", 70.0, 380.0),
        ("aorta", 90.0, 550.0),
        ("spine", 500.0, 1700.0),
        ("stomach", 90.0, 1000.0),
        ("urinary_bladder", 20.0, 450.0),
        ("trachea", 10.0, 90.0),
        ("pancreas", 8.0, 170.0),
        ("gallbladder", 3.0, 90.0),
    ];
    for seed in 0..12 {
        let phantom = scan(seed, &coarse(Some(BodyPart::Torso)));
        let ml = phantom.spacing_mm.iter().product::<f64>() / 1000.0;
        let values = values(&phantom);
        for (name, least, most) in expected {
            let volume = values.get(name).map_or(0, Vec::len) as f64 * ml;
            assert!((least..most).contains(&volume), "seed {seed}: {name} of {volume:.0} ml");
        }
    }
}

#[test]
fn tissues_have_the_values_of_ct() {
    let expected: [(&str, f32, f32); 14] = [
        ("lung_right", -930.0, -700.0),
        ("lung_left", -930.0, -700.0),
        ("heart", 25.0, 260.0),
        ("liver", 35.0, 140.0),
        ("spleen", 30.0, 160.0),
        ("kidney_right", 15.0, 240.0),
        ("kidney_left", 15.0, 240.0),
        ("aorta", 20.0, 400.0),
        ("spine", 90.0, 420.0),
        ("stomach", -970.0, 90.0),
        ("urinary_bladder", -10.0, 35.0),
        ("trachea", -1010.0, -850.0),
        ("pancreas", 15.0, 140.0),
        ("gallbladder", -5.0, 45.0),
    ];
    for seed in 20..28 {
        let phantom = scan(seed, &coarse(Some(BodyPart::Torso)));
        let values = values(&phantom);
        for (name, least, most) in expected {
            let found = median(&values[name]);
            assert!((least..most).contains(&found), "seed {seed}: {name} at {found} HU");
        }
        assert!(phantom.image.iter().all(|v| (-1024.0..=3071.0).contains(v) && v.fract() == 0.0));
        // Air around, bone somewhere.
        let air = phantom.image.iter().filter(|v| **v < -900.0).count();
        assert!(air * 10 > phantom.image.len());
        assert!(phantom.image.iter().filter(|v| **v > 300.0).count() > 500);
    }
}

#[test]
fn labels_lie_under_the_skin() {
    for seed in 40..44 {
        let phantom = scan(seed, &coarse(None));
        let (_, height, width) = phantom.labels.dim();
        for ((_, y, x), label) in phantom.labels.indexed_iter() {
            let border = y == 0 || x == 0 || y == height - 1 || x == width - 1;
            assert!(!border || *label == 0, "seed {seed}: label {label} at the border");
        }
        // On a ray from any labelled voxel to the front of the grid lies the body's surface: soft
        // tissue, then air.
        for z in 0..phantom.labels.dim().0 {
            for x in 0..width {
                let column = phantom.labels.slice(ndarray::s![z, .., x]);
                let Some(first) = column.iter().position(|label| *label > 0) else { continue };
                let before = phantom.image.slice(ndarray::s![z, ..first, x]);
                let soft = before.iter().filter(|v| **v > -300.0).count();
                assert!(soft >= 1 && before[0] < -900.0, "seed {seed}: no wall at {z}, {x}");
            }
        }
    }
}

#[test]
fn one_seed_is_one_phantom_and_two_seeds_are_two() {
    let options = coarse(None);
    let first = scan(5, &options);
    assert_eq!(first, scan(5, &options));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(first, pool.install(|| scan(5, &options)));

    // Not only the noise: volumes, contrast and grids differ between any two.
    let describe = |seed: u64| {
        let phantom = scan(seed, &options);
        let liver = phantom.labels.iter().filter(|label| **label == 4).count();
        let ml = liver as f64 * phantom.spacing_mm.iter().product::<f64>() / 1000.0;
        (ml, phantom.spacing_mm, phantom.image.dim())
    };
    let found: Vec<_> = (100..116).map(describe).collect();
    for (i, a) in found.iter().enumerate() {
        for b in &found[..i] {
            assert!((a.0 - b.0).abs() > 1e-6, "two livers of {} ml", a.0);
            assert_ne!((a.1, a.2), (b.1, b.2));
        }
    }
}

#[test]
fn a_finer_scan_shows_the_same_patient() {
    let at = |in_plane: f64, slice: f64| {
        let options = ScanOptions {
            region: Some(BodyPart::Torso),
            in_plane_mm: [in_plane; 2],
            slice_mm: [slice; 2],
            turn_axes: false,
        };
        scan(9, &options)
    };
    let (fine, coarse) = (at(3.0, 3.0), at(4.0, 5.0));
    let volume = |phantom: &Phantom, name: &str| {
        let ml = phantom.spacing_mm.iter().product::<f64>() / 1000.0;
        values(phantom)[name].len() as f64 * ml
    };
    for name in ["lung_left", "liver", "spine", "heart"] {
        let (a, b) = (volume(&fine, name), volume(&coarse, name));
        assert!((a / b - 1.0).abs() < 0.05, "{name}: {a:.0} and {b:.0} ml");
    }
}

#[test]
fn turned_axes_keep_every_voxel_in_its_place() {
    let plain = torso([10, 14, 22], 3);
    let place = |phantom: &Phantom, [z, y, x]: [usize; 3]| -> [f64; 3] {
        let steps = [
            x as f64 * phantom.spacing_mm[2],
            y as f64 * phantom.spacing_mm[1],
            z as f64 * phantom.spacing_mm[0],
        ];
        std::array::from_fn(|row| {
            let along: f64 = (0..3).map(|j| phantom.direction[row][j] * steps[j]).sum();
            phantom.origin_mm[row] + along
        })
    };
    let voxels = |phantom: &Phantom| {
        let mut found: Vec<_> = phantom
            .image
            .indexed_iter()
            .map(|((z, y, x), value)| {
                let at = place(phantom, [z, y, x]).map(|mm| (mm * 100.0).round() as i64);
                (at, *value as i64, phantom.labels[[z, y, x]])
            })
            .collect();
        found.sort_unstable();
        found
    };
    let expected = voxels(&plain);
    for order in 0..48 {
        assert_eq!(voxels(&plain.clone().turned(order)), expected, "order {order}");
    }
    let options = ScanOptions { turn_axes: true, ..coarse(None) };
    let orders = (0..12).map(|seed| format!("{:?}", scan(seed, &options).direction));
    assert!(orders.collect::<std::collections::BTreeSet<_>>().len() > 6);
}

#[test]
fn structures_can_be_chosen() {
    let all = torso([40, 30, 44], 2);
    let some = all.clone().with_structures(&["spleen", "lung_right"]);
    for (before, after) in all.labels.iter().zip(&some.labels) {
        let expected = match STRUCTURES.get(usize::from(*before).wrapping_sub(1)) {
            Some(&"spleen") => 1,
            Some(&"lung_right") => 2,
            _ => 0,
        };
        assert_eq!(*after, expected);
    }
    assert_eq!(all.image, some.image);
}

#[test]
fn a_dataset_has_nnunets_layout() {
    let folder = tempfile::tempdir().unwrap();
    let options = DatasetOptions {
        seeds: 3..5,
        scan: ScanOptions { in_plane_mm: [9.0; 2], slice_mm: [12.0; 2], ..coarse(None) },
        structures: &["liver", "spleen"],
    };
    write_dataset(folder.path(), &options, &mut |_| ()).unwrap();
    let json: serde_json::Value =
        stunet_data::files::read_json(&folder.path().join("dataset.json")).unwrap();
    assert_eq!(json["labels"], serde_json::json!({"background": 0, "liver": 1, "spleen": 2}));
    assert_eq!(json["numTraining"], 2);
    for seed in [3, 4] {
        let expected = scan(seed, &options.scan).with_structures(options.structures);
        let image = folder.path().join(format!("imagesTr/phantom_{seed:04}_0000.nii.gz"));
        let image = stunet_data::nifti::read_image(&[image]).unwrap();
        assert_eq!(image.data.index_axis(Axis(0), 0), expected.image);
        let labels = folder.path().join(format!("labelsTr/phantom_{seed:04}.nii.gz"));
        let labels = stunet_data::nifti::read_labelmap(&labels).unwrap();
        assert_eq!(labels.data, expected.labels);
        image.geometry.check_same_grid(&labels.geometry).unwrap();
    }
}
