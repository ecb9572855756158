//! Taking out of a captured file what is of one machine and one run.

use std::{collections::BTreeMap, fs};

use reaper_tests::Node;

/// The text with the node's folder, host name and ids replaced by ones that are always the same.
pub(crate) fn of(text: &str, node: &Node) -> String {
    let folder = node.dir().to_string_lossy().into_owned();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut text = text
        .replace(&folder, "/run/node")
        .replace(node.marker(), "node");
    if !host.trim().is_empty() {
        text = text.replace(host.trim(), "host");
    }
    ids(&text)
}

/// Numbers the ids of 64 hexadecimal digits in the order in which they appear.
fn ids(text: &str) -> String {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let tail = &rest[start..];
        let length = tail
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(tail.len());
        cleaned.push_str(&rest[..start]);
        let (word, after) = tail.split_at(length);
        if length == 64 {
            let count = known.len() + 1;
            let number = *known.entry(word).or_insert(count);
            cleaned.push_str(&format!("{number:064x}"));
        } else {
            cleaned.push_str(word);
        }
        rest = after;
    }
    cleaned + rest
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn ids_are_numbered_and_other_words_kept() {
        let (a, b) = ("a".repeat(64), "0b".repeat(32));
        let (first, second) = (format!("{:064x}", 1), format!("{:064x}", 2));
        assert_eq!(
            ids(&format!(
                "{{\"x\":\"{a}\",\"y\":\"/{b}/{a}\",\"z\":\"abc\"}}"
            )),
            format!("{{\"x\":\"{first}\",\"y\":\"/{second}/{first}\",\"z\":\"abc\"}}")
        );
    }
}
