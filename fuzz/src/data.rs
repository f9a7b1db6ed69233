//! The parsers of `stunet-data`, and what is done with what they accept.

use serde_json::{Value, json};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::OnceLock;
use stunet_data::array_file::ArrayFile;
use stunet_data::dataset::{DatasetInfo, RawDataset};
use stunet_data::dicom;
use stunet_data::files::parse_json;
use stunet_data::fingerprint::Fingerprint;
use stunet_data::geometry::Geometry;
use stunet_data::image::{Image, RawImage, Voxels};
use stunet_data::labels::{CompactLabelMap, LabelMap, LabelSet, LabelVoxels};
use stunet_data::mapping::LabelMapping;
use stunet_data::nifti;
use stunet_data::planner::{PlanOptions, plan};
use stunet_data::plans::{Plans, Reference};
use stunet_data::preprocess::{RestoreOrder, Trace, memory_bytes, preprocess};
use stunet_data::splits::{Fold, Splits};
use stunet_data::store::{Store, StoreRecipe};

/// A folder of this process, in memory where the system has such.
pub fn scratch(name: &str) -> PathBuf {
    static HOME: OnceLock<tempfile::TempDir> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let memory = std::path::Path::new("/dev/shm");
        let made = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        made.expect("a folder for scratch")
    });
    let folder = home.path().join(name);
    std::fs::create_dir_all(&folder).expect("a folder for scratch");
    folder
}

/// True for one input in `n`: what is slow is done for these only.
pub fn one_in(n: u32, input: &[u8]) -> bool {
    crc32fast::hash(input).is_multiple_of(n)
}

/// Parts of an input that are separated by zeros.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut parts = input.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

pub fn nifti(input: &[u8]) -> bool {
    nifti::read_scan_bytes(input, None).is_ok_and(|scan| use_scan(scan, input))
}

pub fn nifti_pair(input: &[u8]) -> bool {
    let second =
        input.starts_with(&540i32.to_le_bytes()) || input.starts_with(&540i32.to_be_bytes());
    let (header, voxels) = input.split_at(input.len().min(if second { 540 } else { 348 }));
    nifti::read_scan_bytes(header, Some(voxels)).is_ok_and(|scan| use_scan(scan, input))
}

/// What is written of a scan is read again as it was.
fn use_scan(scan: RawImage, input: &[u8]) -> bool {
    black_box((scan.num_channels(), scan.bytes(), scan.geometry.world_from_voxel()));
    let [z, y, x] = scan.geometry.shape();
    let usual = |v: f64| (1e-3..1e3).contains(&v.abs());
    let sane = scan.geometry.spacing_mm().into_iter().all(usual)
        && scan.geometry.origin_mm().into_iter().all(|v| v.abs() < 1e5);
    if !one_in(64, input) || scan.num_channels() != 1 || z * y * x > 1 << 12 || !sane {
        return true;
    }
    let folder = scratch("nifti");
    if let Voxels::I16(voxels) = &scan.voxels
        && voxels.iter().all(|v| *v >= 0)
    {
        let labels = voxels.index_axis(ndarray::Axis(0), 0).mapv(|v| v as u16);
        let labels = LabelMap::new(labels, scan.geometry.clone()).expect("one grid");
        let path = folder.join("labels.nii.gz");
        nifti::write_labelmap(&path, &labels, u16::MAX).expect("labels are written");
        let again = nifti::read_labelmap(&path).expect("an own file is read");
        assert_eq!(again.data, labels.data, "labels change in a round trip");
        again.geometry.check_same_grid(&labels.geometry).expect("the grid stays");
        let (grid, channels) = nifti::read_geometry(&path).expect("an own header is read");
        assert_eq!((&grid, channels), (&again.geometry, 1));
    }
    let image = scan.into_image();
    let path = folder.join("image.nii");
    nifti::write_image(&path, &image).expect("an image is written");
    let again = nifti::read_image(&[&path]).expect("an own file is read");
    assert_eq!(again.data, image.data, "values change in a round trip");
    again.geometry.check_same_grid(&image.geometry).expect("the grid stays");
    true
}

/// MetaImage or NRRD.
pub fn volume(input: &[u8]) -> bool {
    let scan = nifti::Reader::default().read_scan_bytes(&[input]);
    scan.is_ok_and(|scan| use_scan(scan, input))
}

/// What stands between the files of a series.
pub const BETWEEN: &[u8] = b"\0-stunet-\0";

