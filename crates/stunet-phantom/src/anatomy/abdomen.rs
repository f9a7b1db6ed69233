//! Organs below the diaphragm.

use super::{Paint, Sculptor, label};
use crate::shape::{Dome, Shape, Solid};
use crate::tissue::{AIR, Fill, Tissue};
use crate::trunk::Trunk;

/// What the organs lie before and among: psoas, bowel.
pub(super) fn paint_behind(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let muscle = trunk.muscle.clone();
    for side in [-1.0f32, 1.0] {
        let psoas = sculptor.tube(
            &[
                [-40.0, 50.0, 26.0 * side, 9.0],
                [-150.0, 38.0, 42.0 * side, 21.0],
                [-260.0, 2.0, 64.0 * side, 18.0],
                [-345.0, -18.0, 86.0 * side, 14.0],
            ],
            4.0,
        );
        sculptor.paint(Solid::of(psoas), muscle.clone(), Paint::Clear);
    }
    let wall = sculptor.blood.bowel_wall;
    let gas = sculptor.between(0.0, 0.2);
    let loops = sculptor.egg([-195.0, -22.0, 0.0], [105.0, 54.0, 86.0], [0.0; 3]);
    let loops = Solid::of(loops).within(Shape::Loft(trunk.cavity.clone(), -7.0));
    let tissue = sculptor.filled(wall, 10.0, Fill::Loops { gas });
    sculptor.paint(loops, tissue, Paint::Clear);
    colon(sculptor, trunk);
}

fn colon(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let wall = sculptor.blood.bowel_wall;
    let sections: [&[[f32; 4]]; 4] = [
        &[[-232.0, -8.0, -80.0, 21.0], [-125.0, 2.0, -92.0, 20.0], [-112.0, -30.0, -84.0, 18.0]],
        &[[-118.0, -50.0, -70.0, 17.0], [-142.0, -62.0, 0.0, 16.0], [-88.0, -34.0, 84.0, 16.0]],
        &[[-84.0, -10.0, 96.0, 15.0], [-215.0, 8.0, 100.0, 14.0], [-262.0, 8.0, 62.0, 13.0]],
        &[
            [-262.0, 8.0, 62.0, 13.0],
            [-275.0, 18.0, 8.0, 14.0],
            [-300.0, 52.0, 0.0, 15.0],
            [-365.0, 58.0, 0.0, 15.0],
        ],
    ];
    for nodes in sections {
        let tube = sculptor.tube(nodes, 6.0);
        let solid = Solid::of(tube).within(Shape::Loft(trunk.cavity.clone(), -4.0));
        let solid = sculptor.rough(solid, 4.5, 17.0);
        let gas = sculptor.between(-0.1, 0.35);
        let tissue = sculptor.filled(wall, 8.0, Fill::Stool { gas });
        sculptor.paint(solid, tissue, Paint::Clear);
    }
}

/// Pancreas, stomach, spleen, liver, gallbladder, kidneys, and the pelvis.
pub(super) fn paint(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    pancreas(sculptor);
    stomach(sculptor, trunk);
    spleen(sculptor, trunk);
    liver(sculptor, trunk);
    for side in [-1.0f32, 1.0] {
        kidney(sculptor, side);
    }
    pelvis(sculptor);
}

fn below(trunk: &Trunk) -> Shape {
    Shape::Below(Dome { raised_by: -2.0, ..trunk.dome })
}

fn pancreas(sculptor: &mut Sculptor<'_>) {
    let tube = sculptor.tube(
        &[
            [-134.0, -4.0, -28.0, 14.0],
            [-112.0, -8.0, -26.0, 17.0],
            [-100.0, -16.0, -2.0, 12.0],
            [-92.0, -4.0, 30.0, 13.0],
            [-74.0, 22.0, 72.0, 12.5],
        ],
        4.0,
    );
    let solid = sculptor.rough(Solid::of(tube), 3.0, 11.0);
    let tissue = Tissue::even(sculptor.blood.pancreas, 12.0);
    sculptor.paint(solid, tissue, label("pancreas"));
    let duodenum = sculptor.tube(
        &[
            [-92.0, -30.0, -36.0, 12.0],
            [-112.0, -2.0, -52.0, 12.0],
            [-150.0, 8.0, -40.0, 12.0],
            [-152.0, 2.0, 20.0, 11.0],
        ],
        4.0,
    );
    let wall = sculptor.blood.bowel_wall;
    let tissue = sculptor.filled(wall, 8.0, Fill::Hollow { content: 15.0, wall_mm: 3.0 });
    sculptor.paint(Solid::of(duodenum), tissue, Paint::Clear);
}

fn stomach(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let full = sculptor.between(0.75, 1.15);
    let tube = sculptor.tube(
        &[
            [-14.0, 18.0, 56.0, 36.0 * full],
            [-48.0, -18.0, 66.0, 31.0 * full],
            [-84.0, -48.0, 48.0, 26.0 * full],
            [-106.0, -58.0, 8.0, 19.0 * full],
            [-94.0, -46.0, -22.0, 13.0],
        ],
        5.0,
    );
    let solid =
        Solid::of(tube).within(Shape::Loft(trunk.cavity.clone(), -3.0)).within(below(trunk));
    let solid = sculptor.rough(solid, 3.0, 22.0);
    let content = sculptor.between(5.0, 45.0);
    let wall = sculptor.blood.bowel_wall;
    let tissue = sculptor.filled(wall, 14.0, Fill::Hollow { content, wall_mm: 4.0 });
    sculptor.paint(solid.clone(), tissue, label("stomach"));
    // Gas rises: to the front, as the patient lies on the back.
    let level = sculptor.between(-75.0, -15.0);
    let gas = solid.grown(-4.0).within(Shape::Half { normal: [0.0, 1.0, 0.0], offset: level });
    sculptor.paint(gas, Tissue::even(AIR + 35.0, 6.0), Paint::Keep);
}

