//! What is written, taken apart.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// In front of a block: what it shows is run, and compared.
const TESTED: &str = "<!-- tested -->";

/// A page of Markdown. Paths are relative to the repository.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) anchors: BTreeSet<String>,
    pub(crate) links: Vec<Link>,
    pub(crate) blocks: Vec<Block>,
    /// Code within the text.
    pub(crate) spans: Vec<String>,
}

/// A link to a file of the repository.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) written: String,
    pub(crate) file: PathBuf,
    pub(crate) anchor: Option<String>,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    pub(crate) tested: bool,
}

impl Block {
    pub(crate) fn is_shell(&self) -> bool {
        ["console", "sh"].contains(&self.language.as_str())
    }

    /// The commands: in a transcript the lines with a prompt, in a script all.
    pub(crate) fn commands(&self) -> Vec<String> {
        let command = |line: &str| match self.language.as_str() {
            "console" => prompted(line).map(str::to_owned),
            _ => Some(line.to_owned()),
        };
        self.text.lines().filter_map(command).collect()
    }
}

/// The command of a line that begins with a prompt.
pub(crate) fn prompted(line: &str) -> Option<&str> {
    line.strip_prefix("# ").or_else(|| line.strip_prefix("$ "))
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the repository").to_owned()
}

/// The repository's own files with this extension.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("read a folder") {
            let entry = entry.expect("read an entry");
            let path = folder.join(entry.file_name());
            let name = entry.file_name();
            if entry.file_type().expect("its type").is_dir() {
                // What is built, and what belongs to git.
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path without `..` in it.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(normal.pop(), "{} leaves", path.display()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

impl Page {
    pub(crate) fn all() -> Vec<Self> {
        files("md").iter().map(Self::read).collect()
    }

    pub(crate) fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let text = fs::read_to_string(root().join(path)).expect("read a page");
        let mut page = Self {
            path: path.to_owned(),
            anchors: BTreeSet::new(),
            links: Vec::new(),
            blocks: Vec::new(),
            spans: Vec::new(),
        };
        let mut marked = false;
        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().expect("its beginning"));
                    page.anchors.insert(anchor);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.extend(link(path, &dest_url));
                }
                Event::Html(html) => marked |= html.trim() == TESTED,
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    block = Some(Block {
                        language: language.into_string(),
                        text: String::new(),
                        tested: std::mem::take(&mut marked),
                    });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    page.spans.push(code.into_string());
                }
                Event::Text(part) => {
                    if let Some(block) = &mut block {
                        block.text.push_str(&part);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                _ => {}
            }
        }
        assert!(!marked, "{}: nothing follows {TESTED}", path.display());
        page
    }
}

/// The name that GitHub and mdBook give to a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase().replace(' ', "-");
    let kept = |c: &char| c.is_alphanumeric() || ['-', '_'].contains(c);
    lower.chars().filter(kept).collect()
}

/// A link that stays in the repository.
fn link(page: &Path, written: &str) -> Option<Link> {
    if written.contains("://") || written.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = written.split_once('#').unwrap_or((written, ""));
    let file = match file {
        "" => page.to_owned(),
        file => normal(&page.parent().expect("a page's folder").join(file)),
    };
    Some(Link {
        written: written.to_owned(),
        file,
        anchor: (!anchor.is_empty()).then(|| anchor.to_owned()),
    })
}
