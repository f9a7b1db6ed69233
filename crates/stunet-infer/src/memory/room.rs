//! Where sums may be: what a device has room for, and why they are on the host all the same.

use crate::network::{Network, Resident};
use burn::tensor::Device;
use serde::Serialize;
use std::fmt;
use stunet_model::{DeviceMemory, WindowSums, WindowSumsCost, device_memory};

/// What a device offers for sums.
#[derive(Clone, Debug)]
pub(crate) struct DeviceRoom {
    /// Bytes that sums may take.
    pub bytes: u64,
    /// Bytes of the largest tensor.
    pub most_at_once: u64,
    /// Bytes of one more window in the network at the same time; none where it is not known what the device has: its
    /// driver does not tell, and the caller has said nothing.
    pub window_bytes: Option<u64>,
    /// Bytes of the largest tensor of a window in the networks, where that is known.
    pub largest: Option<u64>,
    /// Most windows that the networks take at once.
    pub taken_at_once: usize,
    pub device: Device,
}

impl DeviceRoom {
    /// What the networks' device offers beside them; none where they cannot leave their values there, or
    /// where nothing is known of it and the caller has `allowed` nothing.
    pub fn of(
        networks: &[Box<dyn Network>],
        window: [usize; 3],
        allowed: Option<u64>,
    ) -> Option<Self> {
        let residents: Option<Vec<&dyn Resident>> =
            networks.iter().map(|network| network.resident()).collect();
        let residents = residents?;
        let device = residents.first()?.device();
        let taken_at_once = residents.iter().map(|network| network.windows_at_once()).min()?;
        let told = device_memory(&device);
        let peaks = networks.iter().map(|network| network.cost(window).map(|cost| cost.peak_bytes));
        let network = peaks.map(|peak| peak.unwrap_or(u64::MAX)).max()?;
        let bytes = match (allowed, told) {
            (Some(allowed), _) => allowed,
            (None, Some(told)) => {
                let held = device.memory_pool_usage().map_or(0, |usage| usage.bytes_in_use);
                room_beside(told, network, held)
            }
            (None, None) => return None,
        };
        let most_at_once = told.map_or(u64::MAX, |told| told.most_at_once);
        let is_known = told.is_some_and(|told| allowed.is_some() || told.total.is_some());
        let window_bytes = is_known.then(|| in_pages(network));
        let largest = largest_tensor(&residents, window);
        Some(Self { bytes, most_at_once, window_bytes, largest, taken_at_once, device })
    }

    /// Windows that the networks may compute at once beside sums of so many bytes.
    pub fn windows_at_once(&self, sums: u64) -> usize {
        let (Some(each), Some(largest)) = (self.window_bytes, self.largest) else { return 1 };
        let more = self.bytes.saturating_sub(sums) / each.max(1);
        let in_a_tensor = self.most_at_once / largest.max(1);
        let most = self.taken_at_once as u64;
        (1 + more).min(in_a_tensor).clamp(1, most.max(1)) as usize
    }

    /// Whether labels are decided there.
    pub fn decides(&self) -> bool {
        device_memory(&self.device).is_some()
    }

    /// What sums of planes of a size would take.
    pub fn cost(&self, num_classes: usize, depth: usize, plane: [usize; 2]) -> WindowSumsCost {
        WindowSums::cost(num_classes, depth, plane, &self.device)
    }

    /// Whether that is there.
    pub fn has(&self, cost: WindowSumsCost) -> bool {
        cost.bytes <= self.bytes && cost.least_at_once <= self.most_at_once
    }
}

/// Bytes for sums on a device that holds weights, and a network that needs `network` bytes for a window.
///
/// Of the memory that the driver tells of, a tenth is left to others; how much they use is not told. Where the driver tells
/// nothing but the largest tensor, all sums together may be as large as one of those.
fn room_beside(told: DeviceMemory, network: u64, held: u64) -> u64 {
    match told.total {
        Some(total) => (total - total / 10).saturating_sub(held).saturating_sub(in_pages(network)),
        None => told.most_at_once,
    }
}

/// Bytes of the largest tensor of a window in networks that tell of it.
fn largest_tensor(networks: &[&dyn Resident], window: [usize; 3]) -> Option<u64> {
    let features: Option<Vec<_>> =
        networks.iter().map(|network| network.finest_features()).collect();
    let values = features?.into_iter().max()? * window.iter().product::<usize>();
    Some((values * size_of::<f32>()) as u64)
}

/// A network's tensors lie in pages that are larger than they are, by a quarter.
fn in_pages(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4)
}

/// Why sums are on the host although a device could have taken them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SumsOnHost {
    /// Sums in half precision are those of the reference on the host alone.
    HalfPrecision,
    /// The device has too little room.
    Room {
        /// Bytes that all sums would take.
        needed: u64,
        /// Bytes that they may.
        room: u64,
    },
}

impl fmt::Display for SumsOnHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        match *self {
            Self::HalfPrecision => f.write_str("accumulation in half precision"),
            Self::Room { needed, room } => write!(
                f,
                "{:.1} GB of device memory needed, {:.1} GB available",
                gigabytes(needed),
                gigabytes(room)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stunet_model::StuNetConfig;

    #[test]
    fn a_device_that_tells_nothing_gives_the_processor_the_sums() {
        assert!(DeviceRoom::of(&[], [8; 3], None).is_none());
        assert!(device_memory(&Device::flex()).is_none());
    }

    #[test]
    fn as_many_windows_at_once_as_there_is_room_for() {
        let (bytes, window_bytes, device) = (1000, Some(300), Device::flex());
        let (most_at_once, largest, taken_at_once) = (250, Some(100), 2);
        let room = DeviceRoom { bytes, most_at_once, window_bytes, largest, taken_at_once, device };
        assert_eq!(room.windows_at_once(700), 2);
        assert_eq!(room.windows_at_once(701), 1);
        // Two of the largest tensor would be more than one may be; and what is not known is not tried.
        assert_eq!(DeviceRoom { largest: Some(126), ..room.clone() }.windows_at_once(0), 1);
        assert_eq!(DeviceRoom { largest: None, ..room.clone() }.windows_at_once(0), 1);
        assert_eq!(DeviceRoom { window_bytes: None, ..room.clone() }.windows_at_once(0), 1);
        assert_eq!(DeviceRoom { taken_at_once: 1, ..room }.windows_at_once(0), 1);
    }

    #[test]
    fn the_networks_tell_of_their_largest_tensor() {
        let network = StuNetConfig::small(1, 3).init(&Device::flex());
        let networks: [&dyn Resident; 1] = [&network];
        assert_eq!(networks[0].windows_at_once(), 2);
        assert_eq!(largest_tensor(&networks, [128; 3]), Some(128 << 20));
    }

    #[test]
    fn why_is_one_line() {
        let told = SumsOnHost::Room { needed: 6_000_000_000, room: 2_500_000_000 }.to_string();
        assert_eq!(told, "6.0 GB of device memory needed, 2.5 GB available");
    }
}
