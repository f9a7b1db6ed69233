//! How the axes of images and scans run, in words.

use stunet::data::plans::{OrientationChoice, SeenOrientation, TrainedOrientation};

/// How the axes of training images run.
pub fn of_images(of: TrainedOrientation) -> String {
    match of.unanimous {
        true => of.majority.to_string(),
        false => format!("{} for most", of.majority),
    }
}

/// What to say of a scan; nothing where it runs as the training images did.
pub fn of_scan(seen: SeenOrientation, choice: OrientationChoice) -> Option<String> {
    let SeenOrientation { file, network, trained, .. } = seen;
    let trained = trained.map(|of| match of.unanimous {
        true => format!("those of the training images {}", of.majority),
        false => format!("those of most training images {}", of.majority),
    });
    Some(match (trained, seen.is_turned()) {
        (Some(trained), false) if seen.is_foreign() => {
            let way = match choice {
                OrientationChoice::Auto => "images of two dimensions are not turned",
                _ => "--orientation auto turns the scan for the network",
            };
            format!("its axes run {file}, {trained}: the labels are likely wrong; {way}")
        }
        (Some(trained), true) if seen.is_foreign() => format!(
            "its axes run {file} and are turned to {network}, as --orientation says, {trained}: the \
             labels are likely wrong; --orientation auto turns them to those"
        ),
        (Some(trained), true) => {
            format!("its axes run {file}, {trained}: turned for the network, and the results back")
        }
        (Some(_), false) => return None,
        (None, true) => format!(
            "its axes run {file}: turned to {network} for the network, as --orientation says, and the \
             results back"
        ),
        (None, false) => format!(
            "its axes run {file}; the model does not say how those of its training images ran, and the \
             scan is taken as it is, as by nnU-Net: if they ran otherwise, say how, such as \
             --orientation {}",
            if file.to_string() == "RAS" { "LPS" } else { "RAS" }
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stunet::data::geometry::{Geometry, Orientation};
    use stunet::data::nifti::Reader;
    use stunet::data::plans::Plans;

    fn told(known: Option<TrainedOrientation>, choice: &str) -> Option<String> {
        let plans = Plans { orientation: known, ..Plans::totalsegmentator() };
        let scan = Geometry::axis_aligned([2, 3, 4], [1.0; 3]).unwrap();
        let choice = choice.parse().unwrap();
        let opener = plans.opener(choice).unwrap();
        of_scan(plans.seen(&opener.see_grid(scan).unwrap()), choice)
    }

    #[test]
    fn a_mismatch_is_never_silent() {
        let all = |letters: &str| Some(TrainedOrientation::all(letters.parse().unwrap()));
        let most = all("RAS").map(|of| TrainedOrientation { unanimous: false, ..of });
        let check = |known, choice: &str, words: &[&str]| {
            let line = told(known, choice).unwrap_or_default();
            assert_eq!(line.is_empty(), words.is_empty(), "{known:?}, {choice}: {line}");
            for word in words {
                assert!(line.contains(word), "{known:?}, {choice}: {line}");
            }
        };
        check(
            all("RAS"),
            "auto",
            &["run LPS", "of the training images RAS: turned for the network"],
        );
        check(most, "auto", &["run LPS", "of most training images RAS: turned"]);
        check(all("RAS"), "as-is", &["run LPS", "likely wrong; --orientation auto"]);
        check(all("RAS"), "SLA", &["run LPS", "turned to SLA", "likely wrong; --orientation auto"]);
        check(all("RAS"), "LPS", &["likely wrong"]);
        for choice in ["auto", "as-is", "LPS"] {
            check(all("LPS"), choice, &[]);
        }
        check(all("LPS"), "RAS", &["turned to RAS", "likely wrong"]);
        check(None, "auto", &["run LPS", "taken as it is", "--orientation RAS"]);
        check(None, "as-is", &["run LPS", "taken as it is", "--orientation RAS"]);
        check(None, "RAS", &["run LPS: turned to RAS"]);
    }

    /// What the plans' own reader turns is turned as the training images were.
    #[test]
    fn readers_that_turn() {
        let plans = Plans {
            reader: Reader::NibabelReorient,
            orientation: None,
            ..Plans::totalsegmentator()
        };
        let scan = Geometry::axis_aligned([2, 3, 4], [1.0; 3]).unwrap();
        let opener = plans.opener(OrientationChoice::Auto).unwrap();
        let seen = plans.seen(&opener.see_grid(scan).unwrap());
        let line = of_scan(seen, OrientationChoice::Auto).unwrap();
        assert!(line.contains("training images RAS: turned"), "{line}");
    }

    /// A plane is not turned, and that is said.
    #[test]
    fn planes_stay() {
        let plans = Plans::totalsegmentator();
        let plane = Geometry::axis_aligned([1, 3, 4], [1.0; 3]).unwrap().into_plane(1.0).unwrap();
        let opener = plans.opener(OrientationChoice::Auto).unwrap();
        let seen = plans.seen(&opener.see_grid(plane).unwrap());
        assert_eq!(seen.network, Orientation::LPS);
        let line = of_scan(seen, OrientationChoice::Auto).unwrap();
        assert!(line.contains("of two dimensions are not turned"), "{line}");
    }
}
