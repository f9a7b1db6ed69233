//! Weights in the order in which convolutions read them, kept from one forward pass to the next.
//!
//! A convolution brings its weights into another order before it multiplies, and transforms them for minimal
//! filtering: a twentieth of a forward pass, and the same every time while a network predicts. What is kept
//! belongs to the memory of the weights it was made of, which is held as well: so long as it is, nobody
//! else is given that memory, and whoever changes the weights writes a copy.

use super::memory::Output;
use super::simd::Isa;
use super::tensor::is_whole;
use burn_flex::FlexTensor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static SHELF: Mutex<Shelf> = Mutex::new(Shelf::new());

/// All weights that are kept.
struct Shelf {
    /// Bytes that each of those who asked for it allows.
    allowed: Vec<u64>,
    /// Bytes in other orders, and of the weights themselves, which may have been made for one pass.
    held: u64,
    weights: Vec<Arc<KeptWeight>>,
}

impl Shelf {
    const fn new() -> Self {
        Self { allowed: Vec::new(), held: 0, weights: Vec::new() }
    }

    fn most(&self) -> u64 {
        self.allowed.iter().copied().max().unwrap_or(0)
    }

    fn allow(&mut self, bytes: u64) {
        self.allowed.push(bytes);
    }

    /// Takes an allowance back; what is too much without it goes, and with the last everything.
    fn disallow(&mut self, bytes: u64) {
        if let Some(at) = self.allowed.iter().position(|allowed| *allowed == bytes) {
            self.allowed.swap_remove(at);
        }
        if self.held > self.most() || self.allowed.is_empty() {
            self.held = 0;
            self.weights.clear();
        }
    }

    /// What is kept of weights, or may be; none where nothing is kept.
    fn of(&self, weight: &FlexTensor) -> Option<Arc<KeptWeight>> {
        // Of a part of a buffer, others have other parts.
        if self.most() == 0 || !is_whole(weight) {
            return None;
        }
        let new = || Arc::new(KeptWeight { weight: weight.clone(), orders: Mutex::default() });
        Some(self.found(weight).cloned().unwrap_or_else(new))
    }

    fn found(&self, weight: &FlexTensor) -> Option<&Arc<KeptWeight>> {
        let start = weight.bytes().as_ptr();
        self.weights.iter().find(|kept| kept.weight.bytes().as_ptr() == start)
    }

    /// Takes another order of weights in, of so many bytes, if there is room.
    fn takes(&mut self, kept: &Arc<KeptWeight>, bytes: u64) -> bool {
        let found = self.found(&kept.weight);
        let is_there = found.is_some_and(|found| Arc::ptr_eq(found, kept));
        // Others may have come at the same time with the same weights.
        if found.is_some() && !is_there {
            return false;
        }
        let all = bytes + if is_there { 0 } else { kept.weight.bytes().len() as u64 };
        if self.held + all > self.most() {
            return false;
        }
        if !is_there {
            self.weights.push(kept.clone());
        }
        self.held += all;
        true
    }
}

fn shelf() -> MutexGuard<'static, Shelf> {
    SHELF.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An order of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WeightOrder {
    pub isa: Isa,
    /// Values that stand for the 27 of a kernel.
    pub taps: usize,
    /// Whether they are transformed for a stride.
    pub strided: bool,
}

/// Weights with other orders of them.
pub(super) struct KeptWeight {
    weight: FlexTensor,
    orders: Mutex<Vec<(WeightOrder, Arc<Output>)>>,
}

impl KeptWeight {
    /// The weights in an order: those that are kept, or what `pack` makes of them now.
    pub fn packed(
        self: &Arc<Self>,
        order: WeightOrder,
        pack: impl FnOnce() -> Output,
    ) -> Arc<Output> {
        let orders = || self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |orders: &[(WeightOrder, Arc<Output>)]| {
            orders.iter().find(|(kept, _)| *kept == order).map(|(_, packed)| packed.clone())
        };
        if let Some(packed) = find(&orders()) {
            return packed;
        }
        // Without the lock: packing has all threads work, and one of those may come here meanwhile.
        let packed = Arc::new(pack());
        let mut orders = orders();
        if let Some(packed) = find(&orders) {
            return packed;
        }
        if shelf().takes(self, size_of_val(packed.values()) as u64) {
            orders.push((order, packed.clone()));
        }
        packed
    }
}

