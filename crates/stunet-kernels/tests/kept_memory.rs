//! Memory is kept between operators without being asked for, and goes back by itself. In a program of its
//! own, as the memory is everybody's.
#![cfg(feature = "cpu")]

use burn::tensor::{Device, Tensor};
use std::time::{Duration, Instant};
use stunet_kernels::{conv3d, kept_memory, release_memory};

#[test]
fn memory_waits_for_the_next_operator_and_goes_back() {
    let device = Device::flex();
    let x = Tensor::<5>::ones([1, 8, 64, 64, 64], &device);
    let weight = Tensor::<5>::ones([8, 8, 3, 3, 3], &device);
    let bias = Tensor::<1>::zeros([8], &device);
    let run = || drop(conv3d(x.clone(), weight.clone(), bias.clone(), [1; 3]));
    let output_bytes = 8 * 64 * 64 * 64 * 4;
    assert_eq!(kept_memory(), 0);
    run();
    let kept = kept_memory();
    assert!(kept >= output_bytes, "{kept}");
    run();
    assert_eq!(kept_memory(), kept, "the second made do with what the first had left");
    release_memory();
    assert_eq!(kept_memory(), 0);
    run();
    assert!(kept_memory() >= output_bytes);
    let begin = Instant::now();
    while kept_memory() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(120), "it does not go back by itself");
        std::thread::sleep(Duration::from_millis(100));
    }
}
