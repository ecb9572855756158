//! What the header of a tar archive has no place for: extended headers (pax(1), "pax Extended
//! Header"), with the keywords that GNU tar, libarchive and star use for what POSIX does not name.

use std::fmt::Write as _;

use crate::linux::file_attributes::Xattr;

/// ACLs as the kernel keeps them in an extended attribute (acl(5), linux/posix_acl_xattr.h).
const ACLS: [(&[u8], &str); 2] = [
    (b"system.posix_acl_access", "SCHILY.acl.access"),
    (b"system.posix_acl_default", "SCHILY.acl.default"),
];

/// The extended header of one entry.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn add(&mut self, keyword: &[u8], value: &[u8]) {
        // The length at the front counts its own digits.
        let rest = keyword.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend(length.to_string().into_bytes());
        self.0.push(b' ');
        self.0.extend(keyword);
        self.0.push(b'=');
        self.0.extend(value);
        self.0.push(b'\n');
    }

    /// The time of the last change of content, if the header has no place for all of it.
    pub(super) fn add_modified(&mut self, seconds: i64, nanoseconds: i64) {
        const OCTAL: std::ops::Range<i64> = 0..1 << 33;
        if nanoseconds != 0 || !OCTAL.contains(&seconds) {
            self.add(b"mtime", decimal(seconds, nanoseconds).as_bytes());
        }
    }

    /// Extended attributes, and ACLs among them in the form that tar reads as well.
    pub(super) fn add_xattrs(&mut self, xattrs: &[Xattr]) {
        for (name, value) in xattrs {
            let acl = ACLS.iter().find(|(attribute, _)| attribute == name);
            if let Some((_, keyword)) = acl
                && let Some(text) = acl_text(value)
            {
                self.add(keyword.as_bytes(), text.as_bytes());
            }
            let mut keyword = b"SCHILY.xattr.".to_vec();
            for &byte in name {
                match byte {
                    // As GNU tar writes them: an equals sign ends the keyword.
                    b'=' => keyword.extend(b"%3D"),
                    b'%' => keyword.extend(b"%25"),
                    byte => keyword.push(byte),
                }
            }
            self.add(&keyword, value);
        }
    }
}

/// Seconds with a fraction, negative before 1970.
fn decimal(seconds: i64, nanoseconds: i64) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    // The fraction counts from the second before.
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}

/// An ACL in its short text form; `None` for a version that is not known.
fn acl_text(value: &[u8]) -> Option<String> {
    const VERSION: u32 = 2;
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let number = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let (tag, named) = match number(0) {
            0x01 => ("user", false),
            0x02 => ("user", true),
            0x04 => ("group", false),
            0x08 => ("group", true),
            0x10 => ("mask", false),
            0x20 => ("other", false),
            _ => return None,
        };
        let bits = number(2);
        let right = |bit: u16, letter: char| if bits & bit == 0 { '-' } else { letter };
        let id = if named { id.to_string() } else { String::new() };
        if !text.is_empty() {
            text.push(',');
        }
        // A String takes everything.
        let _ = write!(
            text,
            "{tag}:{id}:{}{}{}",
            right(4, 'r'),
            right(2, 'w'),
            right(1, 'x')
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 2, 3, 85, 86, 87, 88, 985, 986, 987, 988, 989] {
            let mut records = Records::default();
            records.add(b"path", &vec![b'x'; length]);
            let text = records.as_bytes();
            let space = text.iter().position(|&byte| byte == b' ').unwrap();
            let said: usize = std::str::from_utf8(&text[..space])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, text.len());
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(decimal(1, 5), "1.000000005");
        assert_eq!(decimal(-315_619_200, 0), "-315619200.000000000");
        assert_eq!(decimal(-1, 750_000_000), "-0.250000000");
        assert_eq!(decimal(-2, 250_000_000), "-1.750000000");
    }

    #[test]
    fn an_acl_is_text_as_setfacl_reads_it() {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 4, 1000),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let text = "user::rw-,user:1000:r--,group::r--,mask::r--,other::---";
        assert_eq!(acl_text(&value).unwrap(), text);
        assert_eq!(acl_text(&value[..7]), None);
    }
}
