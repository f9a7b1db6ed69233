//! Pickles that are nearly right: programs of a stack machine whose stack holds what they need.

use crate::mutate::{self, Rng, SIZES};

/// Objects a program may still make: bounds its length.
struct Program<'a> {
    out: Vec<u8>,
    rng: &'a mut Rng,
    fuel: usize,
    memoised: u8,
    torch: bool,
}

/// A pickle; with `torch`, one whose persistent ids name storages `0` and `1`.
pub fn generate(rng: &mut Rng, torch: bool) -> Vec<u8> {
    let fuel = rng.pick(&[1, 4, 16, 64, 200]);
    let mut program = Program { out: vec![0x80, 2], rng, fuel, memoised: 0, torch };
    program.value(0);
    program.out.push(b'.');
    program.out
}

/// Damage to a pickle: another value in its midst, or bytes.
pub fn mutate(data: &mut Vec<u8>, rng: &mut Rng, torch: bool) {
    if data.is_empty() || rng.one_in(4) {
        *data = generate(rng, torch);
    } else if rng.one_in(4) {
        // A value between two operations, where chance wants it.
        let part = generate(rng, torch);
        let at = rng.below(data.len());
        data.splice(at..at, part[2..part.len() - 1].iter().copied());
    } else {
        mutate::bytes(data, rng);
    }
}

