//! What others reported of Burn and CubeCL on GPUs, each as a check of what this project uses there: for the
//! tests, and as rows of `benches/backends`, which a GPU machine runs.

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor, TensorData};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use stunet::kernels::{Norm, conv3d, norm_activation};
use stunet_testing::prng;

/// Of the largest value that is expected.
const BOUND: f32 = 1e-4;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The report does not hold here.
    Ok,
    /// It does, or something else is wrong.
    Differs,
    /// It cannot hold in this build.
    NotApplicable,
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Differs => "differs",
            Self::NotApplicable => "not applicable",
        }
    }
}

/// A report, and what was found.
#[derive(Clone, Debug)]
pub struct Report {
    pub issue: &'static str,
    /// What was reported, and what is checked.
    pub what: &'static str,
    pub verdict: Verdict,
    /// The measure of the verdict.
    pub why: String,
}

/// What a check says: its measure, or what is wrong. Without the features that a report names, that nothing of
/// it can run.
type Found = Result<String, String>;
type Check = fn(&Device, &Device) -> Found;

const CHECKS: [(&str, &str, Check); 7] = [
    ("burn#4966", "products on wgpu are near zero from some 500 rows on", rows),
    ("burn#5626", "1x1 convolutions are wrong under wgpu's tuning for some channels", pointwise),
    ("burn#4445", "gradients of convolutions of wide tensors panic on CUDA", wide),
    ("burn#5257", "with fusion and tuning a second pass gives other values on Vulkan", again),
    ("burn#5352", "a tuned kernel is taken for a shape it is invalid for, silently", anchored),
    ("burn#3011", "more workgroups along an axis than wgpu allows", workgroups),
    ("burn#4005", "a tensor larger than any buffer ends the program", too_large),
];

/// Every report, checked on a device against the processor.
pub fn reports(device: &Device, cpu: &Device) -> Vec<Report> {
    let check = |(issue, what, check): (&'static str, &'static str, Check)| {
        let found = catch_unwind(AssertUnwindSafe(|| check(device, cpu)));
        let found = found.unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))));
        let (verdict, why) = match found {
            Ok(why) => (Verdict::Ok, why),
            Err(why) => (Verdict::Differs, why),
        };
        Report { issue, what, verdict, why }
    };
    let found = CHECKS.into_iter().map(check);
    found.map(not_applicable).collect()
}

