//! Lungs, heart, great vessels, airways, gullet.

use super::{Paint, Sculptor, label};
use crate::shape::{Dome, Shape, Solid};
use crate::tissue::{AIR, FAT, Fill, Tissue};
use crate::trunk::Trunk;

/// Lungs fill what ribs and diaphragm leave them, beside a mediastinum of fat.
pub(super) fn paint(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let mediastinum = sculptor.egg([85.0, -6.0, 4.0], [165.0, 118.0, 30.0], [0.0; 3]);
    let above = Dome { raised_by: 3.0, ..trunk.dome };
    let aerated = sculptor.between(-885.0, -800.0);
    for (name, side) in [("lung_right", -1.0f32), ("lung_left", 1.0)] {
        let whole = sculptor.egg([62.0, -2.0, 70.0 * side], [185.0, 112.0, 76.0], [0.0; 3]);
        let solid = Solid::of(whole)
            .within(Shape::Loft(trunk.cavity.clone(), -3.5))
            .within(Shape::Half { normal: [0.0, 0.0, -side], offset: -11.0 })
            .cut(Shape::Below(above))
            .cut(mediastinum.clone());
        let solid = sculptor.rough(solid, 1.5, 30.0);
        let vessels = sculptor.blood.right_heart.min(120.0) - 20.0;
        let fill = Fill::Lung { vessels, hilum: [92.0, 8.0, 34.0 * side] };
        let tissue = sculptor.filled(aerated, 16.0, fill);
        sculptor.paint(solid, tissue, label(name));
    }
}

/// The heart and its chambers, with some fat around it.
///
/// It rests on the diaphragm and moves with it.
pub(super) fn paint_heart(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let tilt = sculptor.moved([-38.0, 22.0, 0.0], 8.0);
    let size = sculptor.factor(0.10);
    let resting = trunk.dome.height(-30.0, 22.0) + 46.0 * size;
    let centre = sculptor.moved([resting, -32.0, 24.0], 4.0);
    let frame = crate::shape::turned(tilt);
    // A chamber by its place along the heart's own axes.
    let chamber = |at: [f32; 3], radii: [f32; 3]| {
        let offset: [f32; 3] =
            std::array::from_fn(|i| (0..3).map(|row| frame[row][i] * at[row] * size).sum());
        let centre = std::array::from_fn(|i| centre[i] + offset[i]);
        Shape::Ellipsoid { centre, frame, radii: radii.map(|r| r * size) }
    };
    let fat = Solid::of(chamber([0.0, 2.0, 0.0], [52.0, 50.0, 69.0]));
    let fat = sculptor.rough(fat, 2.0, 35.0);
    let tissue = sculptor.fat();
    sculptor.paint(fat, tissue, Paint::Clear);
    let heart = Solid::of(chamber([0.0; 3], [47.0, 45.0, 64.0]))
        .add(chamber([14.0, 10.0, -26.0], [36.0, 32.0, 34.0]));
    let heart = sculptor.rough(heart, 2.0, 30.0);
    let (left, right) = (sculptor.blood.aorta, sculptor.blood.right_heart);
    let tissue = Tissue::even(sculptor.blood.myocardium, 7.0);
    sculptor.paint(heart, tissue, label("heart"));
    let chambers = [
        (chamber([-8.0, 8.0, 18.0], [19.0, 19.0, 31.0]), left),
        (chamber([-4.0, -22.0, -2.0], [26.0, 13.0, 38.0]), right),
        (chamber([16.0, 26.0, -20.0], [19.0, 14.0, 24.0]), left),
        (chamber([6.0, 0.0, -44.0], [26.0, 24.0, 14.0]), right),
    ];
    for (shape, blood) in chambers {
        sculptor.paint(Solid::of(shape), Tissue::even(blood, 5.0), Paint::Keep);
    }
}

