//! What the device rules of a spec add up to.

use std::collections::BTreeSet;

use reaper_spec::DeviceRule;

/// What may be done with a device: bits, numbered as the kernel numbers them for programs
/// (`BPF_DEVCG_ACC_*` of linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self(7);
    /// The letters of the spec and of version 1's files.
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    /// Of the spec's letters, of which none are all.
    fn of(letters: Option<&str>) -> Self {
        let letters = letters.filter(|letters| !letters.is_empty());
        letters.map_or(Self::ALL, |letters| {
            let has = |(letter, _): &&(char, u8)| letters.contains(*letter);
            let bits = Self::LETTERS.iter().filter(has).map(|(_, bit)| bit);
            Self(bits.sum())
        })
    }

    pub(super) fn letters(self) -> String {
        let has = |(_, bit): &&(char, u8)| self.0 & bit != 0;
        let letters = Self::LETTERS.iter().filter(has);
        letters.map(|(letter, _)| letter).collect()
    }

    pub(super) fn inverse(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }

    pub(super) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

/// What kind of device, numbered as the kernel numbers it for programs (`BPF_DEVCG_DEV_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Char = 2,
}

impl Kind {
    pub(super) const BOTH: [Self; 2] = [Self::Block, Self::Char];

    pub(super) fn letter(self) -> char {
        match self {
            Self::Block => 'b',
            Self::Char => 'c',
        }
    }
}

/// A rule. A number that is absent is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None` are both.
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
}

impl Rule {
    fn of(rule: &DeviceRule) -> Self {
        let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        Self {
            allow: rule.allow,
            kind: match rule.kind.as_deref() {
                Some("b") => Some(Kind::Block),
                Some("c") => Some(Kind::Char),
                _ => None,
            },
            major: number(rule.major),
            minor: number(rule.minor),
            access: Access::of(rule.access.as_deref()),
        }
    }

    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self {
            allow: true,
            kind: Some(kind),
            major,
            minor,
            access,
        }
    }

    /// Whether it says something of all devices of this kind with these numbers, of which `None` is any
    /// that no rule names.
    fn covers(&self, kind: Kind, major: Option<u32>, minor: Option<u32>) -> bool {
        self.kind.is_none_or(|own| own == kind)
            && (self.major.is_none() || self.major == major)
            && (self.minor.is_none() || self.minor == minor)
    }
}

/// What is allowed after all rules of a spec, as runc does: making any node, and the devices of
/// `/dev` that every program counts on, the pseudoterminals included. `/dev/net/tun`, which some
/// releases of runc add, and `/dev/console`, which is the node's own here, are not among them.
const DEFAULT: [Rule; 10] = {
    const fn char(major: u32, minor: u32) -> Rule {
        Rule::allow(Kind::Char, Some(major), Some(minor), Access::ALL)
    }
    const MKNOD: Access = Access(1);
    [
        Rule::allow(Kind::Char, None, None, MKNOD),
        Rule::allow(Kind::Block, None, None, MKNOD),
        char(1, 3),
        char(1, 5),
        char(1, 7),
        char(1, 8),
        char(1, 9),
        char(5, 0),
        char(5, 2),
        Rule::allow(Kind::Char, Some(136), None, Access::ALL),
    ]
};

/// What engines allow beside them in each spec, asked or not: `/dev/console` and, formerly,
/// `/dev/net/tun`.
const ENGINES: [(u32, u32); 2] = [(5, 1), (10, 200)];

