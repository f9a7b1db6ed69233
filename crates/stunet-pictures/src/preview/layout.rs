//! Where panels lie: a grid of equal fields, all at one scale.

use super::axes::PatientAxis;

/// Fields beside each other: three planes and a projection.
pub(super) const COLUMNS: usize = 4;
/// Around everything, in pixels.
pub(super) const MARGIN: usize = 20;
/// Between fields.
pub(super) const GAP: usize = 12;
/// Least height of a field.
const LOWEST: usize = 120;

/// The fields of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fields {
    /// Pixels of a field.
    pub width: usize,
    pub height: usize,
    /// Pixels of a millimetre.
    pub scale: f64,
}

impl Fields {
    /// As large as `width` pixels for `columns` fields and `highest` pixels for the height of each
    /// allow, for a volume of these millimetres down, back and left.
    pub fn fitting(mm: [f64; 3], width: usize, columns: usize, highest: usize) -> Self {
        let field = (width - (columns - 1) * GAP) / columns;
        let [down, back, left] = mm;
        let scale = field as f64 / left.max(back);
        let scale = scale.min(highest as f64 / down.max(back));
        let height = (down.max(back) * scale).ceil() as usize;
        Self { width: field, height: height.clamp(LOWEST, highest), scale }
    }

    /// Left edge of a field.
    pub fn left(&self, column: usize) -> usize {
        MARGIN + column * (self.width + GAP)
    }

    /// Pixels down and to the right of what lies in a field across an axis.
    pub fn size(&self, axis: PatientAxis, mm: [f64; 3]) -> [usize; 2] {
        let pixels = axis.others().map(|other| mm[other as usize] * self.scale);
        let most = [self.height, self.width];
        std::array::from_fn(|i| (pixels[i].round() as usize).clamp(1, most[i]))
    }
}

/// A round length for a scale bar of at most `most_mm`, and what to call it.
pub(super) fn scale_bar(most_mm: f64) -> (f64, String) {
    let power = 10f64.powf(most_mm.log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * power <= most_mm).unwrap_or(1.0);
    let mm = step * power;
    let text = match mm {
        mm if mm >= 10.0 => format!("{:.0} cm", mm / 10.0),
        mm if mm >= 1.0 => format!("{mm:.0} mm"),
        mm => format!("{} mm", (mm * 1e6).round() / 1e6),
    };
    (mm, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_fits_its_field() {
        let sizes = [
            [600.0, 400.0, 400.0],
            [20.0, 400.0, 400.0],
            [1800.0, 400.0, 500.0],
            [1.0, 1.0, 1.0],
            [5.0, 300.0, 2.0],
            [3000.0, 3.0, 1.0],
        ];
        for mm in sizes {
            for columns in [3, 4] {
                let fields = Fields::fitting(mm, 1160, columns, 560);
                for axis in PatientAxis::ALL {
                    let [height, width] = fields.size(axis, mm);
                    assert!(height <= fields.height && width <= fields.width, "{mm:?}");
                    let [down, right] = axis.others().map(|other| mm[other as usize]);
                    let exact = [down * fields.scale, right * fields.scale];
                    // No side is longer or shorter than a pixel of its millimetres.
                    assert!((height as f64 - exact[0]).abs() <= 1.0, "{mm:?} {axis:?}");
                    assert!((width as f64 - exact[1]).abs() <= 1.0, "{mm:?} {axis:?}");
                }
                assert!(fields.left(columns - 1) + fields.width <= MARGIN + 1160);
            }
        }
    }

    #[test]
    fn scale_bars_are_round() {
        let check = |most, mm, text: &str| assert_eq!(scale_bar(most), (mm, text.to_owned()));
        check(130.0, 100.0, "10 cm");
        check(99.0, 50.0, "5 cm");
        check(25.0, 20.0, "2 cm");
        check(7.0, 5.0, "5 mm");
        check(0.3, 0.2, "0.2 mm");
    }
}
