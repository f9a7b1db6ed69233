//! Spine, pelvis, shoulder girdle and breastbone; ribs belong to the trunk.

use super::{Paint, Sculptor, label};
use crate::shape::{Loft, Section, Shape, Solid};
use crate::tissue::{Fill, Tissue};

/// The line through the vertebral bodies, and their half depth and width.
const COLUMN: [Section; 9] = [
    Section { z: -290.0, centre_y: 72.0, half_y: 15.0, half_x: 22.0 },
    Section { z: -225.0, centre_y: 52.0, half_y: 17.0, half_x: 25.0 },
    Section { z: -170.0, centre_y: 45.0, half_y: 17.0, half_x: 24.5 },
    Section { z: -90.0, centre_y: 48.0, half_y: 16.5, half_x: 23.0 },
    Section { z: 0.0, centre_y: 61.0, half_y: 15.5, half_x: 19.0 },
    Section { z: 90.0, centre_y: 70.0, half_y: 14.0, half_x: 16.5 },
    Section { z: 170.0, centre_y: 66.0, half_y: 12.0, half_x: 15.0 },
    Section { z: 250.0, centre_y: 47.0, half_y: 9.5, half_x: 13.5 },
    Section { z: 350.0, centre_y: 36.0, half_y: 9.0, half_x: 12.5 },
];

pub(super) fn paint(sculptor: &mut Sculptor<'_>) {
    let cortex = sculptor.between(380.0, 560.0);
    let marrow = sculptor.between(110.0, 230.0);
    let bone = move |thickness: f32, seed: u32| {
        Tissue::filled(cortex, 18.0, Fill::Bone { marrow, cortex_mm: thickness }, seed)
    };
    girdle(sculptor, &bone);
    hips(sculptor, &bone);
    spine(sculptor, &bone);
}

fn spine(sculptor: &mut Sculptor<'_>, bone: &dyn Fn(f32, u32) -> Tissue) {
    let column = Loft::new(&COLUMN);
    let bent = sculptor.moved([0.0; 3], 4.0);
    let at = |z: f32| {
        let section = column.section(z);
        Section { centre_y: section.centre_y + bent[1], ..section }
    };
    // The oval of body and discs: two tubes side by side.
    let oval = |from: f32, to: f32, side: f32, shrink: f32| {
        let node = |z: f32| {
            let s = at(z);
            ([z, s.centre_y, bent[2] + side * (s.half_x - s.half_y)], s.half_y - shrink)
        };
        let count = ((to - from) / 30.0).ceil().max(1.0) as usize;
        Shape::Tube(
            (0..=count).map(|i| node(from + (to - from) * i as f32 / count as f32)).collect(),
        )
    };
    let discs = Solid::of(oval(-235.0, 345.0, -1.0, 1.5)).add(oval(-235.0, 345.0, 1.0, 1.5));
    sculptor.paint(discs, Tissue::even(85.0, 6.0), label("spine"));

    let sacrum_tilt = sculptor.moved([0.0, 0.0, 24.0], 4.0);
    let sacrum = Shape::Ellipsoid {
        centre: [-272.0, 74.0 + bent[1], bent[2]],
        frame: crate::shape::turned(sacrum_tilt),
        radii: [56.0, 17.0, 50.0],
    };
    let solid = sculptor.rough(Solid::of(sacrum), 2.0, 20.0);
    sculptor.paint(solid, bone(2.0, 1), label("spine"));

    let stretch = sculptor.factor(0.05);
    let mut z = -232.0 + bent[0];
    while z < 345.0 {
        let pitch = stretch * (22.0 + 14.0 * ((60.0 - z) / 260.0).clamp(-0.3, 1.0));
        let disc = 3.0 + 3.0 * ((60.0 - z) / 260.0).clamp(0.0, 1.0);
        vertebra(sculptor, &at(z + 0.5 * pitch), bent[2], pitch - disc, bone);
        z += pitch;
    }
    let canal = |z: f32| {
        let s = at(z);
        ([z, s.centre_y + s.half_y + 7.5, bent[2]], 7.2)
    };
    let canal = Shape::Tube((0..=20).map(|i| canal(-250.0 + 30.0 * i as f32)).collect());
    sculptor.paint(Solid::of(canal), Tissue::even(28.0, 5.0), Paint::Clear);
}