impl Program<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn value(&mut self, depth: usize) {
        self.fuel = self.fuel.saturating_sub(1);
        let leaf = self.fuel == 0 || depth > 120;
        match self.rng.below(if leaf { 6 } else { 22 }) {
            0 => {
                let code = self.rng.pick(b"N\x88\x89)]}\x8f");
                self.out.push(code);
            }
            1 | 2 => self.int(),
            3 => {
                let float = self.rng.pick(&[0.0, 1.5, f64::NAN, f64::INFINITY, 1e-310]);
                self.out.push(b'G');
                self.put(&float.to_be_bytes());
            }
            4 => {
                let text =
                    self.rng.pick(&["", "a", "state_dict", "network_weights", "x\"\\\"", "é"]);
                self.text(text);
            }
            5 => self.bytes(),
            6 if self.memoised > 0 => {
                let key = self.rng.below(self.memoised.into()) as u8;
                self.put(&[b'h', key]);
            }
            6 | 7 => self.array(),
            8 | 9 => self.many(depth, b'(', b't'),
            10 => self.many(depth, b'(', b'l'),
            11 => {
                self.out.push(b']');
                self.many(depth, b'(', b'e');
            }
            12 | 13 => self.dict(depth),
            14 => {
                self.value(depth + 1);
                let key = self.memoised;
                self.put(&[b'q', key]);
                self.memoised = key.saturating_add(1);
            }
            // These spread out to as much as the reader allows, which takes its time.
            15 if self.rng.one_in(8) => self.shared(depth),
            15 => self.int(),
            16 => self.scalar(),
            17 => self.constructed(depth),
            18 if self.torch => self.tensor(),
            18 => self.encode(),
            19 => {
                // Filled after it was memoised, perhaps with itself.
                let key = self.memoised;
                self.put(&[b']', b'q', key]);
                self.memoised = key.saturating_add(1);
                self.value(depth + 1);
                self.out.push(b'a');
            }
            20 => self.nested_key(depth),
            _ => self.deep(),
        }
    }

    fn int(&mut self) {
        let value = self.rng.pick(&SIZES);
        match self.rng.below(4) {
            0 => self.put(&[b'K', value as u8]),
            1 => {
                self.out.push(b'J');
                self.put(&(value as i32).to_le_bytes());
            }
            2 => {
                let text = format!("I{}\n", value as i64);
                self.put(text.as_bytes());
            }
            _ => self.size(value),
        }
    }

    fn size(&mut self, value: u64) {
        self.put(&[0x8a, 9]);
        self.put(&value.to_le_bytes());
        self.out.push(0);
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'X');
        self.put(&(text.len() as u32).to_le_bytes());
        self.put(text.as_bytes());
    }

    fn bytes(&mut self) {
        let count = self.rng.pick(&[0usize, 1, 8, 16, 200]);
        let byte = self.rng.next() as u8;
        self.put(&[b'C', count as u8]);
        self.out.extend(std::iter::repeat_n(byte, count));
    }

    fn many(&mut self, depth: usize, begin: u8, end: u8) {
        self.out.push(begin);
        for _ in 0..self.rng.below(4) {
            self.value(depth + 1);
        }
        self.out.push(end);
    }

    fn dict(&mut self, depth: usize) {
        let start: &[u8] = match self.rng.below(3) {
            0 => b"ccollections\nOrderedDict\n)R",
            1 => b"ccollections\ndefaultdict\n)R",
            _ => b"}",
        };
        self.put(start);
        self.out.push(b'(');
        for _ in 0..self.rng.below(4) {
            match self.rng.below(3) {
                0 => self.value(depth + 1),
                1 => self.int(),
                _ => self.text("k"),
            }
            self.value(depth + 1);
        }
        self.out.push(b'u');
    }

    /// Each level holds the one below several times.
    fn shared(&mut self, depth: usize) {
        self.value(depth + 1);
        for _ in 0..self.rng.pick(&[2, 8, 30, 70]) {
            let times = self.rng.below(9);
            self.put(b"q\xff0(");
            self.out.extend(std::iter::repeat_n(*b"h\xff", times).flatten());
            let end = self.rng.pick(b"tl");
            self.out.push(end);
        }
    }

    /// Dicts as keys of dicts.
    fn nested_key(&mut self, depth: usize) {
        let levels = self.rng.pick(&[1, 3, 30, 60]);
        self.out.extend(std::iter::repeat_n(b'}', levels));
        self.value(depth + 1);
        let pair: &[u8] = if self.rng.one_in(2) { b"Ns" } else { b"\x85Ns" };
        self.out.extend(std::iter::repeat_n(pair, levels).flatten());
    }

    fn deep(&mut self) {
        let levels = self.rng.pick(&[10, 90, 110, 3000]);
        let (open, close) =
            self.rng.pick(&[(b'(', b'l'), (b'(', b't'), (b']', b'a'), (b'(', 0x91)]);
        self.out.extend(std::iter::repeat_n(open, levels));
        self.out.push(b'N');
        self.out.extend(std::iter::repeat_n(close, levels));
    }

    /// A type, and what an element of it takes.
    fn dtype(&mut self) -> usize {
        const TYPES: [(&str, usize); 10] = [
            ("f8", 8),
            ("f4", 4),
            ("f2", 2),
            ("i8", 8),
            ("u1", 1),
            ("b1", 1),
            ("<U3", 12),
            ("S5", 5),
            ("U0", 0),
            ("S1048576", 1 << 20),
        ];
        let (name, size) = self.rng.pick(&TYPES);
        self.put(b"cnumpy\ndtype\n(");
        self.text(name);
        self.put(b"tR");
        if self.rng.one_in(3) {
            let order = self.rng.pick(&["<", ">", "|", "="]);
            self.put(b"(K\x03");
            self.text(order);
            self.put(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
        }
        size
    }

    /// Lengths whose product is small or overflows, zeros beside large ones.
    fn shape(&mut self) -> Vec<u64> {
        let axes = self.rng.pick(&[0, 1, 1, 2, 2, 3, 5, 32, 33]);
        let large = self.rng.one_in(3);
        let mut shape: Vec<u64> = (0..axes)
            .map(|_| if large { self.rng.pick(&SIZES) } else { self.rng.below(3) as u64 + 1 })
            .collect();
        if axes > 0 && self.rng.one_in(3) {
            let at = self.rng.below(axes);
            shape[at] = 0;
        }
        shape
    }

    fn put_shape(&mut self, shape: &[u64]) {
        self.out.push(b'(');
        shape.iter().for_each(|&length| self.size(length));
        self.out.push(b't');
    }

    /// An array by either constructor; the count of its bytes is mostly right.
    fn array(&mut self) {
        let shape = self.shape();
        let count = shape.iter().try_fold(1u64, |n, &l| n.checked_mul(l)).filter(|n| *n <= 64);
        let fortran = self.rng.one_in(2);
        let frombuffer = self.rng.one_in(2);
        if frombuffer {
            self.put(b"cnumpy.core.numeric\n_frombuffer\n(");
            // The size is known behind the dtype only, which stands behind the bytes.
            let at = self.out.len();
            let size = self.dtype();
            let dtype = self.out.split_off(at);
            self.data(count, size);
            self.put(&dtype);
            self.put_shape(&shape);
            self.text(if fortran { "F" } else { "C" });
            self.put(b"tR");
        } else {
            self.put(
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01",
            );
            self.put_shape(&shape);
            let size = self.dtype();
            self.out.push(if fortran { 0x88 } else { 0x89 });
            self.data(count, size);
            self.put(b"tb");
        }
    }

    fn data(&mut self, count: Option<u64>, size: usize) {
        let right = count.unwrap_or(0) as usize * size.min(1 << 12);
        let bytes = if self.rng.one_in(8) { right + 1 } else { right };
        let byte = self.rng.pick(&[0, 1, b'a', 0x7f, 0xff]);
        self.out.push(b'B');
        self.put(&(bytes as u32).to_le_bytes());
        self.out.extend(std::iter::repeat_n(byte, bytes));
    }

    fn scalar(&mut self) {
        self.put(b"cnumpy.core.multiarray\nscalar\n");
        let size = self.dtype();
        self.data(Some(1), size);
        self.put(b"\x86R");
    }

    fn constructed(&mut self, depth: usize) {
        const NAMES: [&str; 12] = [
            "cbuiltins\nset\n",
            "cbuiltins\nlist\n",
            "cbuiltins\ntuple\n",
            "cbuiltins\ndict\n",
            "cbuiltins\nbytearray\n",
            "ccollections\nOrderedDict\n",
            "ctorch\nSize\n",
            "ctorch\ndevice\n",
            "ctorch\nfloat16\n",
            "ctorch._utils\n_rebuild_parameter\n",
            "cos\nsystem\n",
            "c__builtin__\nint\n",
        ];
        let name = self.rng.pick(&NAMES);
        self.put(name.as_bytes());
        self.many(depth, b'(', b't');
        let end: &[u8] = self.rng.pick(&[&b"R"[..], b"\x81", b"}\x92", b"R}b"]);
        self.put(end);
    }

    fn encode(&mut self) {
        self.put(b"c_codecs\nencode\n(");
        let text = "é".repeat(self.rng.pick(&[0, 1, 300]));
        self.text(&text);
        let encoding = self.rng.pick(&["latin1", "utf-8", "utf-16"]);
        self.text(encoding);
        self.put(b"tR");
    }

    /// A tensor that lies inside its storage, or does not.
    fn tensor(&mut self) {
        let wild = self.rng.one_in(3);
        let shape = self.shape();
        self.put(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        const KINDS: [&str; 6] = ["Float", "Half", "Double", "BFloat16", "Bool", "Untyped"];
        let kind = self.rng.pick(&KINDS);
        self.put(format!("ctorch\n{kind}Storage\n").as_bytes());
        let key = self.rng.pick(&["0", "1", "2"]);
        self.text(key);
        self.text("cpu");
        let numel = if wild { self.rng.pick(&SIZES) } else { self.rng.below(20) as u64 };
        self.size(numel);
        if self.rng.one_in(6) {
            self.put(b"(");
            self.text("v");
            let (start, count) = (self.rng.pick(&SIZES), self.rng.pick(&SIZES));
            self.size(start);
            self.size(count);
            self.put(b"t");
        }
        self.put(b"tQ");
        let offset = if wild { self.rng.pick(&SIZES) } else { self.rng.below(3) as u64 };
        self.size(offset);
        self.put_shape(&shape);
        let mut step = 1u64;
        let mut strides: Vec<u64> = Vec::new();
        for length in shape.iter().rev() {
            strides.push(if wild && self.rng.one_in(3) { self.rng.pick(&SIZES) } else { step });
            step = step.saturating_mul(*length);
        }
        strides.reverse();
        self.put_shape(&strides);
        self.put(b"\x89}tR");
    }
}
