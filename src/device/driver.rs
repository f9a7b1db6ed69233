//! The driver of a device that wgpu reaches, which CubeCL does not tell.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Name and version of the driver of an adapter of this name; none where there is none, or it says nothing.
pub(super) fn of_adapter(name: &str) -> Option<String> {
    let instance = wgpu::Instance::default();
    // Known at once but in a browser.
    let listed = pin!(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let Poll::Ready(adapters) = listed.poll(&mut Context::from_waker(Waker::noop())) else {
        return None;
    };
    let infos = adapters.iter().map(wgpu::Adapter::get_info);
    let info = infos.into_iter().find(|info| info.name == name)?;
    let told = [info.driver, info.driver_info].into_iter().filter(|text| !text.is_empty());
    let told = told.collect::<Vec<_>>().join(" ");
    (!told.is_empty()).then_some(told)
}
