//! A picture in memory: lines, discs and small text.

use super::font;

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

/// Pixels, row by row, on a white ground.
pub(super) struct Canvas {
    pub width: usize,
    pub height: usize,
    /// Three bytes per pixel.
    pub pixels: Vec<u8>,
}

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; width * height * 3] }
    }

    /// Mixes a colour into a pixel; outside the picture nothing happens.
    fn blend(&mut self, x: isize, y: isize, colour: Colour, coverage: f64) {
        let inside = |v: isize, n: usize| usize::try_from(v).ok().filter(|v| *v < n);
        let (Some(x), Some(y)) = (inside(x, self.width), inside(y, self.height)) else { return };
        let at = (y * self.width + x) * 3;
        for (pixel, ink) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            let mixed = f64::from(*pixel) * (1.0 - coverage) + f64::from(ink) * coverage;
            *pixel = mixed.round() as u8;
        }
    }

    /// A line with round ends; pixels at its border are mixed.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        let reach = width / 2.0 + 1.0;
        let range = |a: f64, b: f64| {
            (a.min(b) - reach).floor() as isize..=(a.max(b) + reach).ceil() as isize
        };
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx * dx + dy * dy;
        for y in range(from.1, to.1) {
            for x in range(from.0, to.0) {
                let (px, py) = (x as f64 - from.0, y as f64 - from.1);
                let along = if length > 0.0 { (px * dx + py * dy) / length } else { 0.0 };
                let along = along.clamp(0.0, 1.0);
                let distance = (px - along * dx).hypot(py - along * dy);
                let coverage = (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    self.blend(x, y, colour, coverage);
                }
            }
        }
    }

    /// A disc.
    pub fn dot(&mut self, at: (f64, f64), width: f64, colour: Colour) {
        self.line(at, at, width, colour);
    }

    /// Text with its upper left corner at a place.
    pub fn text(&mut self, at: (f64, f64), scale: usize, colour: Colour, text: &str) {
        let (mut left, top) = (at.0 as isize, at.1 as isize);
        for letter in text.chars() {
            for (row, bits) in font::glyph(letter).into_iter().enumerate() {
                for column in (0..font::WIDTH).filter(|c| bits >> (font::WIDTH - 1 - c) & 1 == 1) {
                    for dy in 0..scale {
                        for dx in 0..scale {
                            let x = left + (column * scale + dx) as isize;
                            self.blend(x, top + (row * scale + dy) as isize, colour, 1.0);
                        }
                    }
                }
            }
            left += ((font::WIDTH + 1) * scale) as isize;
        }
    }
}

/// Width of a text in pixels.
pub(super) fn text_width(text: &str, scale: usize) -> f64 {
    (text.chars().count() * (font::WIDTH + 1) * scale) as f64
}
