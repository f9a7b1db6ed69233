//! Headers held against what SimpleITK makes of them: `scripts/nifti_peer.py` records it.

use super::*;
use serde_json::Value;

/// What is meant to differ: how names of cases begin, and what the difference is.
const DEVIATIONS: [(&str, &str); 29] = [
    // A plane without rows holds nothing; ITK reads one row of it.
    ("dim: second length 0", "refused: bad dimensions"),
    // Planes lie anywhere in space here; ITK knows them in the axial plane only.
    ("dim: 2-D, swapped axes", "read, where ITK refuses"),
    ("dim: 2-D in a sagittal plane", "read, where ITK refuses"),
    // nnU-Net refuses an image of five dimensions.
    ("dim: 5-D on both", "refused: bad dimensions"),
    // A spacing that nobody measured is 1 mm for ITK.
    ("pixdim[1] 0", "refused: spacing must be"),
    ("pixdim[1] nan", "refused: spacing must be"),
    ("pixdim[1] inf", "refused: spacing must be"),
    ("pixdim[2] 0", "refused: spacing must be"),
    ("pixdim[2] nan", "refused: spacing must be"),
    ("pixdim[2] inf", "refused: spacing must be"),
    ("pixdim[3] 0", "refused: spacing must be"),
    ("pixdim[3] nan", "refused: spacing must be"),
    ("pixdim[3] inf", "refused: spacing must be"),
    // ITK keeps the real part, and makes channels of colours.
    ("datatype 32", "refused: unsupported NIfTI file"),
    ("datatype 1792", "refused: unsupported NIfTI file"),
    ("datatype 128", "refused: unsupported NIfTI file"),
    ("datatype 2304", "refused: unsupported NIfTI file"),
    // These bytes are no finite numbers.
    ("datatype 64", "refused: voxels must be finite"),
    // ITK takes the four bytes of the extension for voxels here,
    ("vox_offset 0", "voxels [0.0, 1.0, 23.0]"),
    // and here; voxels that are not there are 0.
    ("vox_offset", "refused: "),
    // Other versions, and Analyze 7.5, which knows no orientation.
    ("magic", "refused: not a NIfTI file"),
    ("sizeof_hdr", "refused: not a NIfTI file"),
    // A sform that mirrors what the qform says: rounding errors decide in ITK, the qform does here.
    ("sform mirrored, own quaternion", "axis 2"),
    ("sform left-handed axes, quaternion 0", "axis 0"),
    // ITK's directions are NaN.
    ("sform NaN, ", "axis 0"),
    // ITK takes what is not finite for 0 in the qform, and goes on with it in the sform.
    ("quaternion (nan, 0, 0)", "refused: qform must be finite"),
    ("qoffset", "refused: qform must be finite"),
    ("sform offset (nan", "refused: origin must be finite"),
    ("sform offset (1e+30", "read, where ITK refuses"),
];

struct Case<'a> {
    name: &'a str,
    bytes: Vec<u8>,
    itk: Value,
}

/// Header, extension and voxels of each case, and the whole of ITK's answer.
fn cases(record: &Value) -> Vec<Case<'_>> {
    let hex = |text: &str| -> Vec<u8> {
        let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    };
    let base = hex(record["base"].as_str().unwrap());
    let list = record["cases"].as_array().unwrap();
    let of = |case: &'_ Value| {
        let mut bytes = base.clone();
        for edit in case["edits"].as_array().unwrap() {
            let at = edit[0].as_u64().unwrap() as usize;
            let new = hex(edit[1].as_str().unwrap());
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
        bytes.extend((0..512).map(|i| i as u8));
        let mut itk = list[0]["itk"].clone();
        for (key, value) in case["itk"].as_object().unwrap() {
            itk[key] = value.clone();
        }
        (bytes, itk)
    };
    list.iter()
        .map(|case| {
            let (bytes, itk) = of(case);
            Case { name: case["name"].as_str().unwrap(), bytes, itk }
        })
        .collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

