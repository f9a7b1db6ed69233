//! Prediction in WebAssembly, for Node and web pages: bytes in, bytes out, nothing of the host called.
//!
//! JavaScript calls in this order, as `predict.mjs` does:
//!
//! 1. for every file of the model: [`buffer`] for its name and its contents, one after the other,
//!    which are then written to the address it returns; [`add_file`],
//! 2. [`buffer`] for the scan, a `.nii` or a `.nii.gz`, which is written there; [`predict`],
//! 3. [`output`] and [`output_length`]: the labelmap as `.nii.gz`, or a message of what went wrong.

use burn::tensor::Device;
use std::cell::RefCell;
use std::error::Error;
use std::ops::ControlFlow;
use stunet_data::nifti;
use stunet_data::plans::OrientationChoice;
use stunet_infer::{Model, OpenOptions, PredictOptions};

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FILES: RefCell<Vec<(String, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for the bytes of the next call, and returns where they belong.
#[unsafe(no_mangle)]
pub extern "C" fn buffer(length: usize) -> *mut u8 {
    BUFFER.with_borrow_mut(|buffer| {
        *buffer = vec![0; length];
        buffer.as_mut_ptr()
    })
}

/// Takes a file of the model: a name of `name_length` bytes, then the contents.
#[unsafe(no_mangle)]
pub extern "C" fn add_file(name_length: usize) {
    let mut name = BUFFER.take();
    let contents = name.split_off(name_length.min(name.len()));
    let name = String::from_utf8_lossy(&name).into_owned();
    FILES.with_borrow_mut(|files| files.push((name, contents)));
}

/// Predicts the scan with the model that was given before; 0 on success.
#[unsafe(no_mangle)]
pub extern "C" fn predict() -> i32 {
    // A panic ends the module; its message stays.
    std::panic::set_hook(Box::new(|info| OUTPUT.set(info.to_string().into_bytes())));
    let (output, status) = match labels_of(&BUFFER.take(), FILES.take()) {
        Ok(labels) => (labels, 0),
        Err(error) => (error.to_string().into_bytes(), 1),
    };
    OUTPUT.set(output);
    status
}

/// Where the result of [`predict`] is.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    OUTPUT.with_borrow(|output| output.as_ptr())
}

/// Bytes of the result of [`predict`].
#[unsafe(no_mangle)]
pub extern "C" fn output_length() -> usize {
    OUTPUT.with_borrow(Vec::len)
}

fn labels_of(scan: &[u8], files: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>, Box<dyn Error>> {
    let model = Model::from_files(files, &OpenOptions::new(&Device::flex()))?;
    let opener = model.plans().opener(OrientationChoice::Auto)?;
    let image = opener.read_scan_bytes(&[scan])?.into_image();
    let options = PredictOptions { mirror: false, ..PredictOptions::default() };
    let go_on = &mut |_| ControlFlow::Continue(());
    let prediction = stunet_infer::predict(&model, &image, &options, go_on)?;
    let highest = model.labels().max_value();
    Ok(nifti::labelmap_to_bytes(&prediction.labelmap, highest, None, true)?)
}