/// Vessels, airways and the gullet.
pub(super) fn paint_vessels(sculptor: &mut Sculptor<'_>) {
    gullet(sculptor);
    let (arterial, venous) = (sculptor.blood.aorta, sculptor.blood.veins);
    let pulmonary = sculptor.blood.right_heart;
    let mut blood = |nodes: &[[f32; 4]], mean: f32, paint: Paint| {
        let tube = sculptor.tube(nodes, 3.0);
        let solid = sculptor.rough(Solid::of(tube), 0.8, 18.0);
        sculptor.paint(solid, Tissue::even(mean, 5.0), paint);
    };
    let trunk = [[70.0, -50.0, 22.0, 13.0], [104.0, -24.0, 24.0, 13.0], [100.0, 2.0, 14.0, 11.0]];
    blood(&trunk, pulmonary, Paint::Clear);
    blood(&[[102.0, -8.0, 8.0, 11.0], [94.0, 8.0, -44.0, 8.0]], pulmonary, Paint::Clear);
    blood(&[[104.0, -8.0, 26.0, 11.0], [98.0, 16.0, 48.0, 8.0]], pulmonary, Paint::Clear);
    let upper =
        [[52.0, -14.0, -24.0, 10.0], [150.0, -18.0, -28.0, 9.0], [205.0, -14.0, -34.0, 8.0]];
    blood(&upper, venous, Paint::Clear);
    let lower = [
        [-200.0, 16.0, -20.0, 10.0],
        [-90.0, 20.0, -25.0, 11.0],
        [-10.0, 14.0, -28.0, 12.0],
        [40.0, -4.0, -24.0, 12.0],
    ];
    blood(&lower, venous, Paint::Clear);
    for side in [-1.0f32, 1.0] {
        let neck = [
            [140.0, -4.0, 6.0 * side, 6.0],
            [215.0, 2.0, 22.0 * side, 5.0],
            [345.0, 2.0, 28.0 * side, 4.5],
        ];
        blood(&neck, arterial, Paint::Clear);
        let leg = [
            [-188.0, 18.0, 4.0 * side, 6.5],
            [-250.0, 22.0, 44.0 * side, 5.5],
            [-330.0, -40.0, 66.0 * side, 5.0],
        ];
        blood(&leg, arterial, Paint::Clear);
    }
    let aorta = [
        [62.0, -20.0, 4.0, 15.0],
        [110.0, -26.0, -14.0, 15.5],
        [140.0, -16.0, -6.0, 14.5],
        [151.0, 4.0, 10.0, 13.5],
        [140.0, 28.0, 24.0, 12.5],
        [100.0, 40.0, 28.0, 12.0],
        [20.0, 37.0, 20.0, 11.5],
        [-90.0, 20.0, 9.0, 9.5],
        [-190.0, 17.0, 3.0, 8.5],
    ];
    blood(&aorta, arterial, label("aorta"));
    airways(sculptor);
}

fn gullet(sculptor: &mut Sculptor<'_>) {
    let tube = sculptor.tube(
        &[
            [345.0, 22.0, 4.0, 7.0],
            [240.0, 34.0, 5.0, 7.0],
            [130.0, 42.0, 6.0, 7.5],
            [30.0, 32.0, 16.0, 8.0],
            [-12.0, 10.0, 32.0, 8.0],
        ],
        2.0,
    );
    let wall = sculptor.filled(40.0, 8.0, Fill::Hollow { content: 5.0, wall_mm: 4.0 });
    sculptor.paint(Solid::of(tube), wall, Paint::Clear);
}

fn airways(sculptor: &mut Sculptor<'_>) {
    let windpipe = [[345.0, 2.0, 0.0, 9.0], [245.0, 14.0, 0.0, 9.0], [120.0, 24.0, -3.0, 8.5]];
    let tube = sculptor.tube(&windpipe, 2.0);
    let Shape::Tube(nodes) = &tube else { return };
    let ([z, y, x], radius) = nodes[nodes.len() - 1];
    let fork: Vec<_> = [-1.0f32, 1.0]
        .map(|side| {
            let hilum = sculptor.moved([z - 26.0, y + 1.0, x + 40.0 * side], 3.0);
            Shape::Tube(vec![([z - 2.0, y, x], 0.75 * radius), (hilum, 0.55 * radius)])
        })
        .into();
    let wall = Tissue::even(0.5 * FAT + 70.0, 8.0);
    let air = Tissue::even(AIR + 12.0, 5.0);
    for shape in &fork {
        sculptor.paint(Solid::of(shape.clone()).grown(1.8), wall.clone(), Paint::Clear);
    }
    sculptor.paint(Solid::of(tube.clone()).grown(2.0), wall, Paint::Clear);
    for shape in fork {
        sculptor.paint(Solid::of(shape), air.clone(), Paint::Clear);
    }
    sculptor.paint(Solid::of(tube), air, label("trachea"));
}
