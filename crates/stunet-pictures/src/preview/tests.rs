use super::*;
use ndarray::{Array3, Array4, Axis, s};
use stunet_data::geometry::Turn;
use stunet_data::image::{Image, RawImage, Voxels};

const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// A body in air with a large organ on its right, a small one on its left and a rod in its back.
fn torso(shape: [usize; 3], spacing: [f64; 3]) -> (RawImage, LabelMap) {
    let geometry = Geometry::new(shape, spacing, [-120.0, -90.0, 40.0], IDENTITY).unwrap();
    let [z, y, x] = shape.map(|n| n as f64);
    let at = |v: usize, n: f64| (v as f64 + 0.5) / n - 0.5;
    let place = move |(k, j, i): (usize, usize, usize)| [at(k, z), at(j, y), at(i, x)];
    let ball = |p: [f64; 3], c: [f64; 3], r: f64| {
        (0..3).map(|i| (p[i] - c[i]).powi(2)).sum::<f64>() < r * r
    };
    let labels = Array3::from_shape_fn(shape, |index| match place(index) {
        p if ball(p, [-0.1, 0.0, -0.18], 0.17) => 1,
        p if ball(p, [-0.1, 0.05, 0.22], 0.09) => 2,
        p if (p[1] - 0.28).hypot(p[2]) < 0.06 => 3u16,
        _ => 0,
    });
    let image = Array3::from_shape_fn(shape, |index| match place(index) {
        p if labels[index] == 3 => 700 + (p[0] * 100.0) as i16,
        p if (p[1] / 0.40).hypot(p[2] / 0.42) < 1.0 => 20 + 30 * labels[index] as i16,
        _ => -1000,
    });
    let image =
        RawImage { voxels: Voxels::I16(image.insert_axis(Axis(0))), geometry: geometry.clone() };
    (image, LabelMap::new(labels, geometry).unwrap())
}

fn names() -> BTreeMap<u16, String> {
    [(1, "liver"), (2, "spleen"), (3, "my label")].map(|(v, n)| (v, n.to_owned())).into()
}

fn draw(image: &RawImage, labels: &LabelMap) -> Canvas {
    let scene = Scene::new(image, labels, &names(), &SceneOptions::default()).unwrap();
    scene.preview(&PreviewOptions::default())
}

fn pixels(canvas: &Canvas) -> Vec<Colour> {
    let (width, height) = (canvas.width(), canvas.height());
    (0..width * height).map(|i| canvas.pixel(i % width, i / width)).collect()
}

/// Mean place of pixels near a colour in a part of the picture, from 0 to 1.
fn centre(canvas: &Canvas, colour: Colour, columns: std::ops::Range<usize>) -> (f64, f64, usize) {
    let near = |found: Colour| (0..3).all(|i| found[i].abs_diff(colour[i]) < 30);
    let rows = 106..106 + 260;
    let (mut x, mut y, mut count) = (0, 0, 0);
    for row in rows {
        for column in columns.clone() {
            if near(canvas.pixel(column, row)) {
                (x, y, count) = (x + column - columns.start, y + row, count + 1);
            }
        }
    }
    let count_or_one = count.max(1) as f64;
    (x as f64 / count_or_one / columns.len() as f64, y as f64 / count_or_one, count)
}

#[test]
fn the_patients_right_is_left_and_the_head_is_up() {
    let (image, labels) = torso([40, 48, 56], [5.0, 4.0, 4.0]);
    let canvas = draw(&image, &labels);
    let (liver, spleen) = (colour_of("liver", 1), colour_of("spleen", 2));
    // Axial and coronal, in fields of 281 pixels.
    for columns in [20..301, 313..594] {
        let (right, _, count) = centre(&canvas, liver, columns.clone());
        let (left, _, other) = centre(&canvas, spleen, columns);
        assert!(count > 50 && other > 20, "{count} {other}");
        assert!(right < 0.45 && left > 0.55, "{right} {left}");
    }
    // The rod is at the back: below in the axial plane, on the right in the sagittal one.
    let rod = colour_of("my label", 3);
    let (_, down, _) = centre(&canvas, rod, 20..301);
    let (_, organ, _) = centre(&canvas, liver, 20..301);
    assert!(down > organ + 20.0);
}

/// However the voxels are stored, the picture is the same to the last pixel.
#[test]
fn all_orientations_give_one_picture() {
    let (image, labels) = torso([14, 18, 20], [5.0, 4.0, 3.0]);
    let expected = pixels(&draw(&image, &labels));
    let Voxels::I16(voxels) = &image.voxels else { unreachable!("made of whole numbers") };
    for order in 0..48 {
        let axes = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let flipped = std::array::from_fn(|i| (order / 6) >> i & 1 == 1);
        let turn = Turn::new(axes[order % 6], flipped).unwrap();
        let geometry =
            image.geometry.turned(turn, turn.reorder(image.geometry.spacing_mm())).unwrap();
        let turned = turn.apply(voxels.index_axis(Axis(0), 0)).as_standard_layout().into_owned();
        let image = RawImage {
            voxels: Voxels::I16(turned.insert_axis(Axis(0))),
            geometry: geometry.clone(),
        };
        let turned = turn.apply(labels.data.view()).as_standard_layout().into_owned();
        let labels = LabelMap::new(turned, geometry).unwrap();
        assert!(pixels(&draw(&image, &labels)) == expected, "order {order}");
    }
}

