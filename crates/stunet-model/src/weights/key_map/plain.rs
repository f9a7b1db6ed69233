//! Names of the parameters of nnU-Net's plain U-Net.

use super::{split_index, unwrapped};

/// What a key of the reference is.
pub(in crate::weights) enum Key {
    /// A parameter, under our name.
    Parameter(String),
    /// A parameter that stands there under another key, too: blocks list their members twice, and
    /// the decoder has a reference to the encoder.
    Again,
    /// Nothing of this network.
    Unknown,
}

/// What a key of the reference is in a plain U-Net.
///
/// # Source
/// dynamic-network-architectures 0.4 `PlainConvUNet.state_dict()`.
pub(in crate::weights) fn own_name(key: &str) -> Key {
    let key = unwrapped(key);
    if key.starts_with("decoder.encoder.stages.") || key.contains(".all_modules.") {
        return Key::Again;
    }
    parameter(key).map_or(Key::Unknown, Key::Parameter)
}

fn parameter(key: &str) -> Option<String> {
    let (half, rest) = key.split_once('.')?;
    let (list, rest) = rest.split_once('.')?;
    let (index, rest) = split_index(rest)?;
    let member = match (half, list) {
        ("encoder", "stages") => block(rest.strip_prefix("0.convs.")?)?,
        ("decoder", "stages") => block(rest.strip_prefix("convs.")?)?,
        ("decoder", "transpconvs" | "seg_layers") => leaf(rest)?.to_owned(),
        _ => return None,
    };
    Some(format!("{half}.{list}.{index}.{member}"))
}

fn block(text: &str) -> Option<String> {
    let (index, rest) = split_index(text)?;
    let (member, rest) = rest.split_once('.')?;
    matches!(member, "conv" | "norm").then_some(())?;
    Some(format!("{index}.{member}.{}", leaf(rest)?))
}

fn leaf(text: &str) -> Option<&str> {
    matches!(text, "weight" | "bias").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |key: &str, expected: Option<&str>| {
            for key in [key.to_owned(), format!("module.{key}"), format!("_orig_mod.{key}")] {
                match (own_name(&key), expected) {
                    (Key::Parameter(found), Some(expected)) => assert_eq!(found, expected),
                    (Key::Again, Some("again")) | (Key::Unknown, None) => {}
                    _ => panic!("{key}"),
                }
            }
        };
        let name = "encoder.stages.0.1.conv.weight";
        check("encoder.stages.0.0.convs.1.conv.weight", Some(name));
        check("encoder.stages.4.0.convs.0.norm.bias", Some("encoder.stages.4.0.norm.bias"));
        check("decoder.stages.2.convs.1.norm.weight", Some("decoder.stages.2.1.norm.weight"));
        check("decoder.transpconvs.0.weight", Some("decoder.transpconvs.0.weight"));
        check("decoder.seg_layers.3.bias", Some("decoder.seg_layers.3.bias"));
        let again = "decoder.encoder.stages.0.0.convs.0.conv.weight";
        assert!(matches!(own_name(again), Key::Again));
        let again = "encoder.stages.0.0.convs.0.all_modules.1.bias";
        assert!(matches!(own_name(again), Key::Again));
        check("encoder.stages.0.0.convs.0.norm.running_mean", None);
        check("encoder.stages.01.0.convs.0.conv.weight", None);
        check("encoder.stages.0.blocks.0.conv1.conv.weight", None);
        check("conv_blocks_context.0.0.conv1.weight", None);
        check("", None);
        use super::super::known_by;
        assert!(known_by("encoder.stem.convs.0.conv.weight").unwrap().contains("ResidualEncoder"));
    }
}
