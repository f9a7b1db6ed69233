//! Colours of labels.

use crate::canvas::Colour;
use stunet_data::labels::Appearance;

/// Colour of a label: 3-D Slicer's of its structure, where its name is known, else
/// [`generated_colour`](stunet_data::labels::generated_colour).
///
/// ```
/// use stunet_pictures::palette::colour_of;
/// assert_eq!(colour_of("liver", 5), [221, 130, 101]);
/// assert_ne!(colour_of("tumour core", 1), colour_of("oedema", 2));
/// ```
pub fn colour_of(name: &str, value: u16) -> Colour {
    Appearance::of(name, value).rgb
}
