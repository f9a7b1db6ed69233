//! A small reader of what the writer wrote, apart from it: elements by their tags, items in a list.

use std::collections::BTreeMap;

/// A data set as it lies in a file.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub values: BTreeMap<(u16, u16), Vec<u8>>,
    pub items: BTreeMap<(u16, u16), Vec<Seen>>,
    /// Tags in the order of the file.
    pub order: Vec<(u16, u16)>,
}

impl Seen {
    /// A whole file.
    pub fn of(file: &[u8]) -> Self {
        assert_eq!(&file[128..132], b"DICM");
        let mut at = 132;
        let mut meta = Self::default();
        while file[at..at + 2] == [2, 0] {
            element(file, &mut at, true, &mut meta);
        }
        let length = u32::from_le_bytes(meta.values[&(2, 0)][..].try_into().unwrap());
        assert_eq!(at, 132 + 12 + length as usize, "the length of the meta group");
        let explicit = meta.text((2, 0x10)) == "1.2.840.10008.1.2.1";
        let mut root = Self::default();
        while at < file.len() {
            element(file, &mut at, explicit, &mut root);
        }
        assert_eq!(root.text((8, 0x16)), meta.text((2, 2)));
        assert_eq!(root.text((8, 0x18)), meta.text((2, 3)));
        root
    }

    pub fn text(&self, tag: (u16, u16)) -> String {
        let bytes = self.values.get(&tag).unwrap_or_else(|| panic!("no {tag:04x?}"));
        String::from_utf8(bytes.clone()).unwrap().trim_end_matches([' ', '\0']).to_owned()
    }

    pub fn number(&self, tag: (u16, u16)) -> usize {
        usize::from(self.words(tag)[0])
    }

    pub fn words(&self, tag: (u16, u16)) -> Vec<u16> {
        let words = self.values[&tag].chunks_exact(2);
        words.map(|pair| u16::from_le_bytes(pair.try_into().unwrap())).collect()
    }

    pub fn longs(&self, tag: (u16, u16)) -> Vec<u32> {
        let longs = self.values[&tag].chunks_exact(4);
        longs.map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    pub fn numbers(&self, tag: (u16, u16)) -> Vec<f64> {
        self.text(tag).split('\\').map(|part| part.parse().unwrap()).collect()
    }

    /// The only item of a sequence.
    pub fn item(&self, tag: (u16, u16)) -> &Self {
        let [item] = &self.items[&tag][..] else { panic!("expected one item of {tag:04x?}") };
        item
    }
}

/// Takes `count` bytes.
fn taken<'a>(file: &'a [u8], at: &mut usize, count: usize) -> &'a [u8] {
    *at += count;
    &file[*at - count..*at]
}

fn short(file: &[u8], at: &mut usize) -> u16 {
    u16::from_le_bytes(taken(file, at, 2).try_into().unwrap())
}

fn long(file: &[u8], at: &mut usize) -> u32 {
    u32::from_le_bytes(taken(file, at, 4).try_into().unwrap())
}

fn element(file: &[u8], at: &mut usize, explicit: bool, into: &mut Seen) {
    const UNDEFINED: u32 = u32::MAX;
    let tag = (short(file, at), short(file, at));
    let length = match explicit {
        true => match taken(file, at, 2) {
            b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" => {
                short(file, at);
                long(file, at)
            }
            _ => u32::from(short(file, at)),
        },
        false => long(file, at),
    };
    assert!(into.order.last().is_none_or(|last| *last < tag), "{tag:04x?} is out of order");
    into.order.push(tag);
    if length == UNDEFINED {
        into.items.insert(tag, items(file, at, explicit));
    } else {
        assert_eq!(length % 2, 0, "an odd length of {tag:04x?}");
        into.values.insert(tag, taken(file, at, length as usize).to_vec());
    }
}

fn items(file: &[u8], at: &mut usize, explicit: bool) -> Vec<Seen> {
    const UNDEFINED: u32 = u32::MAX;
    let mut items = Vec::new();
    loop {
        let (mark, length) = ((short(file, at), short(file, at)), long(file, at));
        match mark {
            (0xfffe, 0xe0dd) => break,
            (0xfffe, 0xe000) => assert_eq!(length, UNDEFINED),
            _ => panic!("{mark:04x?} in place of an item"),
        }
        let mut item = Seen::default();
        while file[*at..*at + 4] != [0xfe, 0xff, 0x0d, 0xe0] {
            element(file, at, explicit, &mut item);
        }
        *at += 8;
        items.push(item);
    }
    items
}
