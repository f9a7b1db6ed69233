//! Whether the images of a dataset lie in memory the same way.

use super::RawDataset;
use crate::geometry::Orientation;
use crate::plans::TrainedOrientation;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How the axes of a dataset's images run, as the dataset's reader gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOrientations {
    /// How many cases, and the first of them.
    found: BTreeMap<Orientation, (usize, String)>,
}

impl RawDataset {
    /// How the axes of the images run. Only headers are read, the first channel's of every case.
    ///
    /// Headers that cannot be read are left out: [`RawDataset::check`] tells of them.
    pub fn orientations(&self) -> ImageOrientations {
        let opener = self.info().opener();
        let mut all = ImageOrientations::default();
        for case in self.cases() {
            if let Some(Ok((grid, _))) = case.images.first().map(|f| opener.read_geometry(f)) {
                let entry = all.found.entry(Orientation::of(&grid));
                entry.or_insert_with(|| (0, case.name.clone())).0 += 1;
            }
        }
        all
    }
}

impl ImageOrientations {
    /// What a network that is trained on the images will know of it; none where no header could be
    /// read. Of equally many, the first by the alphabet.
    pub fn trained(&self) -> Option<TrainedOrientation> {
        let counts = self.found.iter().map(|(orientation, (count, _))| (*orientation, *count));
        let most = counts.min_by_key(|(of, count)| (Reverse(*count), of.to_string()));
        most.map(|(majority, _)| TrainedOrientation { majority, unanimous: self.found.len() == 1 })
    }

    /// A sentence on images whose axes point in different directions; none if they all agree.
    ///
    /// # Source
    /// nnU-Net 1.7, `sanity_checks.verify_all_same_orientation`, which warns of it. Version 2 does not
    /// look.
    pub fn note(&self) -> Option<String> {
        let mut told: Vec<_> = self
            .found
            .iter()
            .map(|(of, (count, case))| format!("{of} ({count}, such as {case})"))
            .collect();
        told.sort();
        (told.len() > 1).then(|| {
            format!(
                "the axes of the images point in different directions: {}; a network learns better \
                 from images that run alike: with \"overwrite_image_reader_writer\": \
                 \"SimpleITKIOWithReorient\" in dataset.json, nnU-Net 2 and this program turn them all \
                 to RAS",
                told.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nifti::Reader;
    use serde_json::json;
    use stunet_testing::nifti_bytes::NiftiBytes;

    #[test]
    fn images_that_differ_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("imagesTr")).unwrap();
        let json = json!({
            "channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "numTraining": 3,
            "file_ending": ".nii"
        });
        std::fs::write(at("dataset.json"), json.to_string()).unwrap();
        let write = |case: &str, flip: f32| {
            let mut file = NiftiBytes::ramp([5, 4, 3]);
            file.affine[0][0] *= flip;
            std::fs::write(at(&format!("imagesTr/{case}_0000.nii")), file.bytes()).unwrap();
        };
        let known = |letters: &str, unanimous| {
            Some(TrainedOrientation { majority: letters.parse().unwrap(), unanimous })
        };
        ["a", "b", "c"].into_iter().for_each(|case| write(case, 1.0));
        let dataset = RawDataset::open(folder.path()).unwrap();
        assert_eq!(dataset.orientations().note(), None);
        assert_eq!(dataset.orientations().trained(), known("RAS", true));
        write("b", -1.0);
        let note = dataset.orientations().note().unwrap();
        assert!(note.contains("LAS (1, such as b), RAS (2, such as a)"), "{note}");
        assert_eq!(dataset.orientations().trained(), known("RAS", false));
        write("c", -1.0);
        assert_eq!(dataset.orientations().trained(), known("LAS", false));
        // A reader that turns makes them all alike.
        let turning = dataset.clone().read_by(Reader::SimpleItkReorient).orientations();
        assert_eq!((turning.note(), turning.trained()), (None, known("RAS", true)));
        // One of each: the first by the alphabet.
        std::fs::write(at("imagesTr/b_0000.nii"), b"").unwrap();
        assert_eq!(dataset.orientations().trained(), known("LAS", false));
        std::fs::write(at("imagesTr/a_0000.nii"), b"").unwrap();
        assert_eq!(dataset.orientations().note(), None);
        assert_eq!(dataset.orientations().trained(), known("LAS", true));
        std::fs::write(at("imagesTr/c_0000.nii"), b"").unwrap();
        assert_eq!(dataset.orientations().trained(), None);
    }
}
