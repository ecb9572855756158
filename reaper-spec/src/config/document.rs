//! A configuration's text, and where in it each setting stands.

use std::{collections::BTreeMap, io, path::Path};

use toml::{
    Table,
    de::{DeTable, DeValue},
};

use super::policy::POLICY;
use crate::{
    error::{Error, Origin},
    file,
    policy::PolicySource,
};

/// A file's content, or what stands for one.
pub(super) struct Document {
    pub(super) origin: Origin,
    pub(super) table: Table,
    /// The line of each key by its whole name, counted from 1.
    pub(super) lines: BTreeMap<String, usize>,
}

impl Document {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let origin = Origin::File(path.to_owned());
        let bytes = file::read(path)?;
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, origin),
            Err(error) => Err(syntax(&origin, error.to_string())),
        }
    }

    /// As [`read`](Self::read); `None` if there is no such file. A link to what is missing is one that cannot be
    /// read: who has set it has meant what it leads to, and a policy must not be lost with that.
    pub(super) fn read_if_there(path: &Path) -> Result<Option<Self>, Error> {
        match Self::read(path) {
            Err(Error::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !leads_nowhere(path) =>
            {
                Ok(None)
            }
            document => document.map(Some),
        }
    }

    pub(super) fn parse(text: &str, origin: Origin) -> Result<Self, Error> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', " ");
            syntax(&origin, format!("line {line}: {message}"))
        })?;
        let mut lines = BTreeMap::new();
        if let Ok(spanned) = DeTable::parse(text) {
            find_lines(text, spanned.get_ref(), "", &mut lines);
        }
        Ok(Self {
            origin,
            table,
            lines,
        })
    }

    /// The same without its other parts.
    pub(super) fn only(mut self, part: &str) -> Self {
        self.table.retain(|key, _| key == part);
        self
    }

    /// Where the rules of its policy stand.
    pub(super) fn policy_source(&self) -> PolicySource {
        let name = match &self.origin {
            Origin::File(path) => path.display().to_string(),
            _ => "the runtime's options in containerd's configuration".to_owned(),
        };
        let rules = self.lines.iter().filter_map(|(key, line)| {
            let rule = key.strip_prefix(POLICY)?.strip_prefix('.')?;
            Some((rule.to_owned(), *line))
        });
        PolicySource {
            name,
            lines: rules.collect(),
        }
    }
}

/// Whether a link, at the path itself or on the way to it, leads to what is missing.
fn leads_nowhere(path: &Path) -> bool {
    let there = path
        .ancestors()
        .find(|part| part.symlink_metadata().is_ok());
    there.is_some_and(|part| part.metadata().is_err())
}

fn find_lines(text: &str, table: &DeTable<'_>, prefix: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            find_lines(text, inner, &format!("{name}."), lines);
        }
        lines.insert(name, line_at(text, key.span().start));
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or_default().matches('\n').count() + 1
}

fn syntax(origin: &Origin, problem: String) -> Error {
    Error::Syntax {
        origin: origin.clone(),
        format: "TOML",
        problem,
    }
}