fn spleen(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let body = sculptor.egg([-46.0, 38.0, 90.0], [56.0, 44.0, 32.0], [-20.0, 0.0, 20.0]);
    let hollow = sculptor.egg([-50.0, 8.0, 52.0], [46.0, 34.0, 27.0], [-20.0, 0.0, 0.0]);
    let solid = Solid::of(body)
        .within(Shape::Loft(trunk.cavity.clone(), -3.0))
        .within(below(trunk))
        .cut(hollow);
    let solid = sculptor.rough(solid, 2.0, 26.0);
    let tissue = Tissue::even(sculptor.blood.spleen, 8.0);
    sculptor.paint(solid, tissue, label("spleen"));
}

fn liver(sculptor: &mut Sculptor<'_>, trunk: &Trunk) {
    let right = sculptor.egg([-46.0, -4.0, -62.0], [92.0, 86.0, 80.0], [0.0, 14.0, 0.0]);
    let left = sculptor.egg([-36.0, -44.0, 2.0], [38.0, 38.0, 66.0], [0.0, -12.0, 0.0]);
    let solid = Solid::of(right)
        .add(left)
        .within(Shape::Loft(trunk.cavity.clone(), -2.5))
        .within(below(trunk));
    let solid = sculptor.rough(solid, 3.0, 38.0);
    let hounsfield = sculptor.blood.liver + 0.55 * (sculptor.blood.veins - 40.0) - 6.0;
    let hilum = [-58.0, -8.0, -34.0];
    let fill = Fill::Vessels { hounsfield, scale_mm: 30.0, width: 0.085, hilum };
    let liver = sculptor.blood.liver;
    let tissue = sculptor.filled(liver, 8.0, fill);
    sculptor.paint(solid, tissue, label("liver"));

    let full = sculptor.between(0.75, 1.15);
    let radii = [15.0, 30.0, 15.0].map(|r| r * full);
    let bladder = sculptor.egg([-98.0, -42.0, -50.0], radii, [0.0, 0.0, -28.0]);
    let tissue = sculptor.filled(30.0, 5.0, Fill::Hollow { content: 9.0, wall_mm: 1.5 });
    sculptor.paint(Solid::of(bladder), tissue, label("gallbladder"));
}

fn kidney(sculptor: &mut Sculptor<'_>, side: f32) {
    let name = if side < 0.0 { "kidney_right" } else { "kidney_left" };
    let z = if side < 0.0 { -112.0 } else { -98.0 };
    let centre = sculptor.moved([z, 42.0, 62.0 * side], 6.0);
    let tilt = sculptor.moved([-28.0 * side, 14.0 * side, -12.0], 7.0);
    let frame = crate::shape::turned(tilt);
    let size = sculptor.factor(0.10);
    let body = |scale: f32, radii: [f32; 3]| {
        let radii = radii.map(|r| r * scale * size);
        Shape::Ellipsoid { centre, frame, radii }
    };
    // The hilum opens towards the spine.
    let hilum = [centre[0], centre[1] - 5.0, centre[2] - 27.0 * side];
    let pit = Shape::Ellipsoid { centre: hilum, frame, radii: [17.0, 11.0, 20.0] };
    let capsule = sculptor.rough(Solid::of(body(1.0, [64.0, 33.0, 36.0])), 4.0, 30.0);
    let fat = sculptor.fat();
    sculptor.paint(capsule, fat, Paint::Clear);
    let solid = Solid::of(body(1.0, [54.0, 26.0, 28.0])).cut(pit.clone());
    let solid = sculptor.rough(solid, 1.5, 18.0);
    let (cortex, medulla) = (sculptor.blood.kidney_cortex, sculptor.blood.kidney_medulla);
    sculptor.paint(solid, Tissue::even(cortex, 9.0), label(name));
    let inner = Solid::of(body(0.66, [54.0, 26.0, 28.0])).cut(pit);
    let inner = sculptor.rough(inner, 3.0, 12.0);
    sculptor.paint(inner, Tissue::even(medulla, 9.0), Paint::Keep);
}

fn pelvis(sculptor: &mut Sculptor<'_>) {
    let behind = sculptor.egg([-330.0, 16.0, 0.0], [26.0, 17.0, 25.0], [0.0; 3]);
    let behind = sculptor.rough(Solid::of(behind), 2.0, 20.0);
    sculptor.paint(behind, Tissue::even(48.0, 10.0), Paint::Clear);
    let full = sculptor.between(0.68, 1.2);
    let radii = [31.0, 26.0, 37.0].map(|r| r * full);
    let top = -352.0 + radii[0];
    let bladder = sculptor.egg([top, -26.0, 0.0], radii, [0.0; 3]);
    let bladder = sculptor.rough(Solid::of(bladder), 1.5, 30.0);
    let urine = sculptor.blood.urine;
    let tissue = sculptor.filled(34.0, 5.0, Fill::Hollow { content: urine, wall_mm: 2.5 });
    sculptor.paint(bladder, tissue, label("urinary_bladder"));
}
