//! The Python literals that nnU-Net 1 keeps in JSON: `{1: 12.5, (1, 2): 3}`.

use stunet_data::metrics::Class;

/// Sizes by class, from the text of a Python dictionary; empty for `None`. No text is executed.
pub(super) fn sizes(text: &str) -> Option<Vec<(Class, f64)>> {
    let text = text.trim();
    if text == "None" {
        return Some(Vec::new());
    }
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (key, after) = match rest.strip_prefix('(') {
            Some(inner) => {
                let (inner, after) = inner.split_once(')')?;
                // One element has a comma behind it.
                (format!("{inner},").replace(",,", ","), after.trim_start().strip_prefix(':')?)
            }
            None => {
                let (key, after) = rest.split_once(':')?;
                (key.to_owned(), after)
            }
        };
        let (size, after) = after.split_once(',').unwrap_or((after, ""));
        let size: f64 = size.trim().parse().ok().filter(|size: &f64| *size >= 0.0)?;
        found.push((key.trim().parse().ok()?, size));
        rest = after.trim_start();
    }
    Some(found)
}

/// The text of such a dictionary.
pub(super) fn text_of(sizes: &[(Class, f64)]) -> String {
    if sizes.is_empty() {
        return "None".to_owned();
    }
    let entries: Vec<String> =
        sizes.iter().map(|(class, mm3)| format!("{class}: {mm3:?}")).collect();
    format!("{{{}}}", entries.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[{}(),:0-9. eN-]{0,30}") {
            if let Some(found) = sizes(&text) {
                prop_assert_eq!(sizes(&text_of(&found)), Some(found));
            }
        }
    }

    #[test]
    fn dictionaries_of_sizes() {
        let check = |text: &str, expected: Option<&[(Class, f64)]>| {
            assert_eq!(sizes(text).as_deref(), expected, "{text:?}");
        };
        let region = Class::Region(vec![1, 2]);
        check("None", Some(&[]));
        check("{}", Some(&[]));
        check("{1: 12.5, 3: 4}", Some(&[(Class::Label(1), 12.5), (Class::Label(3), 4.0)]));
        check("{(1, 2): 1e3, 2: 0.5}", Some(&[(region.clone(), 1000.0), (Class::Label(2), 0.5)]));
        check("{(4,): 2.0}", Some(&[(Class::Region(vec![4]), 2.0)]));
        for bad in
            ["", "{1}", "{1: }", "{a: 1}", "{(1, 2: 3}", "{1: -2}", "__import__('os')", "{1: nan}"]
        {
            check(bad, None);
        }
        let all = [(region, 12.5), (Class::Label(3), 4.0)];
        assert_eq!(sizes(&text_of(&all)).unwrap(), all);
    }
}
