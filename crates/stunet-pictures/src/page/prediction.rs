//! The page of a predicted folder: a row for each case, and the volume of every label.

use super::{data_url, escaped, page, sort_key};
use std::fmt::Write;

const STYLE: &str = include_str!("prediction.css");
const SCRIPT: &str = include_str!("sort.js");
/// From so many cases on, each is a row of the table of volumes; before, each label is.
const MANY: usize = 5;

/// Predicted cases as one page: thumbnails, volumes, warnings, in tables that can be sorted.
///
/// ```
/// use stunet_pictures::page::{PageCase, PageLabel, PredictionPage};
/// let case = PageCase { name: "ct_001".to_owned(), volumes_ml: vec![1489.6], ..PageCase::default() };
/// let liver = PageLabel { name: "liver".to_owned(), colour: [221, 130, 101] };
/// let page = PredictionPage { labels: vec![liver], cases: vec![case], ..PredictionPage::default() };
/// assert!(page.to_html().contains("ct_001"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PredictionPage {
    /// What the page is about; the number of cases where it is empty.
    pub title: String,
    /// Sentences under the heading: the model, the device, the time.
    pub about: Vec<String>,
    /// A warning about all cases.
    pub banner: Option<String>,
    /// The labels of the model without the background.
    pub labels: Vec<PageLabel>,
    /// The cases.
    pub cases: Vec<PageCase>,
}

/// A label of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct PageLabel {
    /// Its name.
    pub name: String,
    /// Its colour in the thumbnails.
    pub colour: [u8; 3],
}

/// A case of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageCase {
    /// Its name.
    pub name: String,
    /// A small picture, as a PNG.
    pub thumbnail: Option<Vec<u8>>,
    /// Millilitres of every label of the page; empty where nothing is known.
    pub volumes_ml: Vec<f64>,
    /// Size of the image in words.
    pub size: String,
    /// Mean Dice, where a truth is known.
    pub dice: Option<f64>,
    /// Seconds it took, where it was predicted now.
    pub secs: Option<f64>,
    /// What to look at.
    pub warnings: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
}

impl PredictionPage {
    /// The page.
    ///
    /// # Panics
    /// When a case knows the volumes of another number of labels than the page has.
    pub fn to_html(&self) -> String {
        let known = |case: &&PageCase| !case.volumes_ml.is_empty();
        for case in self.cases.iter().filter(known) {
            assert_eq!(case.volumes_ml.len(), self.labels.len(), "volumes of another page");
        }
        let title = match (self.title.as_str(), self.cases.len()) {
            ("", 1) => "Segmentation of 1 case".to_owned(),
            ("", cases) => format!("Segmentation of {cases} cases"),
            (title, _) => title.to_owned(),
        };
        let mut body = format!("<h1>{}</h1>\n", escaped(&title));
        for line in &self.about {
            let _ = writeln!(body, "<p class=\"about\">{}</p>", escaped(line));
        }
        if let Some(banner) = &self.banner {
            let _ = writeln!(body, "<p class=\"alert\">{}</p>", escaped(banner));
        }
        self.table_of_cases(&mut body);
        if self.cases.iter().any(|case| known(&case)) {
            body.push_str("<h2>Volumes in ml</h2>\n<div class=\"wide volumes\">\n");
            match self.cases.len() < MANY {
                true => self.volumes_by_label(&mut body),
                false => self.volumes_by_case(&mut body),
            }
            body.push_str("</div>\n");
        }
        let _ = writeln!(
            body,
            "<footer>Thumbnails: an axial plane, a coronal plane and the labels from the front; the \
             patient's right is on the left. A click on the head of a column sorts. Research software, \
             not a medical device.</footer>\n<script>\n{SCRIPT}</script>"
        );
        page(&title, STYLE, &body)
    }

