//! The whole picture: heading, panels, legend, notes.

use super::Scene;
use super::axes::PatientAxis;
use super::layout::{COLUMNS, Fields, GAP, MARGIN, scale_bar};
use super::legend::Legend;
use super::plane::PlaneView;
use super::projection::from_the_front;
use super::survey::LabelView;
use crate::canvas::{Anchor, Area, Canvas, Colour, TextStyle};
use ndarray::s;

const WIDTH: usize = 1200;
const GROUND: Colour = [22, 25, 30];
const FIELD: Colour = [0, 0, 0];
const INK: Colour = [232, 234, 237];
const DIM: Colour = [154, 160, 170];
const WARN: Colour = [250, 190, 70];
/// Above the panels, above each row of them, and below it.
const HEADING: usize = 78;
const ABOVE: usize = 28;
const BELOW: usize = 30;
const NOTES: usize = 44;

/// What is written around the panels.
///
/// Names of files and people are not put into pictures unless they are put here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviewOptions {
    /// The heading; by default, how many labels were found.
    pub title: Option<String>,
    /// A warning beside the heading, such as `Demo model: not for patients`.
    pub banner: Option<String>,
}

/// A row of panels.
#[derive(Clone, Copy)]
struct PanelRow<'a> {
    name: &'static str,
    labels: Option<LabelView<'a>>,
    projection: &'static str,
}

pub(super) fn draw(scene: &Scene<'_>, options: &PreviewOptions) -> Canvas {
    let rows = rows(scene);
    let highest = if rows.len() > 2 { 430 } else { 560 };
    let fields = Fields::fitting(shown_mm(scene), WIDTH - 2 * MARGIN, COLUMNS, highest);
    let legend = Legend::of(scene);
    let row_height = ABOVE + fields.height + BELOW;
    let below_rows = HEADING + rows.len() * row_height;
    let mut canvas = Canvas::new(WIDTH, below_rows + legend.height() + NOTES, GROUND);
    heading(&mut canvas, scene, options);
    for (index, row) in rows.iter().enumerate() {
        let top = HEADING + index * row_height;
        let style = TextStyle::new(15.0, INK).bold();
        canvas.text((MARGIN as f32, top as f32 + 18.0), &style, row.name);
        panels(&mut canvas, scene, &fields, (row, top + ABOVE));
    }
    legend.draw(&mut canvas, &fields, below_rows, &[INK, DIM]);
    let notes = format!(
        "Grey window {}. The patient's right is on the left. Positions in mm of the scan's \
         coordinates. Research software, not a medical device.",
        scene.window
    );
    let style = TextStyle::new(12.5, DIM);
    let baseline = (canvas.height() - 18) as f32;
    canvas.text((MARGIN as f32, baseline), &style, &notes);
    canvas
}

fn rows<'a>(scene: &Scene<'a>) -> Vec<PanelRow<'a>> {
    let found = PanelRow {
        name: if scene.truth.is_some() { "Prediction" } else { "Labels" },
        labels: Some(scene.labels),
        projection: "From the front",
    };
    let truth = scene.truth.map(|truth| PanelRow { name: "Truth", labels: Some(truth), ..found });
    let image = PanelRow {
        name: "Image without labels",
        labels: None,
        projection: "Mean from front to back",
    };
    [found].into_iter().chain(truth).chain([image]).collect()
}

/// Millimetres of what is shown.
fn shown_mm(scene: &Scene<'_>) -> [f64; 3] {
    std::array::from_fn(|axis| scene.shown[axis][1] as f64 * scene.grid.mm[axis])
}

fn heading(canvas: &mut Canvas, scene: &Scene<'_>, options: &PreviewOptions) {
    let found = scene.found.iter().filter(|label| label.voxels > 0).count();
    let title = match (&options.title, found) {
        (Some(title), _) => title.clone(),
        (None, 1) => "1 label".to_owned(),
        (None, found) => format!("{found} labels"),
    };
    let mut right = (WIDTH - MARGIN) as f32;
    if let Some(banner) = &options.banner {
        let style = TextStyle::new(15.0, [30, 22, 0]).bold();
        let banner = style.fitted(banner, 480.0);
        let width = style.width(&banner) + 28.0;
        canvas.fill_round(Area { x: right - width, y: 20.0, width, height: 32.0 }, 16.0, WARN);
        canvas.text((right - width + 14.0, 41.5), &style, &banner);
        right -= width + 20.0;
    }
    let style = TextStyle::new(23.0, INK).bold();
    let room = right - MARGIN as f32;
    canvas.text((MARGIN as f32, 39.0), &style, &style.fitted(&title, room));
    let style = TextStyle::new(14.0, DIM);
    canvas.text((MARGIN as f32, 63.0), &style, &style.fitted(&about(scene), room));
}

