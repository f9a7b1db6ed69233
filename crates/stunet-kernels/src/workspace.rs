//! Memory kept between operators.

/// Keeps the memory of large tensors for those that follow, as long as it lives.
///
/// Only the processor's own operators keep memory; elsewhere this does nothing.
#[derive(Debug)]
#[must_use = "memory is kept while the workspace lives"]
pub struct Workspace {
    #[cfg(feature = "cpu")]
    _pool: crate::cpu::KeptPages,
}

/// Begins to keep the memory of large tensors that are dropped, for the ones made next.
///
/// Fresh memory costs the operating system as much as a third of a forward pass. What is kept goes
/// back with the last workspace; used and kept memory together are never more than what was in use
/// at one time. Workspaces of several threads share what they keep.
///
/// ```
/// let workspace = stunet_kernels::workspace();
/// // ... forward passes ...
/// drop(workspace);
/// ```
pub fn workspace() -> Workspace {
    Workspace {
        #[cfg(feature = "cpu")]
        _pool: crate::cpu::KeptPages::new(),
    }
}
