use super::*;
use crate::geometry::{BodySide, Geometry, Turn};
use crate::labels::LabelVoxels;
use ndarray::{Array4, arr3};
use proptest::prelude::*;
use stunet_testing::prng;

/// 2 × 3 × 4 voxels of 3 × 2 × 0.5 mm, RAS, the first at (10, 20, 30).
fn grid() -> Geometry {
    let affine =
        [[0.5, 0.0, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 3.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
    Geometry::from_world_from_voxel([2, 3, 4], &affine).unwrap()
}

fn labels() -> CompactLabelMap {
    let voxels = arr3(&[
        [[0u8, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 1, 0, 0], [0, 0, 0, 9], [0, 0, 0, 0]],
    ]);
    CompactLabelMap { voxels: LabelVoxels::Bytes(voxels), geometry: grid() }
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found}: {expected}");
}

/// The intensities of label 1 are -5, 1, 2, 10 in this order of x, y, z; elsewhere 1000.
fn image(small: bool) -> RawImage {
    let mut data = Array4::from_elem((1, 2, 3, 4), 1000i16);
    data[[0, 0, 0, 1]] = -5;
    data[[0, 0, 0, 2]] = 1;
    data[[0, 0, 1, 1]] = 2;
    data[[0, 1, 0, 1]] = 10;
    let voxels = match small {
        true => Voxels::I16(data),
        false => Voxels::F32(data.mapv(f32::from)),
    };
    RawImage { voxels, geometry: grid() }
}

#[test]
fn by_hand() {
    let mut confidence = Array3::from_elem((2, 3, 4), 0u8);
    confidence[[0, 0, 1]] = 255;
    confidence[[0, 0, 2]] = 51;
    for small in [true, false] {
        let image = image(small);
        let measured = StatisticsInput { image: Some(&image), confidence: Some(&confidence) };
        let names = [(0, "background"), (1, "liver"), (5, "spleen")];
        let found = CaseStatistics::of("a", &labels(), &names, measured).unwrap();
        let names: Vec<&str> = found.labels.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(names, ["liver", "spleen", "label_9"]);
        let [liver, spleen, other] = &found.labels[..] else { unreachable!("three labels") };
        assert_eq!((liver.label, liver.voxels), (1, 4));
        near(liver.volume_ml, 0.012);
        near(liver.confidence.unwrap(), (1.0 + 0.2) / 4.0);
        let of = liver.intensities[0];
        near(of.mean, 2.0);
        // (49 + 1 + 0 + 64) / 4
        near(of.sd, 28.5f64.sqrt());
        assert_eq!((of.min, of.max, of.median), (-5.0, 10.0, 1.5));
        // numpy.percentile([-5, 1, 2, 10], [5, 95]): places 0.15 and 2.85.
        near(of.percentile_5, -5.0 + 6.0 * 0.15);
        near(of.percentile_95, 10.0 - 8.0 * 0.15);
        let place = liver.position.as_ref().unwrap();
        // Means of x 1, 2, 1, 1, of y 0, 0, 1, 0 and of z 0, 0, 0, 1.
        near(place.centroid_mm.x, 10.0 + 0.5 * 1.25);
        near(place.centroid_mm.y, 20.0 + 2.0 * 0.25);
        near(place.centroid_mm.z, 30.0 + 3.0 * 0.25);
        assert_eq!(place.box_voxels, VoxelBox { x: [1, 2], y: [0, 1], z: [0, 1] });
        let expected = LabelBox { x: [10.25, 11.25], y: [19.0, 23.0], z: [28.5, 34.5] };
        assert_eq!(place.box_mm, expected);
        use BodySide::{Inferior, Posterior, Right, Superior};
        assert_eq!(place.touches, [Posterior, Inferior, Superior]);
        assert_eq!((spleen.voxels, &spleen.position, spleen.confidence), (0, &None, None));
        assert!(spleen.intensities.is_empty());
        assert_eq!(other.position.as_ref().unwrap().touches, [Right, Superior]);
        assert_eq!(other.intensities[0].sd, 0.0);
        assert_eq!(other.intensities[0].percentile_95, 1000.0);
    }
}

#[test]
fn channels_and_nothing() {
    let one = image(true);
    let Voxels::I16(data) = &one.voxels else { unreachable!("small numbers") };
    let two = ndarray::concatenate![Axis(0), data.view(), (data + 1).view()];
    let image = RawImage { voxels: Voxels::I16(two), geometry: grid() };
    let measured = StatisticsInput { image: Some(&image), confidence: None };
    let found = CaseStatistics::of("a", &labels(), &[], measured).unwrap();
    let means: Vec<f64> = found.labels[0].intensities.iter().map(|of| of.mean).collect();
    assert_eq!(means, [2.0, 3.0]);
    let found = CaseStatistics::of("a", &labels(), &[], StatisticsInput::default()).unwrap();
    assert!(found.labels[0].intensities.is_empty() && found.labels[0].confidence.is_none());
    let empty = CompactLabelMap { voxels: LabelVoxels::zeros([2, 3, 4], 1), geometry: grid() };
    let found = CaseStatistics::of("a", &empty, &[(1, "liver")], measured).unwrap();
    assert_eq!((found.labels.len(), found.labels[0].voxels), (1, 0));
}

#[test]
fn an_image_that_a_reader_turned() {
    let turn = Turn::new([2, 0, 1], [true, false, true]).unwrap();
    let one = image(true);
    let Voxels::I16(data) = &one.voxels else { unreachable!("small numbers") };
    let turned = turn.apply(data.index_axis(Axis(0), 0)).to_owned();
    let shape = turned.dim();
    let geometry = grid().turned(turn, turn.reorder(grid().spacing_mm())).unwrap();
    let data = turned
        .as_standard_layout()
        .into_owned()
        .into_shape_with_order((1, shape.0, shape.1, shape.2));
    let image = RawImage { voxels: Voxels::I16(data.unwrap()), geometry };
    let measured = |image| StatisticsInput { image: Some(image), confidence: None };
    let found = CaseStatistics::of("a", &labels(), &[], measured(&image)).unwrap();
    assert_eq!(found, CaseStatistics::of("a", &labels(), &[], measured(&one)).unwrap());
}

#[test]
fn other_shapes_are_refused() {
    let image = RawImage {
        voxels: Voxels::I16(Array4::zeros((1, 2, 3, 5))),
        geometry: Geometry::axis_aligned([2, 3, 5], [1.0; 3]).unwrap(),
    };
    let measured = StatisticsInput { image: Some(&image), confidence: None };
    let error = CaseStatistics::of("a", &labels(), &[], measured).unwrap_err().to_string();
    assert!(error.contains("shape of the image") && error.contains("[2, 3, 5]"), "{error}");
}

#[test]
fn files_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(true);
    let measured = StatisticsInput { image: Some(&image), confidence: None };
    let names = [(1, "liver, left"), (5, "spleen")];
    let found = CaseStatistics::of("case 1", &labels(), &names, measured).unwrap();
    let path = folder.path().join("a.json");
    found.save(&path).unwrap();
    assert_eq!(CaseStatistics::load(&path).unwrap(), found);
    let table = csv(&[found.clone(), found]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 7);
    assert!(lines[0].starts_with("case,label,name,voxels,volume_ml,mean,sd,min,percentile_5,"));
    let columns = lines[0].split(',').count();
    assert_eq!(
        lines[1],
        "case 1,1,\"liver, left\",4,0.012,2,5.33854,-5,-4.1,1.5,8.8,10,10.625,20.500,30.750,1,2,0,1,0,1,\
         10.250,11.250,19.000,23.000,28.500,34.500,posterior+inferior+superior,"
    );
    assert_eq!(lines[2].split(',').count(), columns);
    assert_eq!(lines[2], format!("case 1,5,spleen,0,0{}", ",".repeat(columns - 5)));
    std::fs::write(&path, "{}").unwrap();
    assert!(CaseStatistics::load(&path).is_err());
}