/// The volume in words.
fn about(scene: &Scene<'_>) -> String {
    let [z, y, x] = scene.grid.shape;
    let [dz, dy, dx] = scene.grid.mm.map(length);
    let mut text = format!("{x} × {y} × {z} voxels of {dx} × {dy} × {dz} mm (left, back, up)");
    if scene.num_channels > 1 {
        let (channel, last) = (scene.channel, scene.num_channels - 1);
        text.push_str(&format!(", channel {channel} (0 to {last})"));
    }
    if scene.grid.oblique_degrees >= 0.5 {
        text.push_str(&format!(", oblique by {:.0}°", scene.grid.oblique_degrees));
    }
    if let Some(mean) = scene.mean_dice() {
        text.push_str(&format!(", mean Dice {mean:.3}"));
    }
    text
}

/// A length in mm with two digits after the point, zeros left out.
fn length(mm: f64) -> String {
    let text = format!("{mm:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A row of three planes and a projection.
fn panels<'a>(
    canvas: &mut Canvas,
    scene: &Scene<'a>,
    fields: &Fields,
    (row, top): (&PanelRow<'a>, usize),
) {
    for column in 0..COLUMNS {
        let (left, field) = (fields.left(column), Field { fields, column, top });
        let area = Area {
            x: left as f32,
            y: top as f32,
            width: fields.width as f32,
            height: fields.height as f32,
        };
        canvas.fill(area, FIELD);
        let (axis, caption) = match PatientAxis::ALL.get(column) {
            Some(axis) => {
                let index = scene.planes[*axis as usize];
                plane(canvas, scene, &field, (*axis, row.labels));
                (*axis, format!("{}, {}", axis.plane(), scene.grid.position(*axis, index)))
            }
            None => {
                projection(canvas, scene, &field, row.labels);
                (PatientAxis::Back, row.projection.to_owned())
            }
        };
        field.letters(canvas, axis);
        let style = TextStyle::new(13.5, DIM);
        canvas.text((left as f32, (top + fields.height) as f32 + 18.0), &style, &caption);
    }
    bar(canvas, fields, top);
}

/// A field of the grid.
struct Field<'a> {
    fields: &'a Fields,
    column: usize,
    top: usize,
}

impl Field<'_> {
    /// Upper left corner of a picture in the middle of it.
    fn middle(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        let x = self.fields.left(self.column) + (self.fields.width - width) / 2;
        [x, self.top + (self.fields.height - height) / 2]
    }

    /// Which sides of the patient are at which edges.
    fn letters(&self, canvas: &mut Canvas, axis: PatientAxis) {
        let (left, top) = (self.fields.left(self.column) as f32, self.top as f32);
        let (width, height) = (self.fields.width as f32, self.fields.height as f32);
        let [vertical, horizontal] = axis.others().map(PatientAxis::letters);
        let style = TextStyle { halo: Some([0; 3]), ..TextStyle::new(14.0, INK).bold() };
        let middle = style.anchored(Anchor::Middle);
        canvas.text((left + width / 2.0, top + 18.0), &middle, vertical[0]);
        canvas.text((left + width / 2.0, top + height - 8.0), &middle, vertical[1]);
        canvas.text((left + 7.0, top + height / 2.0 + 5.0), &style, horizontal[0]);
        let end = style.anchored(Anchor::End);
        canvas.text((left + width - 7.0, top + height / 2.0 + 5.0), &end, horizontal[1]);
    }
}

fn plane<'a>(
    canvas: &mut Canvas,
    scene: &Scene<'a>,
    field: &Field<'_>,
    (axis, labels): (PatientAxis, Option<LabelView<'a>>),
) {
    let size = field.fields.size(axis, shown_mm(scene));
    let [rows, columns] = axis.others().map(|other| scene.shown[other as usize]);
    let view = PlaneView {
        axis,
        index: scene.planes[axis as usize],
        rows,
        columns,
        size,
        at: field.middle(size),
    };
    view.draw(canvas, &scene.layers(labels));
}

fn projection(
    canvas: &mut Canvas,
    scene: &Scene<'_>,
    field: &Field<'_>,
    labels: Option<LabelView<'_>>,
) {
    let size = field.fields.size(PatientAxis::Back, shown_mm(scene));
    let at = field.middle(size);
    match labels {
        Some(labels) => {
            let picture = from_the_front(labels, &scene.colours, scene.grid.mm);
            resample(canvas, scene, (size, at), |z, x| picture[[z, x]]);
        }
        None => {
            let [low, high] = spread(scene);
            resample(canvas, scene, (size, at), |z, x| {
                let bright = ((scene.front[[z, x]] - low) / (high - low)).clamp(0.0, 1.0);
                // Most of a body is among its bright parts, which this tells apart.
                [bright.powf(1.7); 3]
            });
        }
    }
}