/// What differs between our reading and ITK's; nothing if they agree, or both refuse.
fn difference(case: &Case<'_>, found: &Result<Image>) -> Option<String> {
    let image = match (found, case.itk.get("refused")) {
        (Ok(_), Some(_)) => return Some("read, where ITK refuses".to_owned()),
        (Err(_), Some(_)) => return None,
        (Err(error), None) => return Some(format!("refused: {error}")),
        (Ok(image), None) => image,
    };
    let itk = |key: &str| numbers(&case.itk[key]);
    let (size, components) = (itk("size"), case.itk["components"].as_f64().unwrap());
    let (channels, z, y, x) = image.data.dim();
    let rank = if image.geometry.is_plane() { 2 } else { 3 };
    let spatial = size.len().min(3);
    let at = |i: usize| size.get(i).copied().unwrap_or(1.0) as usize;
    if (rank, [x, y, z]) != (spatial, [at(0), at(1), at(2)])
        || channels != at(3) * at(4) * components as usize
    {
        return Some(format!("{rank}-D, {channels} of {x} x {y} x {z}, ITK has {size:?}"));
    }
    let [dz, dy, dx] = image.geometry.spacing_mm();
    let (ours, theirs) = (&[dx, dy, dz][..spatial], &itk("spacing")[..spatial]);
    let close = |a: &[f64], b: &[f64], tolerance: f64| {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * (1.0 + b.abs());
        a.len() == b.len() && a.iter().zip(b).all(near)
    };
    if !close(ours, theirs, 1e-7) {
        return Some(format!("spacing {ours:?}, ITK has {theirs:?}"));
    }
    let origin = image.geometry.origin_mm();
    if !close(&origin[..spatial], &itk("origin")[..spatial], 1e-6) {
        return Some(format!("origin {origin:?}, ITK has {:?}", itk("origin")));
    }
    let columns = image.geometry.direction();
    for axis in 0..spatial {
        // ITK makes unit vectors of what is left of a plane's axes without the third component.
        let ours = columns.iter().take(spatial).map(|row| row[axis]);
        let length = ours.clone().map(|part| part.powi(2)).sum::<f64>().sqrt();
        let ours: Vec<f64> = ours.map(|part| part / length).collect();
        let theirs: Vec<f64> =
            (0..spatial).map(|r| itk("direction")[r * size.len() + axis]).collect();
        // As far as sform and qform may differ and still count as the same.
        if !close(&ours, &theirs, 1e-4) {
            return Some(format!("axis {axis} {ours:?}, ITK has {theirs:?}"));
        }
    }
    let first = image.data.as_slice().unwrap();
    let ours = [first[0], first[1 % first.len()], first[first.len() - 1]].map(f64::from);
    // Components lie beside each other in ITK: the second value is another one there.
    let some = |v: &[f64]| if components > 1.0 { vec![v[0], v[2]] } else { v.to_vec() };
    let (ours, theirs) = (some(&ours), some(&itk("voxels")));
    (!close(&ours, &theirs, 1e-7)).then(|| format!("voxels {ours:?}, ITK has {theirs:?}"))
}

#[test]
fn headers_as_itk() {
    let record: Value = serde_json::from_str(include_str!("itk_headers.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.nii");
    let cases = cases(&record);
    assert!(cases.len() > 300, "{}", cases.len());
    let mut wrong = Vec::new();
    let mut used = [false; DEVIATIONS.len()];
    for case in &cases {
        std::fs::write(&path, &case.bytes).unwrap();
        let Some(difference) = difference(case, &read_image(&[&path])) else {
            continue;
        };
        let meant =
            |(name, how): &(&str, &str)| case.name.starts_with(name) && difference.starts_with(how);
        match DEVIATIONS.iter().position(meant) {
            Some(at) => used[at] = true,
            None => wrong.push(format!("{}: {difference}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unused = DEVIATIONS.iter().zip(used).find(|(_, used)| !used);
    assert_eq!(unused, None, "a deviation that is none any more");
}
