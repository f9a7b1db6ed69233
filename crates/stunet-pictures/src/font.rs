//! Letters: two weights of Inter, rasterised with exact coverage.

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use std::sync::OnceLock;

/// Thickness of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// For text.
    Regular,
    /// For headings.
    SemiBold,
}

static FONTS: [OnceLock<FontRef<'static>>; 2] = [OnceLock::new(), OnceLock::new()];

fn font(weight: Weight) -> &'static FontRef<'static> {
    let (index, bytes): (_, &[u8]) = match weight {
        Weight::Regular => (0, include_bytes!("../fonts/Inter-Regular.otf")),
        Weight::SemiBold => (1, include_bytes!("../fonts/Inter-SemiBold.otf")),
    };
    FONTS[index]
        .get_or_init(|| FontRef::try_from_slice(bytes).expect("the embedded font is a font"))
}

/// The scale at which an em has `size` pixels.
fn scale(font: &FontRef<'_>, size: f32) -> PxScale {
    let em = font.units_per_em().unwrap_or(1000.0);
    PxScale::from(size * font.height_unscaled() / em)
}

/// Width of a line of text in pixels, at `size` pixels for an em.
pub fn width(text: &str, size: f32, weight: Weight) -> f32 {
    let font = font(weight);
    let font = font.as_scaled(scale(font, size));
    text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum()
}

/// As much of a text as fits into `most` pixels, with an ellipsis where it was cut.
pub fn fitted(text: &str, size: f32, weight: Weight, most: f32) -> String {
    if width(text, size, weight) <= most {
        return text.to_owned();
    }
    let mut letters: Vec<char> = text.chars().collect();
    while letters.pop().is_some() {
        let kept: String = letters.iter().collect();
        let kept = format!("{}…", kept.trim_end());
        if width(&kept, size, weight) <= most {
            return kept;
        }
    }
    String::new()
}

/// Calls `ink(x, y, coverage)` for the pixels of a line of text whose baseline begins at a place.
pub fn rasterise(
    text: &str,
    (size, weight): (f32, Weight),
    (x, baseline): (f32, f32),
    ink: &mut dyn FnMut(i32, i32, f32),
) {
    let font = font(weight);
    let scaled = font.as_scaled(scale(font, size));
    let mut left = x;
    for letter in text.chars() {
        let id = scaled.glyph_id(letter);
        let glyph = Glyph { id, scale: scaled.scale(), position: point(left, baseline) };
        left += scaled.h_advance(id);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|column, row, coverage| {
            let (x, y) = (bounds.min.x as i32 + column as i32, bounds.min.y as i32 + row as i32);
            ink(x, y, coverage.clamp(0.0, 1.0));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_of_the_house_has_ink() {
        let letters = ('!'..='~').chain("äöüßéµ°×±²³–—…·−≤≥αβσ→".chars());
        for letter in letters {
            for weight in [Weight::Regular, Weight::SemiBold] {
                assert_ne!(font(weight).glyph_id(letter).0, 0, "{letter}");
                let mut sum = 0.0;
                let text = letter.to_string();
                rasterise(&text, (20.0, weight), (0.0, 20.0), &mut |_, _, ink| sum += ink);
                assert!(sum > 3.0, "{letter}: {sum}");
            }
        }
    }

    #[test]
    fn an_em_is_as_large_as_asked() {
        // Inter's capitals are 0.727 em high.
        let (mut top, mut bottom) = (i32::MAX, i32::MIN);
        rasterise("H", (100.0, Weight::Regular), (0.0, 100.0), &mut |_, y, ink| {
            if ink > 0.5 {
                (top, bottom) = (top.min(y), bottom.max(y));
            }
        });
        assert_eq!(bottom, 99);
        assert!((70..=75).contains(&(bottom + 1 - top)), "{}", bottom + 1 - top);
    }

    #[test]
    fn text_is_cut_to_fit() {
        let full = "vertebrae_T10";
        let wide = width(full, 13.0, Weight::Regular);
        assert_eq!(fitted(full, 13.0, Weight::Regular, wide), full);
        let cut = fitted(full, 13.0, Weight::Regular, 0.6 * wide);
        assert!(cut.ends_with('…') && cut.len() < full.len(), "{cut}");
        assert!(width(&cut, 13.0, Weight::Regular) <= 0.6 * wide);
        assert_eq!(fitted(full, 13.0, Weight::Regular, 1.0), "");
    }
}
