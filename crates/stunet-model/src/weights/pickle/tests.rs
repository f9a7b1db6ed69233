use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::io::Cursor;

/// A pickle's value as JSON.
fn check(bytes: &[u8], expected: serde_json::Value) {
    assert_eq!(read(bytes).map(|v| v.to_json()).map_err(|e| e.to_string()), Ok(expected));
}

/// A pickle that is refused with a message that holds a phrase.
fn refused(bytes: &[u8], phrase: &str) {
    let message = read(bytes).expect_err(phrase).to_string();
    assert!(message.contains(phrase), "{message}");
    assert!(message.contains("byte"), "no position: {message}");
}

#[test]
fn plain_values() {
    check(b"N.", json!(null));
    check(b"\x80\x05\x88.", json!(true));
    check(b"I01\n.", json!(true));
    check(b"I-7\n.", json!(-7));
    check(b"L12345678901234L\n.", json!(12_345_678_901_234i64));
    check(b"J\xff\xff\xff\xff.", json!(-1));
    check(b"M\x01\x02.", json!(513));
    check(b"\x8a\x00.", json!(0));
    check(b"\x8a\x01\xff.", json!(-1));
    check(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", json!(u64::MAX));
    check(b"\x8b\x02\x00\x00\x00\x00\x01.", json!(256));
    check(b"F1.5\n.", json!(1.5));
    check(b"G\x3f\xf8\0\0\0\0\0\0.", json!(1.5));
    check(b"S'a\\n\\x41'\n.", json!("a\nA"));
    check(b"Vb\\u00e9\n.", json!("bé"));
    check(b"U\x02\xe9b.", json!("éb"));
    check(b"X\x02\0\0\0\xc3\xa9.", json!("é"));
    check(b"\x8c\x01a.", json!("a"));
    check(b"\x8d\x01\0\0\0\0\0\0\0a.", json!("a"));
    check(b"C\x02\x01\xff.", json!([1, 255]));
    check(b"B\x01\0\0\0\x05.", json!([5]));
    check(b"\x8e\x01\0\0\0\0\0\0\0\x05.", json!([5]));
    check(b"\x96\x01\0\0\0\0\0\0\0\x05.", json!([5]));
}

/// nnU-Net 2's `postprocessing.pkl`: functions are names, and calling one is refused.
#[test]
fn functions_are_names() {
    const MODULE: &str = "nnunetv2.postprocessing.remove_connected_components";
    const NAME: &str = "remove_all_but_largest_component_from_segmentation";
    let data = Value::List(vec![Value::dict([("labels_or_regions", Value::Int(1))])]);
    let bytes = write_with_functions(&[(MODULE, NAME)], &data);
    let full = format!("{MODULE}.{NAME}");
    check(&bytes, json!([[full], [{ "labels_or_regions": 1 }]]));
    check(&write_with_functions(&[], &Value::List(Vec::new())), json!([[], []]));
    refused(format!("c{MODULE}\n{NAME}\n)R.").as_bytes(), "arguments it takes");
    refused(&write_with_functions(&[("os", "system")], &data), "os.system");
}

#[test]
fn containers_and_memo() {
    check(b"(lp0\nI1\naI2\na.", json!([1, 2]));
    check(b"(K\x01K\x02t.", json!([1, 2]));
    check(b"](K\x01K\x02e.", json!([1, 2]));
    check(b"(S'a'\nI1\nd.", json!({ "a": 1 }));
    check(b"}(K\x00]K\x01Nu.", json!({ "0": [], "1": null }));
    check(b"}\x8c\x01aK\x01s\x8c\x01aK\x02s.", json!({ "a": 2 }));
    check(b"\x8f(K\x01\x90.", json!([1]));
    check(b"(K\x01\x91.", json!([1]));
    check(b"]q\x05K\x01ah\x05\x86.", json!([[1], [1]]));
    check(b"]r\x05\0\0\0j\x05\0\0\0\x86.", json!([[], []]));
    check(b"]\x94h\x00\x86.", json!([[], []]));
    check(b"]p9\ng9\n\x86.", json!([[], []]));
    check(b"K\x012\x86.", json!([1, 1]));
    check(b"K\x01K\x020.", json!(1));
    check(b"K\x01(K\x02K\x031.", json!(1));
    check(b"K\x01(0.", json!(1));
    // A list that is filled after it was memoised is filled everywhere.
    check(b"]q\x00h\x00\x86q\x01h\x00K\x07a0.", json!([[7], [7]]));
}

#[test]
fn allowed_constructors() {
    check(b"ccollections\nOrderedDict\n)R(X\x01\0\0\0aK\x01u.", json!({ "a": 1 }));
    check(b"ccollections\nOrderedDict\n]]X\x01\0\0\0aaK\x01aa\x85R.", json!({ "a": 1 }));
    check(b"ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadataNsb.", json!({}));
    check(b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R.", json!({}));
    check(b"c__builtin__\nset\n](K\x01K\x02e\x85R.", json!([1, 2]));
    check(b"(i__builtin__\nset\n.", json!([]));
    check(b"(c__builtin__\nset\no.", json!([]));
    check(b"c_codecs\nencode\nX\x02\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86R.", json!([255]));
    check(b"ctorch\nSize\n(K\x02K\x03t\x85R.", json!([2, 3]));
    check(b"ctorch\ndevice\nX\x04\0\0\0cudaK\x01\x86R.", json!("cuda:1"));
    check(b"ctorch\nfloat16\n.", json!("torch.float16"));
    check(b"\x8c\x08builtins\x8c\x03int\x93.", json!("int"));
}

/// `numpy.dtype(name)`, with a state that names the byte order.
fn dtype(name: &str, order: char) -> Vec<u8> {
    let mut out = b"cnumpy\ndtype\n".to_vec();
    out.extend([b'U', name.len() as u8]);
    out.extend(name.as_bytes());
    out.extend(b"\x89\x88\x87R(K\x03U\x01");
    out.push(order as u8);
    out.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb");
    out
}

fn scalar(name: &str, order: char, bytes: &[u8]) -> Vec<u8> {
    let mut out = b"cnumpy.core.multiarray\nscalar\n".to_vec();
    out.extend(dtype(name, order));
    out.extend([b'C', bytes.len() as u8]);
    out.extend(bytes);
    out.extend(b"\x86R.");
    out
}

fn array(name: &str, order: char, shape: &[u8], fortran: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out =
        b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01("
            .to_vec();
    shape.iter().for_each(|&s| out.extend([b'K', s]));
    out.push(b't');
    out.extend(dtype(name, order));
    out.push(if fortran { 0x88 } else { 0x89 });
    out.extend([b'C', bytes.len() as u8]);
    out.extend(bytes);
    out.extend(b"tb.");
    out
}

#[test]
fn numpy() {
    check(&scalar("f8", '<', &1.5f64.to_le_bytes()), json!(1.5));
    check(&scalar("f4", '>', &1.5f32.to_be_bytes()), json!(1.5));
    check(&scalar("f2", '<', &[0, 0x3e]), json!(1.5));
    check(&scalar("i8", '<', &(-3i64).to_le_bytes()), json!(-3));
    check(&scalar("i2", '>', &(-3i16).to_be_bytes()), json!(-3));
    check(&scalar("u1", '|', &[200]), json!(200));
    check(&scalar("b1", '|', &[1]), json!(true));
    check(&scalar("U3", '<', b"a\0\0\0b\0\0\0\0\0\0\0"), json!("ab"));
    check(&array("i1", '|', &[2, 3], false, &[1, 2, 3, 4, 5, 6]), json!([[1, 2, 3], [4, 5, 6]]));
    check(&array("i1", '|', &[2, 3], true, &[1, 4, 2, 5, 3, 6]), json!([[1, 2, 3], [4, 5, 6]]));
    check(&array("i1", '|', &[], false, &[9]), json!(9));
    check(&array("f8", '<', &[0], false, &[]), json!([]));
    refused(&scalar("f8", '<', &[0; 4]), "numpy scalar");
    refused(&scalar("O8", '|', &[0; 8]), "dtype");
    refused(&scalar("f16", '|', &[0; 16]), "dtype");
    refused(&array("i1", '|', &[2, 3], false, &[1]), "bytes");
    refused(&array("U0", '|', &[255, 255], false, &[]), "bytes");
}

#[test]
fn nothing_is_executed() {
    let forbidden = |module: &str, name: &str| {
        let call = "(S'true'\ntR.";
        refused(format!("c{module}\n{name}\n{call}").as_bytes(), &format!("{module}.{name}"));
        let mut stack = vec![0x80, 4, 0x8c, module.len() as u8];
        stack.extend(module.as_bytes());
        stack.extend([0x8c, name.len() as u8]);
        stack.extend(name.as_bytes());
        stack.extend(b"\x93\x8c\x04true\x85R.");
        refused(&stack, &format!("`{module}.{name}`"));
        refused(format!("(S'true'\ni{module}\n{name}\n.").as_bytes(), name);
    };
    forbidden("os", "system");
    forbidden("posix", "system");
    forbidden("subprocess", "Popen");
    forbidden("builtins", "eval");
    forbidden("builtins", "exec");
    forbidden("builtins", "getattr");
    forbidden("builtins", "__import__");
    forbidden("__builtin__", "open");
    forbidden("torch", "load");
    forbidden("torch.hub", "load");
    forbidden("torch._utils", "_import_dotted_name");
    forbidden("numpy", "load");
    forbidden("collections", "OrderedDict.__init__");
    refused(b"\x82\x01.", "EXT");
    refused(b"Pname\n.", "persistent id");
    refused(b"K\x01Q.", "persistent id");
    refused(b"\x97.", "buffer");
    // A name from the file cannot write to a terminal.
    let message = read(b"c\x1b[2J\nx\n.").unwrap_err().to_string();
    assert!(!message.contains('\x1b'), "{message}");
}

#[test]
fn malformed() {
    refused(b"", "end of the data");
    refused(b"K", "end of the data");
    refused(b"K\x01", "an operation");
    refused(b".", "stack");
    refused(b"0.", "stack");
    refused(b"\x86.", "stack");
    refused(b"t.", "mark");
    refused(b"K\x01(.", "stack");
    refused(b"K\x01(\x85.", "stack");
    refused(b"K\x01K\x02a.", "list");
    refused(b"K\x01Nb.", "state");
    refused(b"}(K\x01u.", "a key without");
    refused(b"h\x07.", "under 7");
    refused(b"\xfe.", "0xfe");
    refused(b"\x80\x06.", "protocol");
    refused(b"X\xff\xff\xff\xffab.", "announced");
    refused(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "announced");
    refused(b"\x8a\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.", "integer");
    refused(b"X\x01\0\0\0\xff.", "UTF-8");
    refused(b"S'a\n.", "quoted");
    refused(b"N.N", "end of the data");
    refused(b"ccollections\nOrderedDict\nK\x01\x85R.", "sequence");
    refused(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89NtR.", "storage");
    refused(b"K\x01)R.", "constructor");
}

#[test]
fn bombs_are_refused() {
    // Nested beyond any checkpoint.
    let mut deep = vec![b']'; 100_000];
    deep.extend(vec![b'a'; 99_999]);
    deep.push(b'.');
    refused(&deep, "levels of nesting");
    // Each list holds the one before twice: 2^60 values in 300 bytes.
    let mut wide = b"]q\0".to_vec();
    for _ in 0..60 {
        wide.extend(b"0](h\0h\0eq\0");
    }
    wide.extend(b".");
    refused(&wide, "values");
    // A list that holds itself.
    refused(b"]q\0h\0a.", "contains itself");
    // A long text copied a million times.
    let mut copies = b"X\0\0\x10\0".to_vec();
    copies.extend(vec![b'a'; 1 << 20]);
    copies.extend(b"q\x00c_codecs\nencode\nq\x01");
    for _ in 0..1000 {
        copies.extend(b"h\x01h\x00U\x05utf-8\x86R0");
    }
    copies.extend(b"h\x00.");
    refused(&copies, "copied");
    // An array of nothing, announced as enormous.
    refused(
        &array("i1", '|', &[255, 255, 255, 255, 255, 255, 255, 255, 255, 255], false, &[]),
        "shape",
    );
}

/// `numpy._frombuffer(b"", dtype, shape, "C")`: an array without elements.
fn empty(name: &str, shape: &[i64]) -> Vec<u8> {
    let mut out = b"cnumpy.core.numeric\n_frombuffer\n(C\0".to_vec();
    out.extend(dtype(name, '|'));
    out.push(b'(');
    for length in shape {
        out.extend([0x8a, 8]);
        out.extend(length.to_le_bytes());
    }
    out.extend(b"tX\x01\0\0\0CtR.");
    out
}

#[test]
fn lengths_beside_zeros_are_counted() {
    check(&empty("f8", &[0]), json!([]));
    check(&empty("f8", &[2, 0]), json!([[], []]));
    check(&empty("f8", &[0, 1 << 27]), json!([]));
    check(&empty("f8", &[2, 0, 1 << 27]), json!([[], []]));
    let bomb = |shape: &[i64]| refused(&empty("f8", shape), "values");
    bomb(&[1 << 40, 0]);
    bomb(&[1 << 27, 0]);
    bomb(&[1 << 20, 0]);
    bomb(&[3, 1 << 22, 0]);
    refused(&empty("f8", &[1 << 62, 1 << 62, 0]), "fits in memory");
    // What the lengths behind a zero would multiply to is of no matter, in JSON and in a pickle.
    let shapes: [&[i64]; 5] = [
        &[0, 1 << 62, 4],
        &[0, 1 << 62, 1 << 62],
        &[2, 0, i64::MAX, i64::MAX],
        &[0, 255],
        &[2303, 0],
    ];
    for shape in shapes {
        if let Ok(value) = read(&empty("f8", shape)) {
            let written = write(&value);
            let again = read(&written).unwrap();
            assert_eq!(again.to_json(), value.to_json());
            assert_eq!(write(&again), written, "a list is written in one way");
        }
    }
    // Axes of length 1 are lists, too.
    let mut narrow = vec![1u8; 30];
    narrow[0] = 200;
    check(&array("i1", '|', &[2, 1, 1], false, &[5, 6]), json!([[[5]], [[6]]]));
    assert!(read(&array("i1", '|', &narrow, false, &[0; 200])).is_ok(), "6,000 lists are not many");
}

/// A list that names the object on the stack `times` times.
fn repeated(object: &[u8], times: usize) -> Vec<u8> {
    let mut out = object[..object.len() - 1].to_vec();
    out.extend(b"q\0(");
    out.extend(b"h\0".repeat(times));
    out.extend(b"l.");
    out
}

#[test]
fn what_is_shared_counts_as_often_as_it_is_named() {
    let text = |bytes: usize| {
        let mut out = b"X".to_vec();
        out.extend((bytes as u32).to_le_bytes());
        out.extend(vec![b'a'; bytes]);
        out.push(b'.');
        out
    };
    assert!(read(&repeated(&text(10), 50_000)).is_ok());
    refused(&repeated(&text(1 << 20), 100), "values");
    // One element of a megabyte each.
    let wide = array("S65536", '|', &[1], false, &[]);
    let cut = wide.windows(3).rposition(|w| w == b"C\0t").unwrap();
    let mut wide = wide[..cut].to_vec();
    wide.extend([b'B', 0, 0, 1, 0]);
    wide.extend(vec![b'a'; 1 << 16]);
    wide.extend(b"tb.");
    assert!(read(&repeated(&wide, 2)).is_ok());
    refused(&repeated(&wide, 1000), "values");
    let mut bytes = b"B\0\0\x01\0".to_vec();
    bytes.extend(vec![7; 1 << 16]);
    bytes.push(b'.');
    refused(&repeated(&bytes, 100), "values");
    // Short pickles stay small whatever they share.
    let mut wide = b"(K\x01K\x02K\x03K\x04lq\0".to_vec();
    for _ in 0..9 {
        wide.extend(b"0(h\0h\0h\0h\0h\0h\0h\0h\0lq\0");
    }
    wide.push(b'.');
    refused(&wide, "at most 13");
}

/// A key's JSON, quoted within the JSON of the dict it is a key of, doubles with every level.
#[test]
fn containers_are_no_keys() {
    let nested = |levels: usize| {
        let mut out = vec![b'}'; levels + 1];
        out.extend(b"Ns".repeat(levels));
        out.push(b'.');
        out
    };
    refused(&nested(1), "as key");
    refused(&nested(60), "as key");
    refused(b"}]Ns.", "as key");
    refused(b"}]\x85Ns.", "as key");
    check(b"}K\x01X\x01\0\0\0a\x86Ns.", json!({ "(1, a)": null }));
    check(b"}C\x01aNs.", json!({ "[97]": null }));
}

#[test]
fn torch_pickles_name_storages() {
    let storage = "(X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\x007X\x03\0\0\0cpuK\x0ctQ";
    let rebuild = |rest: &[u8]| {
        let start = format!("ctorch._utils\n_rebuild_tensor_v2\n({storage}");
        let bytes = [start.as_bytes(), rest, b"tR."].concat();
        read_torch(&mut Cursor::new(bytes)).map(|(value, _)| value)
    };
    let value = rebuild(b"K\x01(K\x02K\x03t(K\x05K\x01t\x89ccollections\nOrderedDict\n)R");
    let Value::Tensor(tensor) = value.unwrap() else {
        panic!("no tensor");
    };
    assert_eq!(
        (tensor.offset, &tensor.shape[..], &tensor.stride[..]),
        (1, &[2, 3][..], &[5, 1][..])
    );
    assert_eq!((tensor.storage.key.as_str(), tensor.storage.numel), ("7", 12));
    assert_eq!(tensor.storage.dtype.name(), "float16");
    assert_eq!(tensor.end(), Some(9));
    assert!(rebuild(b"K\x01(K\x02t(K\x05K\x01t\x89N").is_err(), "a stride too many");
    assert!(rebuild(b"J\xff\xff\xff\xff(K\x02t(K\x05t\x89N").is_err(), "a negative offset");
}

#[test]
fn json_and_back() {
    let json = json!({
        "plans_per_stage": { "0": { "patch_size": [128, 128, 128], "spacing": [1.5, 1e-3] } },
        "big": u64::MAX, "negative": -70_000, "none": null, "flag": true, "text": "é\n", "007": 1,
    });
    assert_eq!(Value::from_json(&json).to_json(), json);
    let with_ints = Value::from_json_int_keys(&json);
    assert_eq!(with_ints.to_json(), json);
    let stages = with_ints.get("plans_per_stage").unwrap().as_dict().unwrap();
    assert_eq!(stages.entries[0].0, Value::Int(0));
    assert!(with_ints.get("007").is_some(), "only what Python writes is an integer");
}

/// Any value that `write` can express without loss.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|v| Value::Int(v.into())),
        (0..300i128).prop_map(Value::Int),
        any::<i128>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        ".{0,20}".prop_map(Value::Str),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        let list = || proptest::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            list().prop_map(Value::List),
            list().prop_map(Value::Tuple),
            list().prop_map(Value::Set),
            (proptest::collection::btree_map(".{0,5}", inner.clone(), 0..6), any::<bool>())
                .prop_map(|(map, ordered)| Value::Dict(Dict {
                    entries: map.into_iter().map(|(k, v)| (Value::Str(k), v)).collect(),
                    ordered,
                })),
        ]
    })
}

