//! DICOM files, byte by byte: not by the crates that read them.

/// How elements are written.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Explicit,
    Implicit,
    Big,
    Deflated,
}

/// An element: tag, VR, value.
type Element = ((u16, u16), [u8; 2], Vec<u8>);

/// A data set in the order in which its elements are put in.
#[derive(Clone, Default)]
pub struct Elements(pub Vec<Element>);

impl Elements {
    pub fn text(mut self, tag: (u16, u16), vr: &[u8; 2], value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        if bytes.len() % 2 == 1 {
            bytes.push(if vr == b"UI" { 0 } else { b' ' });
        }
        self.0.push((tag, *vr, bytes));
        self
    }

    pub fn number(self, tag: (u16, u16), value: u16, form: Form) -> Self {
        let bytes = if form == Form::Big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.raw(tag, b"US", bytes.to_vec())
    }

    pub fn raw(mut self, tag: (u16, u16), vr: &[u8; 2], bytes: Vec<u8>) -> Self {
        self.0.push((tag, *vr, bytes));
        self
    }

    /// A sequence of items, each with its length.
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
    pub fn file(&self, form: Form, syntax: &str, pixels: &Pieces) -> Vec<u8> {
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
        if form == Form::Deflated {
            let mut packed = Vec::new();
            let level = flate2::Compression::new(6);
            let mut deflate = flate2::write::DeflateEncoder::new(&mut packed, level);
            std::io::Write::write_all(&mut deflate, &body).unwrap();
            deflate.finish().unwrap();
            body = packed;
        }
        file.extend(body);
        file
    }
}

/// Pixels of a file.
pub enum Pieces {
    Whole(Vec<u8>),
    Each { table: Vec<u8>, pieces: Vec<Vec<u8>> },
}

fn tag_bytes(out: &mut Vec<u8>, (group, element): (u16, u16), form: Form) {
    for word in [group, element] {
        out.extend(if form == Form::Big { word.to_be_bytes() } else { word.to_le_bytes() });
    }
}

fn length(out: &mut Vec<u8>, length: u32, form: Form) {
    out.extend(if form == Form::Big { length.to_be_bytes() } else { length.to_le_bytes() });
}
