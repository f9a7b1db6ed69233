//! The one place that knows the reference's parameter names.
//!
//! nnU-Net v1 and v2 checkpoints of STU-Net have the same keys, since the reference's decoder
//! module holds no parameters.

pub(super) mod plain;

/// Reference prefix, own prefix, reference infix before `weight`/`bias`, and whether blocks follow
/// the first index.
const MODULES: [(&str, &str, &str, bool); 4] = [
    ("conv_blocks_context", "encoder.stages", "", true),
    ("upsample_layers", "decoder.upsample", "conv.", false),
    ("conv_blocks_localization", "decoder.stages", "", true),
    ("seg_outputs", "decoder.heads", "", false),
];

/// Members of a residual block.
const MEMBERS: [(&str, &str); 5] = [
    ("conv1", "conv1"),
    ("norm1", "norm1"),
    ("conv2", "conv2"),
    ("norm2", "norm2"),
    ("conv3", "skip"),
];

/// What training wrappers put before every key: `DistributedDataParallel`, `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// A key without what training wrappers put before it.
pub(super) fn unwrapped(mut key: &str) -> &str {
    while let Some(inner) = WRAPPERS.iter().find_map(|w| key.strip_prefix(w)) {
        key = inner;
    }
    key
}

/// Our name for a reference key, or none if the network has no such parameter.
pub(super) fn own_name(key: &str) -> Option<String> {
    let (module, rest) = unwrapped(key).split_once('.')?;
    let (_, own, infix, blocks) = MODULES.iter().find(|m| m.0 == module)?;
    let (index, rest) = split_index(rest)?;
    if *blocks {
        let (block, rest) = split_index(rest)?;
        let (member, leaf) = rest.split_once('.')?;
        let (_, member) = MEMBERS.iter().find(|m| m.0 == member)?;
        is_leaf(leaf).then(|| format!("{own}.{index}.{block}.{member}.{leaf}"))
    } else {
        let leaf = rest.strip_prefix(infix)?;
        is_leaf(leaf).then(|| format!("{own}.{index}.{leaf}"))
    }
}

/// The reference's key for one of our names.
pub(super) fn reference_key(name: &str) -> Option<String> {
    let (module, rest) = MODULES
        .iter()
        .find_map(|module| Some((module, name.strip_prefix(module.1)?.strip_prefix('.')?)))?;
    let (reference, _, infix, blocks) = module;
    let (index, rest) = split_index(rest)?;
    if *blocks {
        let (block, rest) = split_index(rest)?;
        let (member, leaf) = rest.split_once('.')?;
        let (member, _) = MEMBERS.iter().find(|m| m.1 == member)?;
        is_leaf(leaf).then(|| format!("{reference}.{index}.{block}.{member}.{leaf}"))
    } else {
        is_leaf(rest).then(|| format!("{reference}.{index}.{infix}{rest}"))
    }
}

/// A network of nnU-Net that is known by its keys, and not supported.
pub(super) fn known_by(key: &str) -> Option<&'static str> {
    let key = unwrapped(key);
    if key.starts_with("encoder.stem.") || key.starts_with("encoder.stages.0.blocks.") {
        return Some("a ResidualEncoderUNet, which is not supported");
    }
    if key.starts_with("conv_blocks_context.0.blocks.") {
        return Some("a Generic_UNet of nnU-Net 1, which is not supported");
    }
    None
}

/// A key that tells a checkpoint of STU-Net from those of other networks.
pub(super) const WITNESS: &str = "conv_blocks_context.0.0.conv1.weight";

pub(super) fn split_index(text: &str) -> Option<(usize, &str)> {
    let (index, rest) = text.split_once('.')?;
    let parsed: usize = index.parse().ok()?;
    // "01" would collide with "1".
    (parsed.to_string() == index).then_some((parsed, rest))
}

fn is_leaf(text: &str) -> bool {
    matches!(text, "weight" | "bias")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StuNetConfig;
    use std::collections::HashSet;

    #[test]
    fn names() {
        let check = |key: &str, own: Option<&str>| {
            assert_eq!(own_name(key).as_deref(), own, "{key}");
            assert_eq!(own_name(&format!("module.{key}")).as_deref(), own);
            if let Some(own) = own {
                assert_eq!(reference_key(own).as_deref(), Some(key));
            }
        };
        check("conv_blocks_context.0.0.conv1.weight", Some("encoder.stages.0.0.conv1.weight"));
        check("conv_blocks_context.5.2.norm2.bias", Some("encoder.stages.5.2.norm2.bias"));
        check("conv_blocks_localization.4.0.conv3.bias", Some("decoder.stages.4.0.skip.bias"));
        check("upsample_layers.3.conv.weight", Some("decoder.upsample.3.weight"));
        check("seg_outputs.4.bias", Some("decoder.heads.4.bias"));
        check("seg_outputs.4.running_mean", None);
        check("seg_outputs.04.bias", None);
        check("upsample_layers.3.weight", None);
        check("conv_blocks_context.0.blocks.0.conv.weight", None);
        check("encoder.stages.0.0.conv1.weight", None);
        check("", None);
    }

    #[test]
    fn every_parameter_has_one_key() {
        let config = StuNetConfig { depth: [2, 1, 3, 1, 2, 1], ..StuNetConfig::small(2, 3) };
        let specs = config.parameter_specs();
        let keys: HashSet<_> = specs
            .iter()
            .map(|spec| {
                let key = reference_key(&spec.name).unwrap();
                assert_eq!(own_name(&key).as_ref(), Some(&spec.name));
                key
            })
            .collect();
        assert_eq!(keys.len(), specs.len());
    }
}
