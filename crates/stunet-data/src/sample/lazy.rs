//! Cases that are made when they are needed, from wherever they are.

use super::{CasePart, ClassLocations, TrainingCase, TrainingCases, check_shapes, locations};
use crate::error::Result;
use crate::labels::LabelSet;
use ndarray::{Array3, Array4};
use std::sync::OnceLock;

/// Cases that a function makes when they are opened, such as from a database or an archive.
///
/// Image and labels are what a [`MemoryCase`](super::MemoryCase) holds: preprocessed, on one grid. The
/// voxels of every class are drawn when a case is opened first and kept; the volumes are not.
///
/// ```
/// use ndarray::{Array3, Array4};
/// use stunet_data::sample::{LazyCases, TrainingCases};
/// let names = vec!["a".to_owned(), "b".to_owned()];
/// let cases = LazyCases::new(names, |index| {
///     let labels = Array3::from_elem([4, 4, 4], index as i16);
///     Ok((Array4::zeros([1, 4, 4, 4]), labels))
/// });
/// assert_eq!(cases.open(1)?.locations()?.present().collect::<Vec<_>>(), [1]);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
pub struct LazyCases<F> {
    names: Vec<String>,
    load: F,
    labels: Option<LabelSet>,
    locations: Vec<OnceLock<ClassLocations>>,
}

impl<F> LazyCases<F>
where
    F: Fn(usize) -> Result<(Array4<f32>, Array3<i16>)> + Send + Sync,
{
    /// Cases of these names; `load` makes the one of an index. Classes are the labels above 0 that
    /// occur.
    pub fn new(names: Vec<String>, load: F) -> Self {
        let locations = names.iter().map(|_| OnceLock::new()).collect();
        Self { names, load, labels: None, locations }
    }

    /// The same with the classes of a label set: its regions, and what is not to be ignored.
    #[must_use]
    pub fn with_labels(self, labels: LabelSet) -> Self {
        let locations = self.names.iter().map(|_| OnceLock::new()).collect();
        Self { labels: Some(labels), locations, ..self }
    }
}

impl<F> TrainingCases for LazyCases<F>
where
    F: Fn(usize) -> Result<(Array4<f32>, Array3<i16>)> + Send + Sync,
{
    fn len(&self) -> usize {
        self.names.len()
    }

    fn open(&self, index: usize) -> Result<Box<dyn TrainingCase + '_>> {
        let (image, labels) = (self.load)(index)?;
        check_shapes(image.view(), labels.view())?;
        let locations = self.locations[index].get_or_init(|| match &self.labels {
            Some(set) => locations::class_locations(labels.view(), set),
            None => locations::of_present_labels(labels.view()),
        });
        Ok(Box::new(LazyCase { name: &self.names[index], image, labels, locations }))
    }

    fn name(&self, index: usize) -> String {
        self.names[index].clone()
    }
}

struct LazyCase<'a> {
    name: &'a str,
    image: Array4<f32>,
    labels: Array3<i16>,
    locations: &'a ClassLocations,
}

impl TrainingCase for LazyCase<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn shape(&self) -> [usize; 4] {
        self.image.dim().into()
    }

    fn part(&self, _: [usize; 3], _: [usize; 3]) -> Result<CasePart<'_>> {
        Ok(CasePart::whole(self.image.view(), self.labels.view()))
    }

    fn locations(&self) -> Result<&ClassLocations> {
        Ok(self.locations)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryCase;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn volume(index: usize) -> (Array4<f32>, Array3<i16>) {
        let labels = Array3::from_shape_fn([6, 7, 8], |(z, y, x)| ((z * y + x + index) % 3) as i16);
        (labels.mapv(f32::from).insert_axis(ndarray::Axis(0)), labels)
    }

    #[test]
    fn cases_are_those_of_memory_and_locations_are_kept() {
        let loads = AtomicUsize::new(0);
        let cases = LazyCases::new(vec!["a".to_owned(), "b".to_owned()], |index| {
            loads.fetch_add(1, Ordering::Relaxed);
            Ok(volume(index))
        });
        let (image, labels) = volume(1);
        let expected = MemoryCase::new("b", image, labels).unwrap();
        for _ in 0..2 {
            let case = cases.open(1).unwrap();
            let part = case.part([0; 3], [6, 7, 8]).unwrap();
            assert_eq!((case.name(), part.image.view()), ("b", expected.image()));
            assert_eq!((part.labels.view(), part.first), (expected.labels(), [0; 3]));
            assert_eq!(case.locations().unwrap(), expected.locations());
        }
        assert_eq!((loads.load(Ordering::Relaxed), cases.len()), (2, 2));
        let addresses =
            [0, 1].map(|_| std::ptr::from_ref(cases.open(0).unwrap().locations().unwrap()));
        assert_eq!(addresses[0], addresses[1], "drawn once");
    }

    #[test]
    fn errors_and_other_grids_are_passed_on() {
        let cases = LazyCases::new(vec!["a".to_owned()], |_| {
            Ok((Array4::zeros([1, 2, 2, 2]), Array3::zeros([2, 2, 3])))
        });
        let message = cases.open(0).map(drop).unwrap_err().to_string();
        assert!(message.contains("shape of the labels"), "{message}");
        let cases = LazyCases::new(vec!["a".to_owned()], |_| Err(crate::DataError::NoCases));
        assert!(cases.open(0).is_err());
    }
}
