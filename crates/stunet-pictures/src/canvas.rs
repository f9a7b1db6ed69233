//! A picture in memory: areas, lines and text with smooth edges.

use crate::error::PictureError;
use crate::font;
pub use crate::font::Weight;
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke, Transform};

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Longest side of a picture in pixels.
pub const LONGEST_SIDE: usize = 8192;

/// A picture; what is drawn outside of it is lost.
///
/// # Units
/// Pixels from the upper left corner, x to the right and y down.
///
/// ```
/// use stunet_pictures::canvas::{Canvas, TextStyle};
/// let mut canvas = Canvas::new(200, 40, [255; 3]);
/// canvas.text((8.0, 26.0), &TextStyle::new(16.0, [0; 3]), "liver, 1490 ml");
/// assert!(canvas.to_png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), stunet_pictures::PictureError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Canvas {
    pixmap: Pixmap,
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextStyle {
    /// Pixels of an em.
    pub size: f32,
    /// Colour of the letters.
    pub colour: Colour,
    /// Thickness of the letters.
    pub weight: Weight,
    /// Which point of the baseline is at the given place.
    pub anchor: Anchor,
    /// Colour of a rim that makes letters readable on any ground.
    pub halo: Option<Colour>,
}

/// A point of a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Extent to the right.
    pub width: f32,
    /// Extent downwards.
    pub height: f32,
}

impl TextStyle {
    /// Regular letters that begin at the given place.
    pub fn new(size: f32, colour: Colour) -> Self {
        Self { size, colour, weight: Weight::Regular, anchor: Anchor::Start, halo: None }
    }

    /// The same in semi-bold.
    pub fn bold(self) -> Self {
        Self { weight: Weight::SemiBold, ..self }
    }

    /// The same with another point of the line at the given place.
    pub fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// Width of a line of text in pixels.
    pub fn width(&self, text: &str) -> f32 {
        font::width(text, self.size, self.weight)
    }

    /// As much of a text as fits into `most` pixels, with an ellipsis where it was cut.
    pub fn fitted(&self, text: &str, most: f32) -> String {
        font::fitted(text, self.size, self.weight, most)
    }
}

impl Canvas {
    /// A picture of one colour.
    ///
    /// # Panics
    /// When a side is 0 or longer than [`LONGEST_SIDE`].
    pub fn new(width: usize, height: usize, ground: Colour) -> Self {
        assert!(
            (1..=LONGEST_SIDE).contains(&width) && (1..=LONGEST_SIDE).contains(&height),
            "a picture of {width} by {height} pixels"
        );
        let mut pixmap = Pixmap::new(width as u32, height as u32).expect("sides were checked");
        pixmap.fill(tiny_skia::Color::from_rgba8(ground[0], ground[1], ground[2], 255));
        Self { pixmap }
    }

