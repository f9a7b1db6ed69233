//! Compiled kernels, kept for the next process.

use std::path::Path;

/// Keeps compiled kernels in a folder, and takes those that are there: to be called before any GPU is used.
///
/// They belong to the program's build and to what they were compiled for ([`DeviceFacts::target`]); whatever
/// is there of another one is left alone. A folder that cannot be written costs the time to compile again, and
/// nothing else. Other settings of CubeCL stay as its own files and variables say.
///
/// False where nothing is kept: without the feature `persistence`, or where CubeCL has been used before.
/// Kernels in WGSL (the backend `wgpu`) are compiled by the driver, which may keep them itself.
///
/// [`DeviceFacts::target`]: crate::DeviceFacts::target
pub fn keep_compiled_kernels(folder: &Path) -> bool {
    #[cfg(all(feature = "gpu", feature = "persistence"))]
    {
        use cubecl::config::cache::CacheConfig;
        use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.compilation.cache = true;
        // Beside the build's own number, which not every linker gives.
        config.environment.name = concat!("kernels-", env!("CARGO_PKG_VERSION")).to_owned();
        config.environment.path = CacheConfig::Directory(folder.to_owned());
        CubeClRuntimeConfig::try_set(config)
    }
    #[cfg(not(all(feature = "gpu", feature = "persistence")))]
    {
        let _ = folder;
        false
    }
}
