//! Colours of labels that have none of their own.

/// Red, green, blue.
type Colour = [u8; 3];

/// Colours that people who see few colours tell apart, on black and on white.
///
/// # Source
/// Okabe and Ito, Color Universal Design, 2008, without black.
const TOLD_APART: [Colour; 7] = [
    [86, 180, 233],
    [230, 159, 0],
    [0, 158, 115],
    [240, 228, 66],
    [204, 121, 167],
    [0, 114, 178],
    [213, 94, 0],
];

/// A colour for the value of a label: the first seven are Okabe and Ito's; beyond, hues in steps of the
/// golden angle at four lightnesses, which people who see few colours tell apart.
///
/// ```
/// use stunet_data::labels::generated_colour;
/// assert_eq!(generated_colour(1), [86, 180, 233]);
/// assert_ne!(generated_colour(20), generated_colour(21));
/// ```
pub fn generated_colour(value: u16) -> Colour {
    let index = usize::from(value.saturating_sub(1));
    if let Some(colour) = TOLD_APART.get(index) {
        return *colour;
    }
    let hue = (index as f64 * 137.507_764).to_radians();
    oklch([0.78, 0.60, 0.88, 0.50][index % 4], 0.13, hue)
}

/// A colour by its perceived lightness, its chroma and its hue in radians, as near as screens come.
///
/// # Source
/// Ottosson, A perceptual color space for image processing, 2020.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> Colour {
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    let linear = [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
    ];
    linear.map(|v| {
        let v = v.clamp(0.0, 1.0);
        let v = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        (v * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn colours_differ_and_show_on_black() {
        let colours: Vec<Colour> = (1..=300).map(generated_colour).collect();
        assert!(colours.iter().collect::<BTreeSet<_>>().len() > 290);
        for (index, pair) in colours.windows(2).enumerate() {
            let apart: u32 = (0..3).map(|i| u32::from(pair[0][i].abs_diff(pair[1][i]))).sum();
            assert!(apart > 60, "{index}: {pair:?}");
        }
        assert!(colours.iter().all(|c| c.iter().any(|v| *v >= 100)));
    }

    #[test]
    fn grey_is_grey() {
        assert_eq!(oklch(1.0, 0.0, 1.0), [255; 3]);
        assert_eq!(oklch(0.0, 0.0, 1.0), [0; 3]);
    }
}