/// One vertebra: body, arch, and the three processes.
fn vertebra(
    sculptor: &mut Sculptor<'_>,
    s: &Section,
    x: f32,
    height: f32,
    bone: &dyn Fn(f32, u32) -> Tissue,
) {
    let middle = |side: f32| {
        let node = |dz: f32| ([s.z + dz, s.centre_y, x + side * (s.half_x - s.half_y)], s.half_y);
        Shape::Tube(vec![node(-0.5 * height), node(0.5 * height)])
    };
    let plate = |up: f32| Shape::Half { normal: [up, 0.0, 0.0], offset: up * s.z + 0.5 * height };
    let body = Solid::of(middle(-1.0)).add(middle(1.0)).within(plate(1.0)).within(plate(-1.0));
    sculptor.paint(body, bone(1.8, 0), label("spine"));

    let canal_y = s.centre_y + s.half_y + 7.0;
    let egg = |offset: [f32; 3], radii: [f32; 3], about_x: f32| Shape::Ellipsoid {
        centre: [s.z + offset[0], canal_y + offset[1], x + offset[2]],
        frame: crate::shape::turned([0.0, 0.0, about_x]),
        radii,
    };
    let low = -0.12 * height;
    let mut arch = Solid::of(egg([low, 0.5, 0.0], [0.36 * height, 12.5, 14.5], 0.0)).add(egg(
        [low - 4.0, 20.0, 0.0],
        [0.33 * height, 19.0, 4.0],
        22.0,
    ));
    let across = 14.0 + s.half_x;
    arch = arch.add(egg([0.0, 3.0, 0.0], [0.20 * height, 5.0, across], 0.0));
    arch = sculptor.rough(arch, 1.0, 12.0);
    sculptor.paint(arch, bone(1.8, 0), label("spine"));
}

fn hips(sculptor: &mut Sculptor<'_>, bone: &dyn Fn(f32, u32) -> Tissue) {
    let size = sculptor.factor(0.05);
    for side in [-1.0f32, 1.0] {
        let egg = |centre: [f32; 3], radii: [f32; 3]| Shape::Ellipsoid {
            centre: [centre[0], centre[1], centre[2] * side * size],
            frame: crate::shape::turned([0.0; 3]),
            radii: radii.map(|r| r * size),
        };
        let wing = Solid::of(egg([-246.0, 24.0, 36.0], [84.0, 74.0, 94.0]))
            .cut(egg([-236.0, 6.0, 30.0], [92.0, 74.0, 90.0]))
            .within(Shape::Half { normal: [0.0, 0.0, -side], offset: -36.0 })
            .within(Shape::Half { normal: [-1.0, 0.0, 0.0], offset: 318.0 })
            .within(Shape::Half { normal: [0.0, -1.0, 0.0], offset: 42.0 });
        sculptor.paint(wing, bone(1.8, 3), Paint::Clear);
        let tube = |nodes: &[[f32; 4]]| {
            let nodes = nodes.iter();
            Shape::Tube(nodes.map(|&[z, y, x, r]| ([z, y, x * side * size], r)).collect())
        };
        let ring = Solid::of(egg([-330.0, 6.0, 88.0], [34.0, 34.0, 30.0]))
            .add(tube(&[
                [-335.0, -10.0, 64.0, 11.0],
                [-352.0, -56.0, 16.0, 8.0],
                [-364.0, -58.0, 9.0, 9.0],
            ]))
            .add(tube(&[[-345.0, 32.0, 72.0, 14.0], [-392.0, 40.0, 56.0, 13.0]]))
            .add(tube(&[[-364.0, -56.0, 12.0, 7.0], [-395.0, 20.0, 50.0, 8.0]]));
        sculptor.paint(ring, bone(2.0, 4), Paint::Clear);
        let joint = Solid::of(egg([-338.0, 2.0, 94.0], [27.5, 27.5, 27.5]));
        sculptor.paint(joint, Tissue::even(70.0, 6.0), Paint::Clear);
        let thigh = Solid::of(egg([-338.0, 2.0, 94.0], [24.0, 24.0, 24.0])).add(tube(&[
            [-340.0, 4.0, 100.0, 15.0],
            [-358.0, 14.0, 132.0, 15.0],
            [-440.0, 16.0, 140.0, 14.0],
        ]));
        sculptor.paint(thigh, bone(2.2, 5), Paint::Clear);
    }
}

fn girdle(sculptor: &mut Sculptor<'_>, bone: &dyn Fn(f32, u32) -> Tissue) {
    for side in [-1.0f32, 1.0] {
        let blade =
            sculptor.egg([172.0, 76.0, 96.0 * side], [66.0, 4.5, 40.0], [34.0 * side, 0.0, 10.0]);
        sculptor.paint(Solid::of(blade), bone(1.6, 6), Paint::Clear);
        let collar = sculptor.tube(
            &[
                [232.0, -30.0, 14.0 * side, 8.0],
                [240.0, -32.0, 52.0 * side, 6.0],
                [252.0, 4.0, 118.0 * side, 6.5],
            ],
            3.0,
        );
        sculptor.paint(Solid::of(collar), bone(1.8, 7), Paint::Clear);
        let head = sculptor.egg([236.0, 20.0, 134.0 * side], [22.0; 3], [0.0; 3]);
        sculptor.paint(Solid::of(head), bone(2.0, 8), Paint::Clear);
    }
    let drop = sculptor.between(-4.0, 4.0);
    let plank = |x: f32| {
        let nodes =
            [[200.0, -56.0, 6.5], [150.0, -77.0, 5.5], [70.0, -93.0, 5.5], [40.0, -98.0, 4.0]];
        Shape::Tube(nodes.map(|[z, y, r]| ([z + drop, y, x], r)).into())
    };
    let sternum = Solid::of(plank(-9.0)).add(plank(0.0)).add(plank(9.0));
    sculptor.paint(sternum, bone(1.6, 9), Paint::Clear);
}