/// By the definition, label by label.
fn by_sorting(values: &mut [f64]) -> [f64; 7] {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let part = |q: f64| {
        let place = (n - 1.0) * q;
        let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
        low + (high - low) * (place - place.floor())
    };
    [mean, sd, values[0], part(0.05), part(0.5), part(0.95), values[values.len() - 1]]
}

proptest! {
    #[test]
    fn any_intensities(seed in 0u64..10_000, range in 1u64..40_000, threads in 1usize..4) {
        let shape = (5, 6, 7);
        let of: Vec<u16> = prng::integers(seed, 0, 210, 4).iter().map(|v| *v as u16).collect();
        let values: Vec<i16> = prng::integers(seed, 1, 210, range)
            .iter()
            .map(|v| (*v as i64 - range as i64 / 2) as i16)
            .collect();
        let voxels = LabelVoxels::Words(Array3::from_shape_vec(shape, of.clone()).unwrap());
        let geometry = Geometry::axis_aligned([5, 6, 7], [1.0; 3]).unwrap();
        let labels = CompactLabelMap { voxels, geometry: geometry.clone() };
        let data = Array4::from_shape_vec((1, 5, 6, 7), values.clone()).unwrap();
        let single = Voxels::F32(data.mapv(f32::from));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for voxels in [Voxels::I16(data), single] {
            let image = RawImage { voxels, geometry: geometry.clone() };
            let measured = StatisticsInput { image: Some(&image), confidence: None };
            let found = pool.install(|| CaseStatistics::of("a", &labels, &[], measured)).unwrap();
            for label in &found.labels {
                let mut own: Vec<f64> = (of.iter().zip(&values))
                    .filter(|(of, _)| **of == label.label)
                    .map(|(_, value)| f64::from(*value))
                    .collect();
                prop_assert_eq!(label.voxels, own.len() as u64);
                let is = label.intensities[0];
                let is = [
                    is.mean, is.sd, is.min, is.percentile_5, is.median, is.percentile_95, is.max,
                ];
                for (is, expected) in is.into_iter().zip(by_sorting(&mut own)) {
                    prop_assert!((is - expected).abs() <= 1e-9 * expected.abs().max(1.0));
                }
            }
        }
    }
}