/// Ends of the middle intensities, outliers left out.
fn spread(scene: &Scene<'_>) -> [f32; 2] {
    let [rows, columns] = PatientAxis::Back.others().map(|other| scene.shown[other as usize]);
    let rows = rows[0]..rows[0] + rows[1];
    let columns = columns[0]..columns[0] + columns[1];
    let shown = scene.front.slice(s![rows, columns]);
    let mut values: Vec<f32> = shown.iter().copied().filter(|v| v.is_finite()).collect();
    values.sort_by(f32::total_cmp);
    let at = |share: f64| values.get((share * (values.len().max(1) - 1) as f64) as usize);
    match (at(0.05), at(0.995)) {
        (Some(low), Some(high)) if low < high => [*low, *high],
        _ => [0.0, 1.0],
    }
}

/// Draws the part that is shown of a picture seen from the front: the mean of 3 × 3 interpolated places
/// in each pixel.
fn resample(
    canvas: &mut Canvas,
    scene: &Scene<'_>,
    ([height, width], [left, top]): ([usize; 2], [usize; 2]),
    colour: impl Fn(usize, usize) -> [f32; 3],
) {
    const FINE: usize = 3;
    let [rows, columns] = PatientAxis::Back.others().map(|other| scene.shown[other as usize]);
    let places = |[first, count]: [usize; 2], pixels: usize| -> Vec<(usize, usize, f32)> {
        let place = |i: usize| {
            let at = (i as f32 + 0.5) / (pixels * FINE) as f32 * count as f32 - 0.5;
            let at = at.clamp(0.0, (count - 1) as f32);
            (first + at as usize, first + (at as usize + 1).min(count - 1), at.fract())
        };
        (0..pixels * FINE).map(place).collect()
    };
    let (rows, columns) = (places(rows, height), places(columns, width));
    let mix = |a: [f32; 3], b: [f32; 3], t: f32| -> [f32; 3] {
        std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
    };
    for (y, rows) in rows.chunks_exact(FINE).enumerate() {
        for (x, columns) in columns.chunks_exact(FINE).enumerate() {
            let mut sum = [0f32; 3];
            for (z0, z1, down) in rows {
                for (x0, x1, right) in columns {
                    let above = mix(colour(*z0, *x0), colour(*z0, *x1), *right);
                    let below = mix(colour(*z1, *x0), colour(*z1, *x1), *right);
                    let here = mix(above, below, *down);
                    sum.iter_mut().zip(here).for_each(|(sum, v)| *sum += v);
                }
            }
            let mean = sum.map(|v| (v / (FINE * FINE) as f32 * 255.0).clamp(0.0, 255.0) as u8);
            canvas.set_pixel(left + x, top + y, mean);
        }
    }
}

/// A scale bar in the lower left corner of the first field: all fields have its scale.
fn bar(canvas: &mut Canvas, fields: &Fields, top: usize) {
    let (mm, text) = scale_bar(0.4 * fields.width as f64 / fields.scale);
    let (x, y) = (fields.left(0) as f32 + 12.0, (top + fields.height) as f32 - 12.0);
    let length = (mm * fields.scale) as f32;
    canvas.line(&[(x, y), (x + length, y)], 5.0, [0; 3]);
    canvas.line(&[(x, y), (x + length, y)], 2.5, INK);
    let style = TextStyle { halo: Some([0; 3]), ..TextStyle::new(13.0, INK) };
    canvas.text((x, y - 8.0), &style, &text);
}

pub(super) fn thumbnail(scene: &Scene<'_>) -> Canvas {
    const FIELD_WIDTH: usize = 150;
    const FIELD_HEIGHT: usize = 170;
    let width = 3 * FIELD_WIDTH + 2 * GAP;
    let fitting = Fields::fitting(shown_mm(scene), width, 3, FIELD_HEIGHT);
    // All of one size, so that a list of them is even.
    let fields = Fields { height: FIELD_HEIGHT, ..fitting };
    let mut canvas = Canvas::new(width + 2 * MARGIN, FIELD_HEIGHT, FIELD);
    let field = |column| Field { fields: &fields, column, top: 0 };
    let labels = Some(scene.labels);
    plane(&mut canvas, scene, &field(0), (PatientAxis::Down, labels));
    plane(&mut canvas, scene, &field(1), (PatientAxis::Back, labels));
    projection(&mut canvas, scene, &field(2), labels);
    canvas
}
