//! Whether the images of a dataset lie in memory the same way.

use super::RawDataset;
use crate::geometry::Geometry;
use crate::nifti::Reader;
use std::collections::BTreeMap;

impl RawDataset {
    /// A sentence on images whose axes point in different directions; none if they all agree.
    ///
    /// Only headers are read, and those that cannot be are left out: [`RawDataset::check`] tells of
    /// them.
    ///
    /// # Source
    /// nnU-Net 1.7, `sanity_checks.verify_all_same_orientation`, which warns of it. Version 2 does not
    /// look.
    pub fn orientation_note(&self) -> Option<String> {
        let mut found: BTreeMap<String, (usize, &str)> = BTreeMap::new();
        // As they are in the files, whatever a reader makes of them.
        let opener = Reader::default().leniently(self.info().leniency);
        for case in self.cases() {
            if let Some(Ok((geometry, _))) = case.images.first().map(|f| opener.read_geometry(f)) {
                found.entry(codes(&geometry)).or_insert((0, &case.name)).0 += 1;
            }
        }
        let told =
            found.iter().map(|(codes, (count, case))| format!("{codes} ({count}, such as {case})"));
        (found.len() > 1).then(|| {
            format!(
                "the axes of the images point in different directions: {}; a network learns better \
                 from images that are stored alike",
                told.collect::<Vec<_>>().join(", ")
            )
        })
    }
}

/// Where the voxel axes x, y, z lead, such as `RAS`: to the right, the front and the top.
fn codes(geometry: &Geometry) -> String {
    // Letters of the two ends of the world's axes, in ITK's frame.
    const ENDS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['S', 'I']];
    let direction = geometry.direction();
    let letter = |axis: usize| {
        let along = |row: &usize| direction[*row][axis].abs();
        let row =
            (0..3).max_by(|a, b| along(a).total_cmp(&along(b))).expect("there are three rows");
        ENDS[row][usize::from(direction[row][axis] < 0.0)]
    };
    (0..3).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use stunet_testing::nifti_bytes::NiftiBytes;

    #[test]
    fn directions_by_their_letters() {
        let check = |affine: [[f64; 3]; 3], expected: &str| {
            let row = |r: usize| [affine[r][0], affine[r][1], affine[r][2], 0.0];
            let affine = [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]];
            let geometry = Geometry::from_world_from_voxel([2, 3, 4], &affine).unwrap();
            assert_eq!(codes(&geometry), expected);
        };
        // As nibabel's aff2axcodes.
        check([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 4.0]], "RAS");
        check([[-2.0, 0.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, 4.0]], "LPS");
        check([[0.0, 0.0, 4.0], [2.0, 0.0, 0.0], [0.0, -3.0, 0.0]], "AIR");
        check([[1.9, 0.5, 0.1], [-0.5, 2.9, 0.3], [0.1, -0.4, -4.0]], "RAI");
    }

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
        ["a", "b", "c"].into_iter().for_each(|case| write(case, 1.0));
        let dataset = RawDataset::open(folder.path()).unwrap();
        assert_eq!(dataset.orientation_note(), None);
        write("b", -1.0);
        let note = dataset.orientation_note().unwrap();
        assert!(note.contains("LAS (1, such as b), RAS (2, such as a)"), "{note}");
        std::fs::write(at("imagesTr/b_0000.nii"), b"").unwrap();
        assert_eq!(dataset.orientation_note(), None);
    }
}
