//! Sets of rules, and how they are put together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::values::{HostPath, IdRange, Privileges, RlimitCeiling};
use crate::error::{Error, Invalid, Rule};

/// What the node's admin has decided for all containers. It is set in configuration files only,
/// never by an environment variable, an annotation or a flag; what the node's own file says of it
/// holds whatever other file those name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyConfig {
    /// Whose word on privileges counts.
    pub privileges: Privileges,
    /// What containers may ask for, a set for each file that has a policy.
    pub rules: Vec<PolicyRules>,
}

/// What one file allows. A rule that it does not have allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyRules {
    /// Where the rules were written.
    pub source: PolicySource,
    /// Whose word on privileges counts.
    pub privileges: Option<Privileges>,
    /// The users that a process may be.
    pub users: Option<Vec<IdRange>>,
    /// The groups that a process may have, supplementary ones included.
    pub groups: Option<Vec<IdRange>>,
    /// The programs that may be executed: globs that the first argument has to match as a whole.
    pub commands: Option<Vec<String>>,
    /// The Kubernetes namespaces of whose pods containers may be. One that is of no pod, as far as its
    /// annotations say, is refused.
    pub namespaces: Option<Vec<String>>,
    /// What of the host a container may mount.
    pub host_paths: Option<Vec<HostPath>>,
    /// The capabilities that a process may be granted.
    pub capabilities: Option<Vec<String>>,
    /// Whether a container may be privileged: have `CAP_SYS_ADMIN`, and neither masked nor read-only
    /// paths.
    pub privileged: Option<bool>,
    /// The overlay scopes that a container may be in; `group:*` stands for every group.
    pub scopes: Option<Vec<String>>,
    /// The most containers that may be below one state root and not have stopped, not counting the sandboxes of
    /// pods.
    pub containers: Option<usize>,
    /// The largest hard limits that a process may be given.
    pub rlimits: Option<Vec<RlimitCeiling>>,
}

/// Where rules were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicySource {
    /// The file, or what else was read, in words.
    pub name: String,
    /// The line of each rule, counted from 1.
    pub lines: BTreeMap<String, usize>,
}

/// The rule `containers` of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerLimit {
    /// The rule, and where it was written.
    pub rule: Rule,
    /// The most containers.
    pub most: usize,
}

impl ContainerLimit {
    /// The error of a container that would be one more than the limit, where there are `found`.
    pub fn refused(&self, found: usize) -> Error {
        Error::Policy {
            rule: self.rule.clone(),
            found: format!("another container: {found} have not stopped"),
        }
    }
}

impl PolicyConfig {
    /// The limits of all files for the number of containers. Each of them holds.
    pub fn container_limits(&self) -> Vec<ContainerLimit> {
        let of = |rules: &PolicyRules| {
            let rule = rules.source.rule("containers");
            rules.containers.map(|most| ContainerLimit { rule, most })
        };
        self.rules.iter().filter_map(of).collect()
    }

    /// The rules that are being read.
    pub(crate) fn last(&mut self) -> &mut PolicyRules {
        if self.rules.is_empty() {
            self.rules.push(PolicyRules::default());
        }
        let last = self.rules.len() - 1;
        &mut self.rules[last]
    }

    /// Takes the last rules into account, which were read just now.
    ///
    /// # Errors
    /// They are wider than what another file says, or contradict each other.
    pub(crate) fn settle(&mut self) -> Result<(), Invalid> {
        let Some((last, earlier)) = self.rules.split_last() else {
            return Ok(());
        };
        let invalid = |expected: String, found: &str| Invalid {
            at: "policy.privileges".to_owned(),
            expected: expected.into(),
            found: found.to_owned(),
        };
        let narrower = earlier
            .iter()
            .find(|rules| rules.privileges == Some(Privileges::Spec));
        if let (Some(Privileges::Node), Some(narrower)) = (last.privileges, narrower) {
            let expected = format!("\"spec\", as {} says for the node", narrower.source.name);
            return Err(invalid(expected, "\"node\""));
        }
        self.privileges = self
            .rules
            .iter()
            .filter_map(|rules| rules.privileges)
            .min_by_key(|privileges| *privileges == Privileges::Node)
            .unwrap_or_default();
        let limit = self.rules.iter().find_map(PolicyRules::limit_of_privileges);
        match (self.privileges, limit) {
            (Privileges::Node, Some(limit)) => Err(invalid(
                format!("\"spec\", as {limit} is a limit"),
                "\"node\"",
            )),
            _ => Ok(()),
        }
    }
}

impl PolicyRules {
    /// The rule of these that no container would keep that has all privileges of its user.
    fn limit_of_privileges(&self) -> Option<Rule> {
        let key = if self.capabilities.is_some() {
            "capabilities"
        } else if self.privileged == Some(false) {
            "privileged"
        } else {
            return None;
        };
        Some(self.source.rule(key))
    }
}

impl PolicySource {
    /// A rule's name with the place where it was written.
    pub(super) fn rule(&self, key: &str) -> Rule {
        Rule {
            key: key.to_owned(),
            source: self.name.clone(),
            line: self.lines.get(key).copied(),
        }
    }
}