/// Real pickles to damage: the published plans if they are at hand, and one of our own.
fn real_pickles() -> &'static [Vec<u8>] {
    static ALL: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    ALL.get_or_init(read_pickles)
}

fn read_pickles() -> Vec<Vec<u8>> {
    let mut all = vec![write(&Value::from_json_int_keys(&json!({
        "a": { "0": [1, 2.5, "x"] }, "b": [[], {}, null, true, -1, 70_000]
    })))];
    all.push(array("f8", '<', &[2, 3], true, &[0; 48]));
    if let Ok(part) = stunet_testing::oracle::Part::private() {
        for folder in ["../cases/plan_files", "A_model"] {
            let files = std::fs::read_dir(part.path(folder)).into_iter().flatten();
            let pickles = files.map(|f| f.unwrap().path());
            let pickles = pickles.filter(|p| p.extension().is_some_and(|e| e == "pkl"));
            all.extend(pickles.map(|p| std::fs::read(p).unwrap()));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn write_then_read_is_identity(value in any_value()) {
        prop_assert_eq!(read(&write(&value)).unwrap(), value);
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = read_torch(&mut Cursor::new(&bytes));
    }

    /// Operations in random order reach deeper than random bytes.
    #[test]
    fn any_operations_are_answered(picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..200)) {
        let operations: &[&[u8]] = &[
            b"N", b"\x88", b"K\x03", b"(", b"0", b"1", b"2", b")", b"]", b"}", b"\x8f", b"t",
            b"\x85", b"\x86", b"\x87", b"l", b"d", b"\x91", b"a", b"e", b"\x90", b"s", b"u", b"q\0",
            b"q\x01", b"h\0", b"h\x01", b"\x94", b"R", b"b", b"Q", b"\x81", b"\x92", b"\x93", b"o",
            b"U\x02f8", b"U\x07storage", b"C\x08\0\0\0\0\0\0\0\0", b"ccollections\nOrderedDict\n",
            b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\nscalar\n",
            b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.numeric\n_frombuffer\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n",
            b"c__builtin__\nset\n", b"c_codecs\nencode\n", b"U\x06latin1",
        ];
        let mut bytes: Vec<u8> = picks.iter().flat_map(|p| p.get(operations).iter().copied()).collect();
        bytes.push(b'.');
        if let Ok((value, _)) = read_torch(&mut Cursor::new(&bytes)) {
            let _ = value.to_json();
        }
    }

    #[test]
    fn damaged_pickles_are_answered(
        which in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = which.get(real_pickles()).clone();
        for (at, byte) in cuts {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(value) = read(&bytes) {
            let _ = value.to_json();
        }
    }
}
