//! Whether a model is the demo model, which has never seen a patient.

use stunet::infer::Model;

/// The warning that pictures of the model carry, if it is the demo model.
pub fn banner_of(model: &Model) -> Option<String> {
    banner_of_digest(model.digest())
}

/// The same by the digest of a model.
#[cfg(feature = "demo")]
pub fn banner_of_digest(digest: Option<&str>) -> Option<String> {
    use stunet_phantom::demo::{BANNER, DIGEST};
    digest.filter(|digest| *digest == DIGEST).map(|_| BANNER.to_owned())
}

/// The same by the digest of a model; this program was built without it.
#[cfg(not(feature = "demo"))]
pub fn banner_of_digest(_: Option<&str>) -> Option<String> {
    None
}
