//! The allow-list: every name a pickle may mention.
//!
//! A pickle is a program that may call any function it names. Here a name is looked up in this
//! table and nowhere else; what it "calls" is one of a few constructors, which only build plain
//! data. Any other name ends the reading with an error that states it.

use super::error::{PickleProblem, StepResult};
use crate::weights::tensor::Dtype;

/// The function that nnU-Net 2's `postprocessing.pkl` names.
const REMOVE_ALL_BUT_LARGEST: &str = "nnunetv2.postprocessing.remove_connected_components.\
                                      remove_all_but_largest_component_from_segmentation";

/// A name on the allow-list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    DefaultDict,
    Dict,
    List,
    Tuple,
    Set,
    Bytes,
    /// A builtin type that occurs as a value only.
    Type(&'static str),
    /// A function that occurs as a value only: its dotted name.
    Function(&'static str),
    CodecsEncode,
    NumpyScalar,
    NumpyReconstruct,
    NumpyFrombuffer,
    NumpyArray,
    NumpyDtype,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    TorchSize,
    TorchDevice,
    TorchDtype(Dtype),
    Storage(Option<Dtype>),
}

/// Looks a dotted name up.
pub(super) fn lookup(module: &str, name: &str) -> StepResult<Global> {
    // Python 2 and numpy 1 spell some modules differently.
    let canonical = match module {
        "__builtin__" => "builtins",
        "numpy._core.multiarray" => "numpy.core.multiarray",
        "numpy._core.numeric" => "numpy.core.numeric",
        "torch.storage" => "torch",
        other => other,
    };
    Ok(match (canonical, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("builtins", "dict") => Global::Dict,
        ("builtins", "list") => Global::List,
        ("builtins", "tuple") => Global::Tuple,
        ("builtins", "set" | "frozenset") => Global::Set,
        ("builtins", "bytes" | "bytearray") => Global::Bytes,
        ("builtins", "int") => Global::Type("int"),
        ("builtins", "float") => Global::Type("float"),
        ("builtins", "bool") => Global::Type("bool"),
        ("builtins", "str") => Global::Type("str"),
        // What nnU-Net 2 keeps in `postprocessing.pkl`: named there, and never called here.
        (
            "nnunetv2.postprocessing.remove_connected_components",
            "remove_all_but_largest_component_from_segmentation",
        ) => Global::Function(REMOVE_ALL_BUT_LARGEST),
        ("_codecs", "encode") => Global::CodecsEncode,
        ("numpy.core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy.core.multiarray", "_reconstruct") => Global::NumpyReconstruct,
        ("numpy.core.numeric", "_frombuffer") => Global::NumpyFrombuffer,
        ("numpy", "ndarray") => Global::NumpyArray,
        ("numpy", "dtype") => Global::NumpyDtype,
        ("torch._utils", "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size") => Global::TorchSize,
        ("torch", "device") => Global::TorchDevice,
        ("torch", "UntypedStorage") => Global::Storage(None),
        ("torch", name) => torch(name).ok_or_else(|| forbidden(module, name))?,
        _ => return Err(forbidden(module, name)),
    })
}

fn torch(name: &str) -> Option<Global> {
    if let Some(storage) = name.strip_suffix("Storage") {
        return Dtype::from_storage(storage).map(|d| Global::Storage(Some(d)));
    }
    Dtype::from_torch(name).map(Global::TorchDtype)
}

fn forbidden(module: &str, name: &str) -> PickleProblem {
    // The name comes from the file: bounded, and free of control characters.
    let name: String =
        format!("{module}.{name}").chars().take(200).flat_map(char::escape_default).collect();
    PickleProblem::ForbiddenGlobal { name }
}

impl Global {
    pub(super) fn name(self) -> String {
        let fixed = match self {
            Self::OrderedDict => "collections.OrderedDict",
            Self::DefaultDict => "collections.defaultdict",
            Self::Dict => "dict",
            Self::List => "list",
            Self::Tuple => "tuple",
            Self::Set => "set",
            Self::Bytes => "bytes",
            Self::Type(name) | Self::Function(name) => name,
            Self::CodecsEncode => "_codecs.encode",
            Self::NumpyScalar => "numpy.scalar",
            Self::NumpyReconstruct => "numpy._reconstruct",
            Self::NumpyFrombuffer => "numpy._frombuffer",
            Self::NumpyArray => "numpy.ndarray",
            Self::NumpyDtype => "numpy.dtype",
            Self::RebuildTensor => "torch._utils._rebuild_tensor",
            Self::RebuildTensorV2 => "torch._utils._rebuild_tensor_v2",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::TorchSize => "torch.Size",
            Self::TorchDevice => "torch.device",
            Self::TorchDtype(dtype) => return format!("torch.{}", dtype.name()),
            Self::Storage(None) => "torch.UntypedStorage",
            Self::Storage(Some(dtype)) => return format!("torch storage of {}", dtype.name()),
        };
        fixed.to_owned()
    }
}
