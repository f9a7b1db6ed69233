//! The labels as seen from the front: surfaces like coloured glass.

use super::survey::LabelView;
use crate::canvas::Colour;
use ndarray::{Array2, ArrayView3, Axis};
use rayon::prelude::*;

/// Voxels to each side of a surface that its slope is measured over.
const REACH: isize = 2;
/// Towards the light, from a surface: down, back, left; in front of the patient, above and to the
/// viewer's left.
const LIGHT: [f32; 3] = [-0.42, -0.83, -0.36];
/// What a surface hides of what lies behind it.
const OPACITY: f32 = 0.62;
/// A ray ends where less than this is left of it.
const REST: f32 = 0.02;

/// Colour of every ray from the front, rows down and columns to the patient's left; black where it meets
/// no label.
pub(super) fn from_the_front(
    labels: LabelView<'_>,
    colours: &[Colour],
    mm: [f64; 3],
) -> Array2<[f32; 3]> {
    match labels {
        LabelView::Bytes(view) => cast(view, colours, mm),
        LabelView::Words(view) => cast(view, colours, mm),
    }
}

#[derive(Clone, Copy, Default)]
struct Ray {
    within: u16,
    colour: [f32; 3],
    gone: f32,
}

fn cast<T: Copy + Into<u16> + Sync>(
    view: ArrayView3<'_, T>,
    colours: &[Colour],
    mm: [f64; 3],
) -> Array2<[f32; 3]> {
    let (down, back, left) = view.dim();
    let mut picture = Array2::from_elem((down, left), [0.0; 3]);
    picture.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut pixels)| {
        let mut rays = vec![Ray::default(); left];
        let plane = view.index_axis(Axis(0), z);
        for (y, row) in plane.outer_iter().enumerate() {
            let near = 1.0 - 0.35 * y as f32 / back as f32;
            for (x, (value, ray)) in row.iter().zip(&mut rays).enumerate() {
                let value: u16 = (*value).into();
                if value == ray.within || ray.gone > 1.0 - REST {
                    continue;
                }
                ray.within = value;
                if value == 0 {
                    continue;
                }
                let light = near * shade(&view, [z, y, x], value, mm);
                let share = OPACITY * (1.0 - ray.gone);
                let colour = colours.get(usize::from(value)).copied().unwrap_or([255; 3]);
                for (sum, c) in ray.colour.iter_mut().zip(colour) {
                    *sum += share * light * f32::from(c) / 255.0;
                }
                ray.gone += share;
            }
        }
        for (pixel, ray) in pixels.iter_mut().zip(rays) {
            // What lies behind the last surface is as bright as what lies before it.
            if ray.gone > 0.0 {
                *pixel = ray.colour.map(|sum| sum / ray.gone);
            }
        }
    });
    picture
}

/// How bright a surface is: most where it faces the light.
fn shade<T: Copy + Into<u16>>(
    view: &ArrayView3<'_, T>,
    at: [usize; 3],
    value: u16,
    mm: [f64; 3],
) -> f32 {
    let (down, back, left) = view.dim();
    let shape = [down, back, left];
    let mut outwards = [0f32; 3];
    for dz in -REACH..=REACH {
        for dy in -REACH..=REACH {
            for dx in -REACH..=REACH {
                let offset = [dz, dy, dx];
                let place: Option<[usize; 3]> = (|| {
                    let mut place = [0; 3];
                    for i in 0..3 {
                        place[i] = at[i].checked_add_signed(offset[i]).filter(|p| *p < shape[i])?;
                    }
                    Some(place)
                })();
                let same = place.is_some_and(|place| view[place].into() == value);
                if !same {
                    for i in 0..3 {
                        outwards[i] += offset[i] as f32 / mm[i] as f32;
                    }
                }
            }
        }
    }
    let length = outwards.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length < 1e-6 {
        return 0.8;
    }
    let facing: f32 = outwards.iter().zip(LIGHT).map(|(n, l)| n / length * l).sum();
    0.42 + 0.68 * facing.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn what_is_in_front_is_seen_first() {
        let colours = [[0; 3], [255, 0, 0], [0, 0, 255]];
        let labels = Array3::from_shape_fn((9, 9, 9), |(_, y, x)| match (y, x) {
            (2 | 3, 0..=5) => 1u8,
            (6 | 7, 3..=8) => 2,
            _ => 0,
        });
        let picture = from_the_front(LabelView::Bytes(labels.view()), &colours, [1.0; 3]);
        let [red, _, blue] = picture[[4, 4]];
        assert!(red > blue && blue > 0.0, "{:?}", picture[[4, 4]]);
        let [red, _, blue] = picture[[4, 1]];
        assert!(red > 0.0 && blue == 0.0);
        let [red, _, blue] = picture[[4, 7]];
        assert!(blue > 0.0 && red == 0.0);
        let none = Array3::<u16>::zeros((2, 3, 4));
        let picture = from_the_front(LabelView::Words(none.view()), &colours, [1.0; 3]);
        assert!(picture.iter().all(|pixel| *pixel == [0.0; 3]));
    }

    #[test]
    fn a_ball_is_lit_from_above() {
        let ball = Array3::from_shape_fn((31, 31, 31), |(z, y, x)| {
            let d = |v: usize| v.abs_diff(15).pow(2);
            u8::from(d(z) + d(y) + d(x) <= 144)
        });
        let picture = from_the_front(LabelView::Bytes(ball.view()), &[[0; 3], [255; 3]], [1.0; 3]);
        let bright = |z: usize, x: usize| picture[[z, x]][0];
        assert!(bright(8, 15) > bright(23, 15) + 0.1);
        assert!(bright(15, 8) > bright(15, 23) + 0.05);
    }
}