/// Whether the rules are more than those that an engine writes into each spec.
pub(super) fn are_asked(rules: &[DeviceRule]) -> bool {
    let is_usual = |rule: &Rule| match rule.allow {
        false => {
            let Rule { major, minor, .. } = rule;
            rule.kind.is_none() && (major, minor) == (&None, &None) && rule.access == Access::ALL
        }
        true => {
            let of_engines = ENGINES.map(|(major, minor)| {
                Rule::allow(Kind::Char, Some(major), Some(minor), Access::ALL)
            });
            let mut known = DEFAULT.iter().chain(&of_engines);
            known.any(|known| {
                rule.kind == known.kind
                    && known.covers(known.kind.unwrap_or(Kind::Char), rule.major, rule.minor)
                    && rule.access.is_within(known.access)
            })
        }
    };
    !rules.iter().map(Rule::of).all(|rule| is_usual(&rule))
}

/// What may be done with some devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// `None` is any.
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) allowed: Access,
}

impl Entry {
    /// As version 1's files name it, with this access.
    pub(super) fn line(&self, access: Access) -> String {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        let (kind, access) = (self.kind.letter(), access.letters());
        format!("{kind} {major}:{minor} {access}")
    }
}

/// All rules of a spec, and the default ones behind them, as a table of which the first entry that is
/// about a device has all that may be done with it. There is one about any device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table(pub(super) Vec<Entry>);

impl Table {
    /// The table of `rules`: of those about a device the last one decides, for each kind of access.
    /// `None` if nothing is forbidden: there are no rules, or the last of them allow all.
    pub(super) fn of(rules: &[DeviceRule]) -> Option<Self> {
        if rules.is_empty() {
            return None;
        }
        let rules: Vec<_> = rules.iter().map(Rule::of).chain(DEFAULT).collect();
        let entries: Vec<_> = Kind::BOTH
            .iter()
            .flat_map(|kind| entries(*kind, &rules))
            .collect();
        let forbids = |entry: &Entry| entry.allowed != Access::ALL;
        entries.iter().any(forbids).then_some(Self(entries))
    }
}

/// What the rules allow of devices of a kind with these numbers, where `None` is any that no rule names.
/// What no rule says anything of is forbidden, as with runc and crun.
fn allowed(rules: &[Rule], kind: Kind, major: Option<u32>, minor: Option<u32>) -> Access {
    let (mut allowed, mut open) = (Access::NONE, Access::ALL);
    let about = |rule: &&Rule| rule.covers(kind, major, minor);
    for rule in rules.iter().rev().filter(about) {
        if rule.allow {
            allowed.0 |= open.0 & rule.access.0;
        }
        open.0 &= !rule.access.0;
    }
    allowed
}

/// The entries for one kind, those with more numbers first.
fn entries(kind: Kind, rules: &[Rule]) -> Vec<Entry> {
    let about = rules
        .iter()
        .filter(|rule| rule.kind.is_none_or(|own| own == kind));
    let named: BTreeSet<_> = about.map(|rule| (rule.major, rule.minor)).collect();
    let majors: Vec<_> = named.iter().filter(|(_, minor)| minor.is_none()).collect();
    let minors: Vec<_> = named.iter().filter(|(major, _)| major.is_none()).collect();
    // Where a rule for a major number and one for a minor number meet, neither entry has it all.
    let crossed = majors
        .iter()
        .flat_map(|(major, _)| minors.iter().map(|(_, minor)| (*major, *minor)));
    let mut places: BTreeSet<_> = named.iter().copied().chain(crossed).collect();
    places.insert((None, None));
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_by_key(|(major, minor)| (major.is_some(), minor.is_some()));
    // From the widest on, so that an entry is left out that says what a wider one says already.
    let mut kept: Vec<Entry> = Vec::new();
    for (major, minor) in places {
        let allowed = allowed(rules, kind, major, minor);
        let is_wider = |entry: &&Entry| {
            (entry.major.is_none() || entry.major == major)
                && (entry.minor.is_none() || entry.minor == minor)
        };
        let wider = kept.iter().rev().find(is_wider);
        if wider.is_none_or(|wider| wider.allowed != allowed) {
            kept.push(Entry {
                kind,
                major,
                minor,
                allowed,
            });
        }
    }
    kept.reverse();
    kept
}
