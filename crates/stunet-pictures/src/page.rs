//! HTML pages that need no other file: no script, style or picture is fetched from anywhere.

mod prediction;

pub use prediction::{PageCase, PageLabel, PredictionPage};

use std::fmt::Write;

/// What stands around a page, with places for its title, style and body.
const FRAME: &str = include_str!("page/frame.html");

/// The style that every page begins with: light or dark as the reader's system is, and for paper.
const STYLE: &str = include_str!("page/style.css");

/// A page: its frame around a body of HTML.
///
/// A policy within it forbids the browser to fetch anything; what is in the page may run.
///
/// ```
/// use stunet_pictures::page::{escaped, page};
/// let body = format!("<h1>{}</h1>\n", escaped("liver < 1 ml & spleen"));
/// let page = page("A report", "", &body);
/// assert!(page.contains("<h1>liver &lt; 1 ml &amp; spleen</h1>"));
/// ```
///
/// `title` is text; `style` is CSS and `body` HTML of the caller's own making.
pub fn page(title: &str, style: &str, body: &str) -> String {
    let mut out = String::with_capacity(FRAME.len() + STYLE.len() + style.len() + body.len());
    // What is put in is not looked at again: it may hold the names of these places.
    for part in FRAME.split('{') {
        match part.split_once('}') {
            Some(("title", rest)) => out.extend([escaped(title).as_str(), rest]),
            Some(("style", rest)) => out.extend([STYLE, style, rest]),
            Some(("body", rest)) => out.extend([body, rest]),
            _ => out.push_str(part),
        }
    }
    out
}

/// Text that may stand in HTML, between tags and in quoted attributes.
///
/// Characters that steer and those that turn the direction of writing are replaced.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

/// A PNG as the address of a picture within a page.
fn data_url(png: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(png.len() * 4 / 3 + 32);
    out.push_str("data:image/png;base64,");
    for three in png.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for index in 0..4 {
            match index <= three.len() {
                true => out.push(char::from(LETTERS[(bits >> (18 - 6 * index) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

/// A length of text in an attribute of its own, by which scripts sort.
fn sort_key(out: &mut String, value: f64) {
    // What is no number stands behind all others.
    let value = if value.is_finite() { value } else { -1e300 };
    let _ = write!(out, " data-v=\"{value}\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let text = "<script>\"a' & b\"\u{202e}\n</script>";
        let safe = escaped(text);
        assert_eq!(safe, "&lt;script&gt;&quot;a&#39; &amp; b&quot;\u{fffd}\u{fffd}&lt;/script&gt;");
        assert!(!page(text, "", "").contains("<script>"));
        let whole = page("{body}", "p { margin: 0; }\n", "{title}\n");
        assert!(
            whole.contains("<title>{body}</title>") && whole.contains("<body>\n{title}\n</body>")
        );
        assert!(whole.contains("p { margin: 0; }\n</style>"), "{whole}");
    }

    /// The vectors of RFC 4648.
    #[test]
    fn base64() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in pairs {
            assert_eq!(data_url(bytes.as_bytes()), format!("data:image/png;base64,{text}"));
        }
    }
}
