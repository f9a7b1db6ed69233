//! What a forward pass and a training step move in a GPU's memory, and how many launches they are, as the
//! kernels say it themselves, beside Burn's operators; and the memory that a layer takes.

use crate::counted::{forward, step};
use crate::stock;
use burn::tensor::{Device, Tensor};
use stunet::kernels::conv3d_joined;
use stunet::model::{StuNet, StuNetConfig};
use stunet_testing::say;

/// Gigabytes of a forward pass that may be moved at 128³, and those that Burn's operators move: counted in their
/// source, 24 passes over memory for each convolution with its norm and activation.
const SIZES: [(&str, f64, f64); 2] = [("S", 3.8, 20.0), ("B", 6.8, 40.0)];

/// Bytes and launches of a forward pass and of a training step, and the launches of the same passes where
/// Burn's operators compute.
pub fn traffic(device: &Device) {
    for (name, most, stock_gigabytes) in SIZES {
        let config = match name {
            "S" => StuNetConfig::small(1, 105),
            _ => StuNetConfig::base(1, 105),
        };
        let own = forward(&config, device, |network, x| network.forward(x));
        let own_step = step(&config, device, StuNet::forward_deep);
        let stock = forward(&config, device, stock::forward);
        let stock_step = step(&config, device, stock::forward_deep);
        for (what, own, stock) in
            [("forward", &own, &stock), ("training step", &own_step, &stock_step)]
        {
            say!(
                "STU-Net-{name}, 128³, one sample, f32, {what}: {:.2} GB, {} kernels, {} launches, of \
                 which Burn's {}; Burn's operators: {} launches",
                own.gigabytes(),
                own.kernels.len(),
                own.launches(),
                own.others,
                stock.launches()
            );
            assert_eq!(stock.kernels.iter().filter(|k| k.kernel.starts_with("conv")).count(), 0);
        }
        assert_eq!(own.others, 0, "{name}: a forward pass is this project's alone");
        assert!(own.gigabytes() <= most, "{name}: {} GB", own.gigabytes());
        assert!(own.gigabytes() <= stock_gigabytes / 5.0, "{name}: {} GB", own.gigabytes());
        // A kernel that takes long has several launches.
        assert!(own.launches() * 6.0 <= stock.launches(), "{name}: {} launches", own.launches());
    }
}

/// One forward and one backward pass of a layer like STU-Net's largest, on two joined tensors: the device's own
/// count of its memory against the tensors. An unfolded copy of the input would be 27 times as large.
pub fn memory(device: &Device) {
    let (channels, size) = (32, 40);
    let tensor_bytes = channels * size * size * size * size_of::<f32>();
    let tracked = device.clone().autodiff();
    let volume = || {
        let x = Tensor::<5>::ones([1, channels, size, size, size], &tracked);
        x.require_grad()
    };
    let weight = Tensor::<5>::ones([channels, 2 * channels, 3, 3, 3], &tracked).require_grad();
    let bias = Tensor::<1>::ones([channels], &tracked).require_grad();
    let reserved = || {
        device.sync().unwrap();
        device.memory_pool_usage().expect("CubeCL tells what it holds").bytes_reserved as usize
    };
    device.sync().unwrap();
    device.memory_cleanup();
    let (first, second) = (volume(), volume());
    let before = reserved();
    let y = conv3d_joined(first.clone(), second.clone(), weight.clone(), bias, [1; 3]);
    let gradients = y.sum().backward();
    let found = [first.grad(&gradients), second.grad(&gradients), weight.grad(&gradients)];
    let after = reserved();
    assert!(found.iter().all(Option::is_some));
    let [grown, unfolded] = [after.saturating_sub(before), 27 * 2 * tensor_bytes];
    say!(
        "two tensors of {tensor_bytes} bytes joined, forward and backward: {grown} bytes more than \
         before, {:.1} tensors; unfolded {unfolded}",
        grown as f64 / tensor_bytes as f64
    );
    // The output, its gradient, those of both inputs, and pages that are larger than what they hold.
    assert!(grown < 10 * tensor_bytes, "{grown} bytes more, unfolded it would be {unfolded}");
}
