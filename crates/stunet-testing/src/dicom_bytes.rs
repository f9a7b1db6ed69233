//! DICOM files written byte by byte, so that tests can make wrong ones.
//!
//! Not by the crates that read them.

/// What no program may print or write.
pub const SECRET: &str = "Secret^Name";

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With their kinds, in little endian.
    Explicit,
    /// Without, in little endian.
    Implicit,
    /// With their kinds, in big endian.
    Big,
}

/// An element: tag, VR, value.
pub type Element = ((u16, u16), [u8; 2], Vec<u8>);

/// A data set in the order in which its elements are put in.
#[derive(Clone, Debug, Default)]
pub struct Elements(pub Vec<Element>);

impl Elements {
    /// Adds a text, filled up to an even length.
    #[must_use]
    pub fn text(mut self, tag: (u16, u16), vr: &[u8; 2], value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        if bytes.len() % 2 == 1 {
            bytes.push(if vr == b"UI" { 0 } else { b' ' });
        }
        self.0.push((tag, *vr, bytes));
        self
    }

    /// Adds a number of two bytes.
    #[must_use]
    pub fn number(self, tag: (u16, u16), value: u16, form: Form) -> Self {
        let bytes = if form == Form::Big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.raw(tag, b"US", bytes.to_vec())
    }

    /// Adds any value.
    #[must_use]
    pub fn raw(mut self, tag: (u16, u16), vr: &[u8; 2], bytes: Vec<u8>) -> Self {
        self.0.push((tag, *vr, bytes));
        self
    }

    /// Adds a sequence of items, each with its length.
    #[must_use]
    pub fn items(self, tag: (u16, u16), items: &[Elements], form: Form) -> Self {
        let mut bytes = Vec::new();
        for item in items {
            let content = item.bytes(form);
            tag_bytes(&mut bytes, (0xfffe, 0xe000), form);
            length(&mut bytes, content.len() as u32, form);
            bytes.extend(content);
        }
        self.raw(tag, b"SQ", bytes)
    }

    /// The elements as bytes.
    #[must_use]
    pub fn bytes(&self, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, vr, value) in &self.0 {
            tag_bytes(&mut out, *tag, form);
            let long = matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT");
            match (form, long) {
                (Form::Implicit, _) => length(&mut out, value.len() as u32, form),
                (_, true) => {
                    out.extend(vr);
                    out.extend([0, 0]);
                    length(&mut out, value.len() as u32, form);
                }
                (_, false) => {
                    out.extend(vr);
                    let short = value.len() as u16;
                    let big = form == Form::Big;
                    out.extend(if big { short.to_be_bytes() } else { short.to_le_bytes() });
                }
            }
            out.extend(value);
        }
        out
    }

    /// A file of it, its pixels last: as they are, or in pieces.
    #[must_use]
    pub fn file(&self, form: Form, syntax: &str, pixels: &Pieces) -> Vec<u8> {
        let (head, body) = self.parts(form, syntax, pixels);
        [head, body].concat()
    }

    /// As [`Elements::file`]: what names the encoding, and the elements.
    #[must_use]
    pub fn parts(&self, form: Form, syntax: &str, pixels: &Pieces) -> (Vec<u8>, Vec<u8>) {
        let meta = Elements::default().text((2, 0x10), b"UI", syntax).bytes(Form::Explicit);
        let head =
            Elements::default().raw((2, 0), b"UL", (meta.len() as u32).to_le_bytes().to_vec());
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        file.extend(head.bytes(Form::Explicit));
        file.extend(meta);
        let mut body = match pixels {
            Pieces::Whole(bytes) => {
                self.clone().raw((0x7fe0, 0x10), b"OW", bytes.clone()).bytes(form)
            }
            _ => self.bytes(form),
        };
        if let Pieces::Each { table, pieces } = pixels {
            body.extend([0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff]);
            for piece in std::iter::once(table).chain(pieces) {
                tag_bytes(&mut body, (0xfffe, 0xe000), form);
                length(&mut body, piece.len() as u32, form);
                body.extend(piece);
            }
            tag_bytes(&mut body, (0xfffe, 0xe0dd), form);
            length(&mut body, 0, form);
        }
        (file, body)
    }
}

/// Pixels of a file.
pub enum Pieces {
    /// One value.
    Whole(Vec<u8>),
    /// Pieces behind a table of the frames' first ones, which may be empty.
    Each {
        /// The table.
        table: Vec<u8>,
        /// The pieces.
        pieces: Vec<Vec<u8>>,
    },
}

/// A CT of `[z, y, x]` voxels as one file per slice: 3 mm, axes as those of
/// [`NiftiBytes::ramp`](crate::nifti_bytes::NiftiBytes::ramp), values of 16 bits.
#[must_use]
pub fn ct(uid: &str, number: u16, [nz, ny, nx]: [usize; 3], values: &[i16]) -> Vec<Vec<u8>> {
    let form = Form::Explicit;
    let slice = |z: usize| {
        let cells = &values[z * ny * nx..(z + 1) * ny * nx];
        let height = 3 * z as i32 - 40;
        let elements = Elements::default()
            .text((8, 8), b"CS", "ORIGINAL\\PRIMARY\\AXIAL")
            .text((8, 0x16), b"UI", "1.2.840.10008.5.1.4.1.1.2")
            .text((8, 0x18), b"UI", &format!("{uid}.{z}"))
            .text((8, 0x60), b"CS", "CT")
            .text((8, 0x103e), b"LO", "abdomen")
            .text((0x10, 0x10), b"PN", SECRET)
            .text((0x20, 0xe), b"UI", uid)
            .text((0x20, 0x11), b"IS", &number.to_string())
            .text((0x20, 0x13), b"IS", &(z + 1).to_string())
            .text((0x20, 0x32), b"DS", &format!("20\\30\\{height}"))
            .text((0x20, 0x37), b"DS", "-1\\0\\0\\0\\-1\\0")
            .number((0x28, 2), 1, form)
            .text((0x28, 4), b"CS", "MONOCHROME2")
            .number((0x28, 0x10), ny as u16, form)
            .number((0x28, 0x11), nx as u16, form)
            .text((0x28, 0x30), b"DS", "3\\3")
            .number((0x28, 0x100), 16, form)
            .number((0x28, 0x101), 16, form)
            .number((0x28, 0x102), 15, form)
            .number((0x28, 0x103), 1, form);
        let pixels = cells.iter().flat_map(|v| v.to_le_bytes()).collect();
        elements.file(form, "1.2.840.10008.1.2.1", &Pieces::Whole(pixels))
    };
    (0..nz).map(slice).collect()
}

fn tag_bytes(out: &mut Vec<u8>, (group, element): (u16, u16), form: Form) {
    for word in [group, element] {
        out.extend(if form == Form::Big { word.to_be_bytes() } else { word.to_le_bytes() });
    }
}

fn length(out: &mut Vec<u8>, length: u32, form: Form) {
    out.extend(if form == Form::Big { length.to_be_bytes() } else { length.to_le_bytes() });
}