/// What is kept of a convolution's weights, or may be; none where nothing is kept.
pub(super) fn of(weight: &FlexTensor) -> Option<Arc<KeptWeight>> {
    shelf().of(weight)
}

/// An allowance, until it is dropped.
#[derive(Debug)]
pub(crate) struct Allowance(u64);

impl Allowance {
    pub fn new(bytes: u64) -> Self {
        shelf().allow(bytes);
        Self(bytes)
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        shelf().disallow(self.0);
    }
}

/// Bytes that are held.
pub(crate) fn held() -> u64 {
    shelf().held
}

#[cfg(test)]
mod tests {
    use super::super::tensor::tensor;
    use super::*;
    use burn::tensor::{Device, Int, Tensor};

    fn order(taps: usize) -> WeightOrder {
        WeightOrder { isa: Isa::best(), taps, strided: false }
    }

    #[test]
    fn a_shelf_holds_what_is_allowed() {
        let mut shelf = Shelf::new();
        let (one, two) = (tensor(vec![1.0; 27], [1, 1, 27]), tensor(vec![2.0; 27], [1, 1, 27]));
        assert!(shelf.of(&one).is_none());
        shelf.allow(100);
        shelf.allow(300);
        let kept = shelf.of(&one).unwrap();
        // 108 bytes of the weights themselves.
        assert!(!shelf.takes(&kept, 193) && shelf.takes(&kept, 92));
        assert!(Arc::ptr_eq(&kept, &shelf.of(&one.clone()).unwrap()));
        let other = shelf.of(&two).unwrap();
        assert!(!Arc::ptr_eq(&kept, &other) && !shelf.takes(&other, 1));
        assert!(shelf.takes(&kept, 100) && !shelf.takes(&kept, 1));
        assert_eq!((shelf.held, shelf.weights.len()), (300, 1));
        shelf.disallow(300);
        assert_eq!((shelf.held, shelf.weights.len(), shelf.most()), (0, 0, 100));
        shelf.disallow(100);
        assert!(shelf.of(&one).is_none());
    }

    #[test]
    fn an_order_is_made_once() {
        let _allowance = Allowance::new(1 << 30);
        let weight = tensor(vec![1.0; 27], [1, 1, 3, 3, 3]);
        let kept = of(&weight).unwrap();
        let pack = |value: f32| kept.packed(order(64), || Output::Heap(vec![value; 64]));
        assert_eq!(pack(5.0).values(), [5.0; 64]);
        assert_eq!(of(&weight).unwrap().packed(order(64), || panic!("again")).values(), [5.0; 64]);
        let other = kept.packed(order(27), || Output::Heap(vec![7.0; 27]));
        assert_eq!(other.values(), [7.0; 27]);
    }

    /// By minimal filtering, in large and small tiles, and directly; with a stride, both ways; for two sizes at once.
    #[test]
    fn convolutions_with_kept_weights_are_the_same() {
        let device = Device::flex();
        let values = |shape: [usize; 5]| {
            let count = shape.iter().product::<usize>() as i64;
            let values = Tensor::<1, Int>::arange(0..count, &device).float();
            ((values * 0.37).sin() * 1.7).reshape(shape)
        };
        for (channels, size, stride) in
            [(16, 24, 1), (32, 6, 1), (16, 3, 1), (16, 12, 2), (16, 16, 2)]
        {
            let (weight, bias) = (values([16, channels, 3, 3, 3]), Tensor::ones([16], &device));
            let xs = [values([1, channels, size, size, size]), values([1, channels, 4, 5, 3])];
            let all = || {
                let one = |x: &Tensor<5>| {
                    crate::conv3d(x.clone(), weight.clone(), bias.clone(), [stride; 3]).into_data()
                };
                xs.each_ref().map(one)
            };
            let expected = all();
            let allowance = Allowance::new(1 << 30);
            assert_eq!([all(), all()], [expected.clone(), expected]);
            drop(allowance);
        }
    }

    #[test]
    fn weights_that_change_are_other_weights() {
        let _allowance = Allowance::new(1 << 30);
        let mut weight = tensor(vec![1.0; 27], [1, 1, 3, 3, 3]);
        let kept = of(&weight).unwrap();
        // Whoever writes gets a copy, since the weights are held.
        assert!(weight.try_storage_mut::<f32>().is_none());
        weight.storage_mut::<f32>().fill(2.0);
        assert!(!Arc::ptr_eq(&kept, &of(&weight).unwrap()));
        assert_eq!(kept.weight.storage::<f32>(), [1.0; 27]);
    }
}