/// Reports about what is not compiled in stand as such, unless their check found something.
fn not_applicable(report: Report) -> Report {
    let needs: &[(&str, bool)] = match report.issue {
        "burn#5257" => {
            &[("fusion", cfg!(feature = "fusion")), ("autotune", cfg!(feature = "autotune"))]
        }
        "burn#5626" | "burn#5352" => &[("autotune", cfg!(feature = "autotune"))],
        _ => &[],
    };
    let missing: Vec<_> = needs.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
    if missing.is_empty() || report.verdict != Verdict::Ok {
        return report;
    }
    let why = format!("built without {}; checked all the same: {}", missing.join(", "), report.why);
    Report { verdict: Verdict::NotApplicable, why, ..report }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

fn tensor<const D: usize>(id: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = prng::uniform(92, id, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// How far values are from those of the processor, of the largest; what is not read is an error.
fn agree<const D: usize>(name: &str, found: Tensor<D>, expected: Tensor<D>) -> Result<f32, String> {
    let read = |x: Tensor<D>| x.try_into_data().map_err(|error| format!("{name}: {error}"));
    let (found, expected) = (read(found)?, read(expected)?);
    let list = |x: TensorData| x.try_to_vec::<f32>().map_err(|error| format!("{name}: {error}"));
    let (found, expected) = (list(found)?, list(expected)?);
    let scale = expected.iter().fold(0f32, |max, v| max.max(v.abs()));
    let worst = found.iter().zip(&expected).fold(0f32, |max, (a, b)| {
        let distance = (a - b).abs();
        // NaN is as far as can be.
        if distance.is_nan() { f32::INFINITY } else { max.max(distance) }
    });
    let share = worst / scale;
    if found.len() == expected.len() && scale > 0.0 && share <= BOUND {
        return Ok(share);
    }
    Err(format!("{name}: {worst} off, of values up to {scale}"))
}

/// The largest of several distances, or the first that is too large.
fn worst(distances: impl IntoIterator<Item = Result<f32, String>>) -> Found {
    let all = distances.into_iter().try_fold(0f32, |max, found| found.map(|d| max.max(d)))?;
    Ok(format!("{all:.1e} of the largest value off"))
}

fn product([m, k, n]: [usize; 3], device: &Device, cpu: &Device) -> Result<f32, String> {
    let of = |device: &Device| tensor(1, [m, k], device).matmul(tensor(2, [k, n], device));
    agree(&format!("product of {m} x {k} and {k} x {n}"), of(device), of(cpu))
}

/// A convolution of a volume `[C, Z, Y, X]`, its result and its gradients.
fn convolution(
    input: [usize; 4],
    outputs: usize,
    kernel: usize,
    [device, cpu]: [&Device; 2],
) -> Result<f32, String> {
    let [c, z, y, x] = input;
    let of = |device: &Device| {
        let device = device.clone().autodiff();
        let volume = tensor(3, [1, c, z, y, x], &device).require_grad();
        let weight = tensor(4, [outputs, c, kernel, kernel, kernel], &device).require_grad();
        let bias = tensor(5, [outputs], &device).require_grad();
        let result = conv3d(volume.clone(), weight.clone(), bias, [1; 3]);
        let gradients = (result.clone() * tensor(6, result.dims(), &device)).sum().backward();
        let gradient = |x: &Tensor<5>| x.grad(&gradients).expect("it is tracked");
        let (volume, weight) = (gradient(&volume), gradient(&weight));
        [result.inner(), volume, weight]
    };
    let names = ["result", "gradient of the input", "gradient of the weights"];
    let pairs = names.into_iter().zip(of(device).into_iter().zip(of(cpu)));
    pairs.map(|(name, (found, expected))| agree(name, found, expected)).try_fold(
        0f32,
        |max, found| {
            let at = || format!("convolution {input:?} to {outputs} channels: ");
            found.map(|distance| max.max(distance)).map_err(|why| at() + &why)
        },
    )
}

fn rows(device: &Device, cpu: &Device) -> Found {
    let products = [[500, 64, 64], [513, 96, 112], [1100, 32, 105]];
    let products = products.map(|shape| product(shape, device, cpu));
    worst(products.into_iter().chain([convolution([8, 8, 8, 9], 16, 1, [device, cpu])]))
}

fn pointwise(device: &Device, cpu: &Device) -> Found {
    let channels = [[104, 208], [440, 440], [32, 105], [512, 256]];
    worst(channels.map(|[c, outputs]| convolution([c, 4, 5, 6], outputs, 1, [device, cpu])))
}

fn wide(device: &Device, cpu: &Device) -> Found {
    let widths = [256, 300, 1408];
    worst(widths.map(|width| convolution([4, 3, 4, width], 5, 3, [device, cpu])))
}

/// A block, another input, and the first one again.
fn again(device: &Device, cpu: &Device) -> Found {
    let block = |id: u64, device: &Device| {
        let x = tensor(10 + id, [1, 6, 7, 8, 9], device);
        let ones = Tensor::<1>::ones([6], device);
        let (weight, bias) = (tensor(4, [6, 6, 3, 3, 3], device), tensor(5, [6], device));
        let y = conv3d(x.clone(), weight, bias, [1; 3]);
        let norm = Norm { weight: ones.clone(), bias: ones, epsilon: 1e-5 };
        (norm_activation(y, norm, 0.01) + x) * 0.5
    };
    let data = |x: Tensor<5>| x.try_into_data().map_err(|error| error.to_string());
    let first = data(block(0, device))?;
    let second = agree("the second input", block(1, device), block(1, cpu))?;
    let third = data(block(0, device))?;
    if first != third {
        return Err("the same input gave other bits the second time".into());
    }
    worst([Ok(second), agree("the first input", block(0, device), block(0, cpu))])
}

/// Shapes that a tuner takes for the same, one after the other.
fn anchored(device: &Device, cpu: &Device) -> Found {
    let shapes = [[600, 32, 112], [600, 32, 105], [601, 31, 97], [600, 32, 112]];
    worst(shapes.map(|shape| product(shape, device, cpu)))
}

fn workgroups(device: &Device, cpu: &Device) -> Found {
    // One workgroup for each of 65,600 samples, and as many values for operators of Burn.
    let of = |device: &Device| {
        let x = tensor(7, [65_600, 1, 1, 1, 2], device);
        let (weight, bias) = (tensor(4, [1, 1, 3, 3, 3], device), tensor(5, [1], device));
        conv3d(x, weight, bias, [1; 3])
    };
    let values = |device: &Device| {
        (Tensor::<1>::ones([65_600 * 300], device) * 2.0).narrow(0, 19_000_000, 9)
    };
    worst([
        agree("convolution of 65600 samples", of(device), of(cpu)),
        agree("a product with 19.7 million values", values(device), values(cpu)),
    ])
}

/// Bytes of the largest tensor that a GPU takes.
pub fn largest(device: &Device) -> Option<u64> {
    let device = device.clone().without_autodiff();
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.client().properties().memory.max_page_size),
        _ => None,
    }
}

fn too_large(device: &Device, cpu: &Device) -> Found {
    let Some(most) = largest(device) else { return Ok("no GPU".into()) };
    let voxels = 64 * 64 * 64;
    let outputs = most as usize / (voxels * size_of::<f32>()) + 1;
    let x = Tensor::<5>::ones([1, 1, 64, 64, 64], device);
    let weight = Tensor::<5>::ones([outputs, 1, 1, 1, 1], device);
    let y = conv3d(x, weight, Tensor::ones([outputs], device), [1; 3]);
    let Err(error) = y.try_into_data() else {
        return Err(format!("{outputs} channels of {voxels} voxels fit into {most} bytes"));
    };
    let goes_on = convolution([4, 5, 6, 7], 8, 3, [device, cpu])?;
    let said = error.to_string();
    let said = said.lines().map(str::trim).find(|line| line.contains("size")).unwrap_or("an error");
    Ok(format!("an error value ({said}); what came next is {goes_on:.1e} off"))
}