    fn table_of_cases(&self, out: &mut String) {
        let dice = self.cases.iter().any(|case| case.dice.is_some());
        out.push_str("<h2>Cases</h2>\n<div class=\"wide\">\n<table>\n<thead><tr>");
        head(out, "Case", "up");
        out.push_str("<th></th>");
        head(out, "Labels", "down");
        if dice {
            head(out, "Mean Dice", "up");
        }
        out.push_str("<th class=\"left\">Image</th>");
        head(out, "Seconds", "down");
        head(out, "Warnings", "down");
        out.push_str("</tr></thead>\n<tbody>\n");
        for case in &self.cases {
            self.row(out, case, dice);
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
    }

    fn row(&self, out: &mut String, case: &PageCase, dice: bool) {
        let name = escaped(&case.name);
        let _ = write!(out, "<tr><th>{name}</th><td>");
        if let Some(png) = &case.thumbnail {
            let _ = write!(out, "<img alt=\"{name}\" src=\"{}\">", data_url(png));
        }
        out.push_str("</td>");
        let found = case.volumes_ml.iter().filter(|ml| **ml > 0.0).count();
        match case.volumes_ml.is_empty() {
            true => out.push_str("<td class=\"none\" data-v=\"-1\">–</td>"),
            false => {
                let _ = write!(out, "<td data-v=\"{found}\">{found} of {}</td>", self.labels.len());
            }
        }
        if dice {
            number(out, case.dice, 3);
        }
        // Voxels, and below them their size.
        let (voxels, of) = case.size.split_once(" of ").unwrap_or((&case.size, ""));
        let (voxels, of) = (escaped(voxels), escaped(of));
        let _ = write!(out, "<td class=\"left\">{voxels}<small>{of}</small></td>");
        number(out, case.secs, 1);
        let alerts = case.warnings.len() + usize::from(case.error.is_some());
        let _ = write!(out, "<td class=\"text\" data-v=\"{alerts}\">");
        if let Some(error) = &case.error {
            let _ = write!(out, "<span class=\"failed\">Failed: {}</span>", escaped(error));
        }
        if !case.warnings.is_empty() {
            out.push_str("<ul>");
            for warning in &case.warnings {
                let _ = write!(out, "<li>{}</li>", escaped(warning));
            }
            out.push_str("</ul>");
        }
        out.push_str("</td></tr>\n");
    }

    fn volumes_by_label(&self, out: &mut String) {
        out.push_str("<table>\n<thead><tr>");
        head(out, "Label", "up");
        for case in &self.cases {
            head(out, &case.name, "down");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (index, label) in self.labels.iter().enumerate() {
            let _ = write!(out, "<tr><th>{}{}</th>", swatch(label), escaped(&label.name));
            for case in &self.cases {
                volume(out, case.volumes_ml.get(index).copied());
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
    }

    fn volumes_by_case(&self, out: &mut String) {
        out.push_str("<table>\n<thead><tr>");
        head(out, "Case", "up");
        for label in &self.labels {
            let text = format!("{}{}", swatch(label), escaped(&label.name));
            let _ = write!(out, "<th data-first=\"down\"><button>{text}</button></th>");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for case in &self.cases {
            let _ = write!(out, "<tr><th>{}</th>", escaped(&case.name));
            for index in 0..self.labels.len() {
                volume(out, case.volumes_ml.get(index).copied());
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
    }
}

/// A heading that sorts; `first` says which way the first click does.
fn head(out: &mut String, text: &str, first: &str) {
    let class = if text == "Warnings" { " class=\"text\"" } else { "" };
    let text = escaped(text);
    let _ = write!(out, "<th{class} data-first=\"{first}\"><button>{text}</button></th>");
}

fn swatch(label: &PageLabel) -> String {
    let [r, g, b] = label.colour;
    format!("<span class=\"swatch\" style=\"background:#{r:02x}{g:02x}{b:02x}\"></span>")
}

fn number(out: &mut String, value: Option<f64>, digits: usize) {
    let value = value.filter(|value| value.is_finite());
    out.push_str(if value.is_some() { "<td" } else { "<td class=\"none\"" });
    sort_key(out, value.unwrap_or(f64::NAN));
    match value {
        Some(value) => _ = write!(out, ">{value:.digits$}</td>"),
        None => out.push_str(">–</td>"),
    }
}

/// Millilitres: a digit after the point below ten, two below one; a dash where there is none.
fn volume(out: &mut String, ml: Option<f64>) {
    match ml {
        Some(ml) if ml > 0.0 => number(
            out,
            Some(ml),
            if ml < 1.0 {
                2
            } else if ml < 10.0 {
                1
            } else {
                0
            },
        ),
        Some(_) => out.push_str("<td class=\"none\" data-v=\"0\">–</td>"),
        None => out.push_str("<td class=\"none\" data-v=\"-1\"></td>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(cases: usize) -> PredictionPage {
        let label = |name: &str| PageLabel { name: name.to_owned(), colour: [1, 2, 255] };
        let case = |index: usize| PageCase {
            name: format!("<b>case {index}</b>"),
            thumbnail: Some(vec![1, 2, 3]),
            volumes_ml: vec![1489.6 + index as f64, 0.0],
            size: "512 × 512 × 300 voxels".to_owned(),
            dice: Some(0.9125),
            secs: Some(12.34),
            warnings: vec!["spleen \"of\" 2 ml".to_owned()],
            error: None,
        };
        PredictionPage {
            title: String::new(),
            about: vec!["STU-Net base & others".to_owned()],
            banner: Some("Demo model".to_owned()),
            labels: vec![label("liver"), label("spleen <em>")],
            cases: (0..cases).map(case).collect(),
        }
    }

    /// Every element that is opened is closed, in order.
    fn check_nested(html: &str) {
        const ALONE: [&str; 3] = ["meta", "img", "!DOCTYPE"];
        let html = html.split("<style>").next().unwrap().to_owned()
            + html.split("</style>").nth(1).unwrap().split("<script>").next().unwrap()
            + html.split("</script>").nth(1).unwrap();
        let mut open = Vec::new();
        for tag in html.split('<').skip(1) {
            let name: String =
                tag.chars().take_while(|c| !c.is_whitespace() && *c != '>').collect();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "{tag}"),
                None if ALONE.contains(&name.as_str()) => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn pages_are_whole_and_fetch_nothing() {
        for cases in [0, 1, 3, 12] {
            let html = example(cases).to_html();
            check_nested(&html);
            for address in ["http:", "https:", "//cdn", "@import", "url(", "<link"] {
                assert!(!html.contains(address), "{address}");
            }
            assert_eq!(html.matches("data:image/png;base64,AQID").count(), cases);
            assert!(!html.contains("<b>") && !html.contains("<em>"));
            assert_eq!(html.contains("spleen &quot;of&quot; 2 ml"), cases > 0);
            assert_eq!(html.contains("&lt;b&gt;case 0"), cases > 0);
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let mut page = example(2);
        page.cases[1] = PageCase {
            name: "b".to_owned(),
            error: Some("NIfTI: expected <4 bytes>".to_owned()),
            ..PageCase::default()
        };
        let html = page.to_html();
        check_nested(&html);
        assert!(html.contains("Failed: NIfTI: expected &lt;4 bytes&gt;"));
        assert!(html.contains("<td data-v=\"1489.6\">1490</td>"), "{html}");
    }
}
