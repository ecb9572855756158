//! Names of files for people: any byte sequence is one.

use std::{fmt::Write, os::unix::ffi::OsStrExt, path::Path};

/// A path with each byte that is not part of UTF-8 text as `\\xNN`, so that two such names look
/// different.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // A String takes everything.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn names_that_are_not_utf_8_can_be_told_apart() {
        let names: [&[u8]; 3] = ["/ä\n".as_bytes(), b"/a\xff", b"/a\xfe\xffb"];
        let shown = names.map(|name| shown(Path::new(OsStr::from_bytes(name))));
        assert_eq!(shown, ["/ä\n", "/a\\xff", "/a\\xfe\\xffb"]);
    }
}