    /// Pixels from left to right.
    pub fn width(&self) -> usize {
        self.pixmap.width() as usize
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> usize {
        self.pixmap.height() as usize
    }

    /// Colour of a pixel.
    ///
    /// # Panics
    /// Outside of the picture.
    pub fn pixel(&self, x: usize, y: usize) -> Colour {
        assert!(x < self.width() && y < self.height(), "no pixel ({x}, {y})");
        let at = (y * self.width() + x) * 4;
        let data = self.pixmap.data();
        [data[at], data[at + 1], data[at + 2]]
    }

    /// Sets a pixel; outside of the picture nothing happens.
    pub fn set_pixel(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width() && y < self.height() {
            let at = (y * self.width() + x) * 4;
            self.pixmap.data_mut()[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, area: Area, colour: Colour) {
        if let Some(rect) = Rect::from_xywh(area.x, area.y, area.width, area.height) {
            let paint = paint(colour);
            self.pixmap.fill_rect(rect, &paint, Transform::identity(), None);
        }
    }

    /// Fills a rectangle with round corners.
    pub fn fill_round(&mut self, area: Area, radius: f32, colour: Colour) {
        let Area { x, y, width, height } = area;
        let r = radius.min(width / 2.0).min(height / 2.0);
        let (right, bottom) = (x + width, y + height);
        let mut path = PathBuilder::new();
        path.move_to(x + r, y);
        path.line_to(right - r, y);
        path.quad_to(right, y, right, y + r);
        path.line_to(right, bottom - r);
        path.quad_to(right, bottom, right - r, bottom);
        path.line_to(x + r, bottom);
        path.quad_to(x, bottom, x, bottom - r);
        path.line_to(x, y + r);
        path.quad_to(x, y, x + r, y);
        path.close();
        if let Some(path) = path.finish() {
            let paint = paint(colour);
            self.pixmap.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
        }
    }

    /// Draws a line through points, with round ends and corners; points that are not finite are left
    /// out.
    pub fn line(&mut self, points: &[(f32, f32)], width: f32, colour: Colour) {
        let mut path = PathBuilder::new();
        let finite = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        for (index, (x, y)) in finite.enumerate() {
            match index {
                0 => path.move_to(*x, *y),
                _ => path.line_to(*x, *y),
            }
        }
        let Some(path) = path.finish() else { return };
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        let paint = paint(colour);
        self.pixmap.stroke_path(&path, &paint, &stroke, Transform::identity(), None);
    }

    /// Fills a disc.
    pub fn disc(&mut self, (x, y): (f32, f32), diameter: f32, colour: Colour) {
        if let Some(path) = PathBuilder::from_circle(x, y, diameter / 2.0) {
            let paint = paint(colour);
            self.pixmap.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
        }
    }

    /// Writes a line of text; the anchor of its baseline is at the place.
    pub fn text(&mut self, (x, baseline): (f32, f32), style: &TextStyle, text: &str) {
        let left = match style.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - style.width(text) / 2.0,
            Anchor::End => x - style.width(text),
        };
        let letters = (style.size, style.weight);
        if let Some(halo) = style.halo {
            let ring = (0..8).map(|i| (i as f32 * std::f32::consts::FRAC_PI_4).sin_cos());
            for (dy, dx) in ring {
                let at = (left + 1.4 * dx, baseline + 1.4 * dy);
                font::rasterise(text, letters, at, &mut |x, y, ink| {
                    self.blend(x, y, halo, 0.55 * ink);
                });
            }
        }
        font::rasterise(text, letters, (left, baseline), &mut |x, y, ink| {
            self.blend(x, y, style.colour, ink);
        });
    }

    /// Mixes a colour into a pixel.
    fn blend(&mut self, x: i32, y: i32, colour: Colour, share: f32) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.width() && y < self.height() {
            let below = self.pixel(x, y);
            self.set_pixel(x, y, mixed(below, colour, share));
        }
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_png(&self) -> Result<Vec<u8>, PictureError> {
        self.to_png_with(None)
    }

    /// The picture as a PNG file with a note, which [`crate::note`] reads.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_png_with(&self, note: Option<&str>) -> Result<Vec<u8>, PictureError> {
        let rgb: Vec<u8> =
            self.pixmap.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        let mut bytes = Vec::new();
        let (width, height) = (self.pixmap.width(), self.pixmap.height());
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        if let Some(note) = note {
            encoder.add_itxt_chunk(crate::note::KEYWORD.to_owned(), note.to_owned())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// `share` of one colour over another.
pub(crate) fn mixed(below: Colour, above: Colour, share: f32) -> Colour {
    std::array::from_fn(|i| {
        let (a, b) = (f32::from(below[i]), f32::from(above[i]));
        (a + (b - a) * share).round() as u8
    })
}

fn paint(colour: Colour) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(colour[0], colour[1], colour[2], 255);
    paint.anti_alias = true;
    paint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_where_it_was_asked_for() {
        let mut canvas = Canvas::new(60, 40, [255; 3]);
        canvas.fill(Area { x: 10.0, y: 5.0, width: 20.0, height: 10.0 }, [200, 0, 0]);
        canvas.line(&[(0.0, 30.5), (59.0, 30.5)], 1.0, [0, 0, 200]);
        canvas.disc((50.0, 10.0), 8.0, [0, 200, 0]);
        assert_eq!(canvas.pixel(10, 5), [200, 0, 0]);
        assert_eq!(canvas.pixel(29, 14), [200, 0, 0]);
        assert_eq!(canvas.pixel(30, 14), [255; 3]);
        assert_eq!(canvas.pixel(30, 30), [0, 0, 200]);
        assert_eq!(canvas.pixel(30, 28), [255; 3]);
        assert_eq!(canvas.pixel(50, 10), [0, 200, 0]);
    }

    #[test]
    fn text_hangs_on_its_anchor() {
        let ends = |anchor| {
            let mut canvas = Canvas::new(200, 40, [255; 3]);
            canvas.text((100.0, 30.0), &TextStyle::new(20.0, [0; 3]).anchored(anchor), "HHHH");
            let inked = (0..200).filter(|x| (0..40).any(|y| canvas.pixel(*x, y) != [255; 3]));
            let inked: Vec<_> = inked.collect();
            (inked[0], *inked.last().unwrap())
        };
        let (left, right) = ends(Anchor::Start);
        assert!(left >= 100 && right > 140, "{left} {right}");
        let (left, right) = ends(Anchor::Middle);
        assert!((left + right).abs_diff(200) <= 2, "{left} {right}");
        let (left, right) = ends(Anchor::End);
        assert!(left < 60 && right <= 100, "{left} {right}");
    }

    #[test]
    fn drawing_outside_is_harmless() {
        let mut canvas = Canvas::new(8, 8, [255; 3]);
        canvas.text((-50.0, -3.0), &TextStyle::new(12.0, [0; 3]), "outside");
        canvas.fill(Area { x: -5.0, y: -5.0, width: 2.0, height: 2.0 }, [0; 3]);
        canvas.fill(Area { x: 0.0, y: 0.0, width: -1.0, height: f32::NAN }, [0; 3]);
        canvas.line(&[(f32::NAN, 1.0), (90.0, 90.0), (95.0, 120.0)], 2.0, [0; 3]);
        canvas.set_pixel(8, 0, [0; 3]);
        assert!((0..64).all(|i| canvas.pixel(i % 8, i / 8) == [255; 3]));
    }

    #[test]
    fn the_png_holds_the_pixels() {
        let mut canvas = Canvas::new(3, 2, [1, 2, 3]);
        canvas.set_pixel(2, 1, [9, 8, 7]);
        let bytes = canvas.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (3, 2));
        assert_eq!(pixels[..3], [1, 2, 3]);
        assert_eq!(pixels[15..], [9, 8, 7]);
    }

    #[test]
    fn a_note_is_read_again() {
        let canvas = Canvas::new(3, 2, [7; 3]);
        let note = "{\"stunet_record\": 1, \"µ\": \"\"}";
        let png = canvas.to_png_with(Some(note)).unwrap();
        assert_eq!(crate::note::note_of_png(&png[..]).as_deref(), Some(note));
        assert_eq!(crate::note::note_of_png(&canvas.to_png().unwrap()[..]), None);
        for end in 0..png.len() {
            let cut = crate::note::note_of_png(&png[..end]);
            assert!(cut.is_none() || cut.as_deref() == Some(note), "{end}");
        }
        for at in 0..png.len().min(150) {
            let mut bytes = png.clone();
            bytes[at] ^= 0x41;
            let _ = crate::note::note_of_png(&bytes[..]);
        }
    }
}
