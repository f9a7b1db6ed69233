//! A phantom as the library's image and labelmap.

use super::{Phantom, ScanOptions, scan};
use ndarray::Axis;
use stunet_data::geometry::Geometry;
use stunet_data::image::Image;
use stunet_data::labels::{LabelMap, LabelSet};

/// A CT with its truth.
#[derive(Clone, Debug, PartialEq)]
pub struct PhantomCase {
    /// `phantom_` and the seed, with four digits or more.
    pub name: String,
    /// The CT.
    pub image: Image,
    /// Its labels.
    pub truth: LabelMap,
}

impl PhantomCase {
    /// The phantom of a seed, with labels 1, 2, ... for the given structures.
    ///
    /// # Panics
    /// When a structure is not known, or a spacing not positive.
    pub fn of(seed: u64, options: &ScanOptions, structures: &[&str]) -> Self {
        let phantom = scan(seed, options).with_structures(structures);
        Self::from_phantom(format!("phantom_{seed:04}"), phantom)
    }

    fn from_phantom(name: String, phantom: Phantom) -> Self {
        const FITS: &str = "a phantom's arrays fit its grid";
        let (z, y, x) = phantom.image.dim();
        let geometry =
            Geometry::new([z, y, x], phantom.spacing_mm, phantom.origin_mm, phantom.direction)
                .expect("the axes of a phantom are at right angles");
        let image = phantom.image.insert_axis(Axis(0));
        Self {
            name,
            image: Image::new(image, geometry.clone()).expect(FITS),
            truth: LabelMap::new(phantom.labels, geometry).expect(FITS),
        }
    }
}

/// Labels of the given structures, background first.
///
/// # Errors
/// When a name is empty or appears twice.
pub fn label_set(structures: &[&str]) -> stunet_data::Result<LabelSet> {
    LabelSet::from_names(["background"].into_iter().chain(structures.iter().copied()))
}