/// Files of DICOM, told apart by [`BETWEEN`].
pub fn dicom(input: &[u8]) -> bool {
    thread_local! {
        // Work is done on this thread, where its memory is counted.
        static POOL: rayon::ThreadPool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .use_current_thread()
            .build()
            .expect("a pool of one thread");
    }
    POOL.with(|pool| pool.install(|| use_series(input)))
}

fn use_series(input: &[u8]) -> bool {
    let (mut files, mut rest) = (Vec::new(), input);
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        files.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    files.push(rest);
    for file in &files {
        let _ = black_box(dicom::note_in_memory(file));
    }
    let Ok(found) = dicom::find_in_memory(&files) else { return false };
    black_box(found.lines());
    let mut accepted = false;
    for series in &found.series {
        black_box((series.line(), series.name(), series.description(), series.num_slices()));
        assert!(stunet_data::files::is_plain_name(&series.name()), "a name that is none");
        for uneven in [false, true] {
            let Ok(scan) = series.read(uneven) else { continue };
            let grid = series.geometry(uneven).expect("what is read has a grid");
            assert_eq!(grid, scan.image.geometry);
            let small = grid.shape().iter().product::<usize>() <= 1 << 12;
            if let Some(source) = series.source(uneven).ok().filter(|_| small) {
                use_source(&source, &grid);
            }
            accepted |= use_scan(scan.image, input);
        }
    }
    accepted
}

/// Objects of labels on the grid of a series.
fn use_source(source: &dicom::Source, grid: &Geometry) {
    let mut voxels = LabelVoxels::zeros(grid.shape(), 2);
    if let LabelVoxels::Bytes(values) = &mut voxels {
        values.iter_mut().take(100).for_each(|value| *value = 1);
    }
    let labels = CompactLabelMap { voxels, geometry: grid.clone() };
    let names = LabelSet::numbered(3).expect("three outputs have names");
    let provenance = dicom::DicomProvenance { model: None, note: Some("a".to_owned()) };
    let derived = dicom::Derived::new(&labels, &names, source, provenance);
    let derived = derived.expect("labels on the grid of their series");
    for kind in [dicom::SegmentationKind::Binary, dicom::SegmentationKind::Labelmap] {
        let bytes = derived.segmentation_to_bytes(kind).expect("a small segmentation");
        let note = dicom::note_in_memory(&bytes).expect("what was written can be read");
        assert_eq!(note.as_deref(), Some("a"));
    }
    black_box(derived.structure_set_to_bytes().expect("a small structure set"));
}

/// Plans of either nnU-Net or of ours, then a `dataset.json`.
pub fn plans(input: &[u8]) -> bool {
    let [plans, dataset] = parts(input);
    let mut found: Vec<Plans> = parse_json(plans).into_iter().collect();
    if let Ok(json) = parse_json::<Value>(plans) {
        let dataset = parse_json::<Value>(dataset).unwrap_or_else(
            |_| json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}}),
        );
        found.extend(Plans::from_v1_json(&json));
        let configurations = json.get("configurations").and_then(Value::as_object);
        let names: Vec<&str> =
            configurations.into_iter().flatten().map(|(name, _)| name.as_str()).take(4).collect();
        for name in names {
            found.extend(Plans::from_v2_json(&json, &dataset, name));
        }
    }
    found.iter().for_each(|plans| use_plans(plans, input));
    !found.is_empty()
}

pub fn use_plans(plans: &Plans, input: &[u8]) {
    let text = serde_json::to_vec(plans).expect("plans are JSON");
    let again: Plans = parse_json(&text).expect("own plans are read");
    assert_eq!(again, *plans, "plans change in a round trip");
    black_box(plans.transpose_backward());
    let geometry = Geometry::axis_aligned([4, 5, 6], [1.0, 1.0, 2.0]).expect("a grid");
    let bytes = memory_bytes(&geometry, plans.num_channels(), plans);
    if plans.num_channels() > 8 || bytes > 1 << 18 || !one_in(16, input) {
        return;
    }
    let value = |(c, z, y, x): (usize, usize, usize, usize)| (c + z * y + x * x) as f32;
    let image = ndarray::Array4::from_shape_fn((plans.num_channels(), 4, 5, 6), value);
    let image = Image::new(image, geometry).expect("one grid");
    if let Ok(prepared) = preprocess(&image, plans) {
        use_trace(&prepared.trace);
    }
}

pub fn dataset(input: &[u8]) -> bool {
    let Ok(info) = parse_json::<Value>(input)
        .map_err(drop)
        .and_then(|json| DatasetInfo::from_json(&json).map_err(drop))
    else {
        return false;
    };
    black_box(info.classes());
    use_labels(&info.labels);
    true
}

