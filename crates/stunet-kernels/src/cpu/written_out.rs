//! Arrays written out, for values that vector instructions make.
//!
//! A closure is compiled without the instructions of the kernel around it unless it is inlined, and those
//! of `array::from_fn` and `map` are inlined or not as the optimiser sees fit: without link-time
//! optimisation (`lto = "off"`) the kernels were four times slower.

/// An array of `$value` at each of the indices, which `$i` names as a constant.
macro_rules! written_out {
    (|$i:ident| $value:expr, $($index:literal)*) => {
        [$({
            const $i: usize = $index;
            $value
        }),*]
    };
}

macro_rules! two {
    (|$i:ident| $value:expr) => {
        written_out!(|$i| $value, 0 1)
    };
}

macro_rules! three {
    (|$i:ident| $value:expr) => {
        written_out!(|$i| $value, 0 1 2)
    };
}

macro_rules! four {
    (|$i:ident| $value:expr) => {
        written_out!(|$i| $value, 0 1 2 3)
    };
}

macro_rules! five {
    (|$i:ident| $value:expr) => {
        written_out!(|$i| $value, 0 1 2 3 4)
    };
}

macro_rules! six {
    (|$i:ident| $value:expr) => {
        written_out!(|$i| $value, 0 1 2 3 4 5)
    };
}

macro_rules! eight {
    (|$i:ident| $value:expr) => {
        written_out!(|$i| $value, 0 1 2 3 4 5 6 7)
    };
}
