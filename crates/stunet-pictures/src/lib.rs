//! Pictures and pages: what people look at after a segmentation, and while a network trains.
//!
//! * [`preview::Scene`] draws a labelled volume: three planes through the content and a projection from
//!   the front, in patient axes and at one scale, with legend, sides and scale bar; or a thumbnail,
//! * [`chart::Chart`] draws curves over epochs,
//! * [`canvas::Canvas`] is what both draw on, and makes the PNG,
//! * [`page`] makes HTML pages that need no other file: the frame and the style of every page of the
//!   house, and the table of a predicted folder.
//!
//! Pictures are behind the feature `draw`; pages need no other crate. Nothing here reads or writes files.
//!
//! ```
//! # #[cfg(feature = "draw")] {
//! use stunet_pictures::chart::{Chart, Curve, draw_charts};
//! let points = (0..20).map(|epoch| (f64::from(epoch), 1.0 / (1.0 + f64::from(epoch)))).collect();
//! let chart = Chart::new("epoch", vec![Curve::new("training loss", [31, 90, 180], points)]);
//! let png = draw_charts(&[chart]).to_png()?;
//! assert!(png.starts_with(b"\x89PNG"));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

#[cfg(feature = "draw")]
pub mod canvas;
#[cfg(feature = "draw")]
pub mod chart;
#[cfg(feature = "draw")]
mod error;
#[cfg(feature = "draw")]
mod font;
pub mod note;
pub mod page;
#[cfg(feature = "draw")]
pub mod palette;
#[cfg(feature = "draw")]
pub mod preview;

#[cfg(feature = "draw")]
pub use error::PictureError;