/// Our `labels.json`, or the labels of a `dataset.json`.
pub fn labels(input: &[u8]) -> bool {
    let mut found: Vec<LabelSet> = parse_json(input).into_iter().collect();
    if let Ok(json) = parse_json::<Value>(input) {
        found.extend(LabelSet::from_dataset_json(&json));
    }
    found.iter().for_each(use_labels);
    !found.is_empty()
}

fn use_labels(labels: &LabelSet) {
    black_box((labels.num_outputs(), labels.max_value(), labels.name_of(1), labels.region_order()));
    let text = serde_json::to_vec(labels).expect("labels are JSON");
    let again: LabelSet = parse_json(&text).expect("own labels are read");
    assert_eq!(again, *labels, "labels change in a round trip");
}

/// A label map that was read renumbers labels to those it names.
pub fn label_map(input: &[u8]) -> bool {
    let Ok(map) = std::str::from_utf8(input).map(|text| LabelMapping::parse(text, None)) else {
        return false;
    };
    let Ok(map) = map else { return false };
    let geometry = Geometry::axis_aligned([1, 1, 300], [1.0; 3]).expect("a grid");
    let values = ndarray::Array3::from_shape_fn((1, 1, 300), |(_, _, x)| x as u16);
    let labels = LabelMap::new(values, geometry).expect("one grid");
    let (mut prediction, mut reference) = (labels.clone(), labels);
    map.renumber_prediction(&mut prediction);
    map.renumber_reference(&mut reference);
    let most = map.classes().len() as u16;
    assert!(prediction.data.iter().all(|label| *label <= most), "labels of the map");
    assert!(reference.data.iter().all(|label| *label <= most + 1), "labels of the map");
    assert_eq!(map.label_set().num_outputs(), usize::from(most) + 1);
    true
}

pub fn splits(input: &[u8]) -> bool {
    let splits = parse_json::<Value>(input).map_err(drop);
    let Ok(splits) = splits.and_then(|json| Splits::from_json(&json).map_err(drop)) else {
        return false;
    };
    let names = ["a", "b", "c", "d", "e", "f"].map(String::from);
    for fold in (0..8).map(Fold::Number).chain([Fold::All]) {
        black_box(splits.fold(fold, &names).is_ok());
    }
    let json = serde_json::to_value(&splits).expect("splits are JSON");
    assert_eq!(Splits::from_json(&json).expect("own splits are read"), splits);
    true
}

pub fn fingerprint(input: &[u8]) -> bool {
    let Ok(json) = parse_json::<Value>(input) else { return false };
    let found = [Fingerprint::from_v2_json(&json), Fingerprint::from_v1_json(&json)];
    for fingerprint in found.iter().flatten() {
        // Of axes that no scanner has, planning tries networks for a second before it gives up.
        let long = fingerprint.shapes_after_crop.iter().flatten().any(|length| *length > 1 << 12);
        if fingerprint.num_cases() == 2 && one_in(if long { 4096 } else { 4 }, input) {
            use_fingerprint(fingerprint);
        }
        if fingerprint.foreground.is_some() {
            let again = Fingerprint::from_v2_json(&fingerprint.to_v2_json());
            let again = again.expect("an own fingerprint is read");
            assert_eq!(again.shapes_after_crop, fingerprint.shapes_after_crop);
        }
    }
    found.iter().any(Result::is_ok)
}

/// Plans of every version for a dataset of two cases.
fn use_fingerprint(fingerprint: &Fingerprint) {
    static DATASET: OnceLock<RawDataset> = OnceLock::new();
    let dataset = DATASET.get_or_init(|| {
        let folder = scratch("Dataset001_Fuzz");
        let json = json!({
            "channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "numTraining": 2,
            "file_ending": ".nii.gz"
        });
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
            std::fs::write(path, bytes).expect("a scratch file");
        };
        put("dataset.json", json.to_string().as_bytes());
        for case in ["a", "b"] {
            put(&format!("imagesTr/{case}_0000.nii.gz"), b"");
            put(&format!("labelsTr/{case}.nii.gz"), b"");
        }
        RawDataset::open(&folder).expect("a dataset")
    });
    for reference in [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28] {
        if let Ok(planned) = plan(dataset, fingerprint, &PlanOptions::new(reference)) {
            black_box(planned.summaries().expect("an own plan is read"));
        }
    }
}

/// A trace as a stored case holds it.
pub fn trace(input: &[u8]) -> bool {
    let Ok(trace) = parse_json::<Trace>(input) else { return false };
    use_trace(&trace);
    let text = serde_json::to_vec(&trace).expect("a trace is JSON");
    assert_eq!(parse_json::<Trace>(&text).expect("an own trace is read"), trace);
    true
}