#[test]
fn labels_may_be_stored_in_another_order_than_the_image() {
    let (image, labels) = torso([14, 18, 20], [5.0, 4.0, 3.0]);
    let turn = Turn::new([2, 0, 1], [true, false, true]).unwrap();
    let geometry =
        labels.geometry.turned(turn, turn.reorder(labels.geometry.spacing_mm())).unwrap();
    let turned = turn.apply(labels.data.view()).as_standard_layout().into_owned();
    let turned = LabelMap::new(turned, geometry).unwrap();
    assert!(pixels(&draw(&image, &turned)) == pixels(&draw(&image, &labels)));
    let other = Geometry::new([14, 18, 20], [5.0, 4.0, 3.0], [0.0; 3], IDENTITY).unwrap();
    let other = LabelMap::new(labels.data.clone(), other).unwrap();
    let error = Scene::new(&image, &other, &names(), &SceneOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("labels and image lie on different grids: origin"),
        "{error}"
    );
    let truth = SceneOptions { truth: Some((&other).into()), ..Default::default() };
    let error = Scene::new(&image, &labels, &names(), &truth).unwrap_err();
    assert!(error.to_string().starts_with("truth and image"), "{error}");
}

#[test]
fn what_was_found_is_listed_by_volume() {
    let (image, labels) = torso([40, 48, 56], [5.0, 4.0, 4.0]);
    let mut truth = labels.clone();
    truth.data.slice_mut(s![..16, .., ..]).mapv_inplace(|v| if v == 2 { 0 } else { v });
    truth.data[[0, 0, 0]] = 9;
    let options = SceneOptions { truth: Some((&truth).into()), ..Default::default() };
    let scene = Scene::new(&image, &labels, &names(), &options).unwrap();
    let found = scene.found();
    let listed: Vec<_> = found.iter().map(|label| label.name.as_str()).collect();
    assert_eq!(listed[0], "liver");
    assert_eq!(listed[3], "label 9");
    assert_eq!((found[3].voxels, found[3].dice), (0, Some(0.0)));
    assert_eq!(found[0].dice, Some(1.0));
    assert!((found[0].volume_ml - found[0].voxels as f64 * 0.08).abs() < 1e-9);
    let spleen = found.iter().find(|label| label.value == 2).unwrap().dice.unwrap();
    assert!(spleen > 0.0 && spleen < 0.9, "{spleen}");
    // A row more than without the truth.
    let with = scene.preview(&PreviewOptions::default()).height();
    assert!(with > draw(&image, &labels).height() + 100);
}

/// Nothing overlaps or is cut: the sides are black, and every picture has its notes.
#[test]
fn extreme_volumes_fit() {
    let sizes: [([usize; 3], [f64; 3]); 6] = [
        ([1, 30, 30], [5.0, 1.0, 1.0]),
        ([400, 8, 9], [5.0, 40.0, 50.0]),
        ([3, 3, 3], [1.0; 3]),
        ([20, 64, 2], [0.1, 3.0, 90.0]),
        ([90, 12, 64], [2.0, 0.3, 0.3]),
        ([2, 2, 300], [1.0; 3]),
    ];
    for (shape, spacing) in sizes {
        let (image, labels) = torso(shape, spacing);
        let canvas = draw(&image, &labels);
        assert_eq!(canvas.width(), 1200);
        assert!((400..1700).contains(&canvas.height()), "{shape:?}: {}", canvas.height());
        let ground = canvas.pixel(0, 0);
        for y in 0..canvas.height() {
            assert!(
                (0..18).chain(1182..1200).all(|x| canvas.pixel(x, y) == ground),
                "{shape:?}: {y}"
            );
        }
        Scene::new(&image, &labels, &names(), &SceneOptions::default()).unwrap().thumbnail();
    }
}

#[test]
fn no_label_many_labels_and_numbers_that_are_none() {
    let (image, mut labels) = torso([10, 12, 14], [5.0; 3]);
    labels.data.fill(0);
    let scene = Scene::new(&image, &labels, &names(), &SceneOptions::default()).unwrap();
    assert!(scene.found().is_empty());
    scene.preview(&PreviewOptions::default());
    for (index, value) in labels.data.iter_mut().enumerate() {
        *value = (index * 37 % 65536) as u16;
    }
    let full = draw(&image, &labels);
    assert!(full.height() < 1700);
    let geometry = image.geometry.clone();
    let data = Array4::from_shape_fn((2, 10, 12, 14), |(c, z, ..)| match (c, z) {
        (0, _) => f32::NAN,
        (_, 3) => f32::INFINITY,
        _ => z as f32,
    });
    let image = Image::new(data, geometry).unwrap();
    for channel in 0..2 {
        let options = SceneOptions { channel, ..Default::default() };
        Scene::new(&image, &labels, &names(), &options)
            .unwrap()
            .preview(&PreviewOptions::default());
    }
    let options = SceneOptions { channel: 2, ..Default::default() };
    let error = Scene::new(&image, &labels, &names(), &options).unwrap_err().to_string();
    assert_eq!(error, "channel: expected 0 to 1, found 2");
}
