//! One scan in all 48 orientations, read from files, gives one labelmap: every voxel, in its place.
//!
//! The demo model on a phantom, and on a public CT where that is there (beside the private golden data).
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

#[path = "../examples/common/mod.rs"]
mod common;

use common::demo;
use common::phantoms::phantom;
use ndarray::s;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use stunet::data::geometry::{Geometry, Orientation};
use stunet::data::image::Image;
use stunet::data::labels::LabelMap;
use stunet::data::nifti::{self, Opener};
use stunet::data::plans::OrientationChoice;
use stunet::infer::{Model, OpenOptions, PredictOptions, predict};
use stunet_testing::harness::{Absent, Tests};
use stunet_testing::oracle::{Part, VOLUMES};
use stunet_testing::phantom::{Region, ScanOptions};

fn main() -> ExitCode {
    let mut tests = Tests::from_arguments();
    if std::env::var("STUNET_ORACLE_REQUIRED").is_ok_and(|value| value == "1") {
        tests.require_everything();
    }
    tests.add("phantom", Ok(()), || check(&part_of_a_phantom()));
    tests.add("example_ct_sm", Ok(()), || -> Result<(), Absent> {
        let file = Part::private()?.need(&format!("{VOLUMES}/example_ct_sm.nii.gz"))?;
        check(&nifti::read_image(&[file]).unwrap());
        Ok(())
    });
    tests.run()
}

/// Liver, spleen and kidneys of one: what lies on one side only tells a mirrored scan from another.
fn part_of_a_phantom() -> Image {
    let region = Some(Region::Abdomen);
    let options =
        ScanOptions { region, in_plane_mm: [4.0; 2], slice_mm: [5.0; 2], turn_axes: false };
    let whole = phantom(demo::TEST_SEEDS.start, &options, &demo::STRUCTURES).unwrap().image;
    let [z, y, x] = whole.geometry.shape();
    let part = whole.data.slice(s![.., z - 40..z, y / 2 - 28..y / 2 + 28, x / 2 - 40..x / 2 + 41]);
    let geometry = Geometry::axis_aligned([40, 56, 81], whole.geometry.spacing_mm()).unwrap();
    Image::new(part.to_owned(), geometry).unwrap()
}

/// The image as another program would have stored it.
fn stored_as(image: &Image, orientation: Orientation, path: &Path) {
    let turned = image.clone().oriented(orientation).unwrap();
    let of = &turned.geometry;
    let alone = Geometry::new(of.shape(), of.spacing_mm(), of.origin_mm(), of.direction()).unwrap();
    nifti::write_image(path, &Image::new(turned.data, alone).unwrap()).unwrap();
}

fn predicted(model: &Model, opener: Opener, scan: &Path, out: &Path) -> LabelMap {
    let image = opener.read_scan(&[scan]).unwrap().into_image();
    let go_on = &mut |_| ControlFlow::Continue(());
    let found = predict(model, &image, &PredictOptions::default(), go_on).unwrap();
    nifti::write_compact_labelmap(out, &found.labelmap, model.labels().max_value(), None).unwrap();
    nifti::read_labelmap(out).unwrap()
}

/// Share of labelled voxels, of either, that have another label in the other.
fn differing(a: &LabelMap, b: &LabelMap) -> f64 {
    let to = Orientation::of(&a.geometry);
    let turned = b.geometry.oriented(to).unwrap();
    a.geometry.check_same_grid(&turned).unwrap();
    let values = turned.turn().apply(b.data.view());
    let labelled = a.data.iter().zip(values).filter(|(a, b)| **a > 0 || **b > 0);
    let (mut all, mut other) = (0, 0);
    labelled.for_each(|(a, b)| (all, other) = (all + 1, other + u64::from(a != b)));
    assert!(all > 500, "{all} labelled voxels");
    other as f64 / all as f64
}

fn check(image: &Image) {
    let device = stunet::device::parse("cpu").unwrap();
    let model = Model::open(&demo::folder(), &OpenOptions::new(&device)).unwrap();
    let own = model.plans().trained_orientation().unwrap();
    assert!(own.unanimous && own.majority == Orientation::LPS, "{own:?}");
    let opener = |choice| model.plans().opener(choice).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [scan, out] = ["scan.nii", "labels.nii"].map(|name| folder.path().join(name));
    stored_as(image, own.majority, &scan);
    let expected = predicted(&model, opener(OrientationChoice::AsIs), &scan, &out);
    for orientation in Orientation::all() {
        stored_as(image, orientation, &scan);
        let found = predicted(&model, opener(OrientationChoice::Auto), &scan, &out);
        assert_eq!(Orientation::of(&found.geometry), orientation);
        assert_eq!(differing(&expected, &found), 0.0, "{orientation}");
    }
    // What is avoided: the same scan with right and left, front and back the other way.
    stored_as(image, Orientation::RAS, &scan);
    let wrong = predicted(&model, opener(OrientationChoice::AsIs), &scan, &out);
    assert!(differing(&expected, &wrong) > 0.3, "{}", differing(&expected, &wrong));
}