fn use_trace(trace: &Trace) {
    black_box((trace.separate_axis(), trace.bounding_box(), trace.placement()));
    let count = |shape: [usize; 3]| shape.iter().map(|n| *n as f64).product::<f64>();
    let (from, to) = (trace.network_shape(), trace.output_shape());
    if count(from) > 4096.0 || count(to) > 4096.0 || count(trace.geometry().shape()) > 65536.0 {
        return;
    }
    assert_eq!(trace.taps().map(|taps| taps.len()), to);
    let labels = ndarray::Array3::<u16>::ones(from);
    for order in [RestoreOrder::Nearest, RestoreOrder::Linear] {
        black_box(trace.restore_labels(labels.view(), order));
    }
}

pub fn recipe(input: &[u8]) -> bool {
    let Ok(recipe) = StoreRecipe::from_bytes(input) else { return false };
    black_box((recipe.digest().len(), recipe.cases().len()));
    use_plans(recipe.plans(), input);
    use_labels(recipe.labels());
    true
}

/// An array of nnU-Net's preprocessed cases: NumPy's or Blosc2's.
pub fn array_file(input: &[u8]) -> bool {
    let ending = if input.starts_with(b"\x93NUMPY") { "npy" } else { "b2nd" };
    let path = scratch("array_file").join(format!("a.{ending}"));
    std::fs::write(&path, input).expect("a scratch file is written");
    let Ok(file) = ArrayFile::open(&path) else { return false };
    let shape = file.shape();
    let first = shape.map(|length| length / 2);
    let size = std::array::from_fn(|axis| (shape[axis] - first[axis]).min(8));
    let Ok(part) = file.read::<f32>(first, size) else { return false };
    assert_eq!(part.shape(), size);
    if shape.iter().map(|n| *n as f64).product::<f64>() < 1e4
        && let Ok(whole) = file.read::<f32>([0; 4], shape)
    {
        let [c, z, y, x] = std::array::from_fn(|a| first[a]..first[a] + size[a]);
        let same = ndarray::Zip::from(whole.slice(ndarray::s![c, z, y, x]))
            .and(&part)
            .all(|a, b| a.to_bits() == b.to_bits());
        assert!(same, "a part differs from the whole");
        black_box(file.read::<i16>([0; 4], shape).is_ok());
    }
    true
}

/// A case of a store; its checksums are mended, so that what lies behind them is reached.
pub fn store(input: &[u8]) -> bool {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = scratch("store");
        let labels = LabelSet::numbered(4).expect("labels");
        let recipe = StoreRecipe::new(Plans::totalsegmentator(), labels, vec!["a".to_owned()]);
        Store::create(&folder, recipe.expect("a recipe")).expect("a store");
        folder
    });
    let mut input = input.to_vec();
    mend_case(&mut input);
    std::fs::write(folder.join("a.safetensors"), &input).expect("a scratch file is written");
    let Ok(case) = Store::open(folder).and_then(|store| store.find("a")) else { return false };
    black_box((case.image().sum(), case.labels().iter().max(), case.stamp()));
    for label in case.locations().present() {
        let shape = case.labels().dim();
        let inside = |v: &[u32; 3]| {
            (v[0] as usize) < shape.0 && (v[1] as usize) < shape.1 && (v[2] as usize) < shape.2
        };
        assert!(case.locations().get(label).iter().all(inside), "a location outside the case");
    }
    assert_eq!(case.trace().network_shape(), case.labels().shape());
    use_trace(case.trace());
    true
}

fn mend_case(data: &mut [u8]) {
    let Some(size) = data.first_chunk::<8>().map(|raw| u64::from_le_bytes(*raw)) else { return };
    let end = usize::try_from(size).ok().and_then(|size| size.checked_add(8));
    let Some(end) = end.filter(|end| *end <= data.len()) else { return };
    let (header, values) = data.split_at_mut(end);
    let header = &mut header[8..];
    let place = |header: &[u8], key: &[u8]| {
        let at = header.windows(key.len()).position(|window| window == key)? + key.len();
        (at + 8 <= header.len()).then_some(at..at + 8)
    };
    if let Some(place) = place(header, b"\"values_crc32\":\"") {
        let crc = format!("{:08x}", crc32fast::hash(values));
        header[place].copy_from_slice(crc.as_bytes());
    }
    if let Some(place) = place(header, b"\"header_crc32\":\"") {
        header[place.clone()].copy_from_slice(b"00000000");
        let crc = format!("{:08x}", crc32fast::hash(header));
        header[place].copy_from_slice(crc.as_bytes());
    }
}
