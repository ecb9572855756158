//! Which files hand a path to the kernel, and why each may.
//!
//! A container can change what lies on the way of a path while Reaper follows it. So what a container may have a hand
//! in is opened by `reaper-overlay/src/linux/resolve*` alone, and everything after that is done by descriptors. Each
//! file that names paths to the kernel by itself is in the [table](BY_PATH), with the reason for which no container
//! decides on what lies there. A file that is not, and does, fails the tests.
//!
//! The calls are found by their names in the tokens: functions of `std::fs`, of rustix and of nix that take a path,
//! whatever has `CWD`, and those methods of `Path` that no other type has. A link to an open descriptor
//! (`/proc/self/fd`), made by `fd_link` or `Handle::link`, is no path in this sense. Questions that only look,
//! `is_dir` and its like, have the names of methods of other types and are not found.

use std::{
    io,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source::{is_tests, read};

/// Functions of `std::fs`, and those of rustix and nix that are called with the name of their module.
const QUALIFIED: &[&str] = &[
    "access",
    "canonicalize",
    "chmod",
    "chown",
    "copy",
    "create_dir",
    "create_dir_all",
    "exists",
    "hard_link",
    "lstat",
    "metadata",
    "mkdir",
    "open",
    "read",
    "read_dir",
    "read_link",
    "read_to_string",
    "remove_dir",
    "remove_dir_all",
    "remove_file",
    "rename",
    "set_permissions",
    "stat",
    "statfs",
    "statvfs",
    "symlink",
    "symlink_metadata",
    "unlink",
    "write",
];

/// Functions that are imported by their names.
const BARE: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "chroot",
    "getxattr",
    "lchown",
    "lgetxattr",
    "llistxattr",
    "lremovexattr",
    "lsetxattr",
    "lstat",
    "mkfifo",
    "mount",
    "mount_bind",
    "mount_bind_recursive",
    "mount_change",
    "mount_move",
    "mount_remount",
    "open",
    "pivot_root",
    "setxattr",
    "stat",
    "statfs",
    "statvfs",
    "symlink",
    "umount2",
    "unlink",
    "unmount",
];

/// Methods of `Path`.
const METHODS: &[&str] = &[
    "canonicalize",
    "exists",
    "read_dir",
    "read_link",
    "symlink_metadata",
    "try_exists",
];

/// The files below `source` that hand a path to the kernel, relative to it and sorted, with what they call.
///
/// # Errors
/// A file that cannot be read, or that is no Rust.
pub fn files_by_path(source: &Path) -> io::Result<Vec<(PathBuf, Vec<String>)>> {
    let mut found = Vec::new();
    for (file, tokens) in read(source)? {
        let mut calls = Vec::new();
        find(tokens, &mut calls);
        calls.sort();
        calls.dedup();
        if !calls.is_empty() && !file.iter().any(|part| is_tests(Path::new(part))) {
            found.push((file, calls));
        }
    }
    Ok(found)
}

/// Adds the calls in `tokens` that are given a path, outside of modules called `tests`.
fn find(tokens: TokenStream, found: &mut Vec<String>) {
    // What is before the arguments, without the signs of a path: `fs :: read` is `fs`, `read`.
    let mut words: Vec<String> = Vec::new();
    let mut is_path = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) => {
                if !std::mem::take(&mut is_path) {
                    let follows = words
                        .pop()
                        .filter(|word| matches!(&**word, "." | "fn" | "mod"));
                    words = follows.into_iter().collect();
                }
                words.push(word.to_string());
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' => is_path = !words.is_empty(),
            TokenTree::Punct(mark) if mark.as_char() == '.' => words = vec![".".to_owned()],
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Parenthesis
                    && takes_path(&words, &group.stream())
                {
                    found.extend(words.last().cloned());
                }
                if words != ["mod", "tests"] {
                    find(group.stream(), found);
                }
                words.clear();
                is_path = false;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                words.clear();
                is_path = false;
            }
        }
    }
}

/// Whether a call of `words` with these arguments hands over a path.
fn takes_path(words: &[String], arguments: &TokenStream) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let has = |words: &[&str]| mentions(arguments.clone(), words);
    if has(&["fd_link", "link"]) || words.first() == Some(&"fn") {
        return false;
    }
    match words.as_slice() {
        [".", name] => METHODS.contains(name),
        [.., "fs" | "mount" | "unistd", name] if QUALIFIED.contains(name) => true,
        [.., "fs" | "mount" | "unistd", name] => BARE.contains(name) || has(&["CWD"]),
        [.., "File", "open" | "options" | "create" | "create_new"] => true,
        [.., "OpenOptions" | "DirBuilder", "new"] => true,
        [.., "Handle", "of"] => true,
        [.., "UnixListener", "bind"] | [.., "UnixStream", "connect"] => true,
        [name] if BARE.contains(name) => !arguments.is_empty(),
        [.., _] => has(&["CWD"]) && !words.contains(&"."),
        [] => false,
    }
}

/// Whether one of `words` is among these arguments themselves or in a group of them.
fn mentions(tokens: TokenStream, words: &[&str]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => words.iter().any(|wanted| word == wanted),
        TokenTree::Group(group) => mentions(group.stream(), words),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// The files that may, by the reason. A name that ends in a slash is a folder with all that is in it.
pub const BY_PATH: &[(&str, &[&str])] = &[
    (
        "it resolves: a name at a time, or by openat2(2)",
        &[
            "reaper-overlay/src/linux/handle.rs",
            "reaper-overlay/src/linux/resolve.rs",
            "reaper-overlay/src/linux/resolve/in_view.rs",
        ],
    ),
    (
        "the root alone, from where names are followed one at a time",
        &["reaper-overlay/src/linux/mount_point.rs"],
    ),
    (
        "paths below the overlay's base, which no view shows and only its user can enter",
        &[
            "reaper-overlay/src/contract/user.rs",
            "reaper-overlay/src/isolation/overlay_view.rs",
            "reaper-overlay/src/linux/file_attributes.rs",
            "reaper-overlay/src/linux/files.rs",
            "reaper-overlay/src/linux/flock.rs",
            "reaper-overlay/src/linux/project.rs",
            "reaper-overlay/src/manage/change.rs",
            "reaper-overlay/src/manage/diff.rs",
            "reaper-overlay/src/manage/export.rs",
            "reaper-overlay/src/manage/journal.rs",
            "reaper-overlay/src/manage/leftovers.rs",
            "reaper-overlay/src/manage/overlays.rs",
            "reaper-overlay/src/manage/unchanged.rs",
            "reaper-overlay/src/mount/mask.rs",
            "reaper-overlay/src/scope/assemble.rs",
            "reaper-overlay/src/scope/keep.rs",
            "reaper-overlay/src/scope/layers.rs",
            "reaper-overlay/src/scope/layers_as_user.rs",
            "reaper-overlay/src/scope/list.rs",
            "reaper-overlay/src/scope/mount_points.rs",
            "reaper-overlay/src/store/",
        ],
    ),
    (
        "fixed names in the kernel's filesystems, in which nothing can be replaced",
        &[
            "reaper-overlay/src/isolation/empty_root.rs",
            "reaper-overlay/src/linux/mountinfo.rs",
            "reaper-overlay/src/linux/namespace.rs",
            "reaper-overlay/src/mount/denied.rs",
            "reaper-overlay/src/mount/interface.rs",
            "reaper-overlay/src/mount/own_trees.rs",
            "reaper-exec/src/cgroup/",
            "reaper-exec/src/child.rs",
            "reaper-exec/src/child/labels.rs",
            "reaper-exec/src/descriptors.rs",
            "reaper-exec/src/monitor/serve/start.rs",
            "reaper-exec/src/monitor/support/hook_runner.rs",
            "reaper-exec/src/monitor/support/node_cleanup.rs",
            "reaper-exec/src/monitor/support/oom_score.rs",
            "reaper-exec/src/monitor/support/placeholder.rs",
            "reaper-exec/src/procfs/",
            "reaper-exec/src/selinux.rs",
        ],
    ),
    (
        "the host's own tree, as the administrator's configuration names it, before a view is there",
        &[
            "reaper-overlay/src/isolation/read_only.rs",
            "reaper-overlay/src/isolation/shared_overlay.rs",
            "reaper-overlay/src/scope/image.rs",
            "reaper-overlay/src/scope/masks.rs",
            "reaper-overlay/src/scope/masks/",
            "reaper-overlay/src/scope/masks_as_user.rs",
            "reaper-overlay/src/scope/plan_as_root.rs",
            "reaper-overlay/src/scope/plan_as_user.rs",
        ],
    ),
    (
        "what the engine names on the host: the image, the source of a bind, which is opened once and then checked",
        &[
            "reaper-overlay/src/mount/image.rs",
            "reaper-overlay/src/mount/rootfs.rs",
            "reaper-overlay/src/volume/open.rs",
        ],
    ),
    (
        "the path is the link of a descriptor that the caller has opened, or `.` and `/`",
        &[
            "reaper-overlay/src/linux/in_use.rs",
            "reaper-overlay/src/mount/attributes.rs",
            "reaper-overlay/src/mount/bind.rs",
            "reaper-overlay/src/mount/pivot.rs",
            "reaper-overlay/src/mount/restrict.rs",
            "reaper-overlay/src/volume/mount.rs",
        ],
    ),
    (
        "a filesystem that it has just mounted, in a mount namespace of its own",
        &[
            "reaper-overlay/src/mount/mirror.rs",
            "reaper-overlay/src/volume/device.rs",
        ],
    ),
    (
        "tools for tests, and what a build that measures them writes",
        &[
            "reaper-overlay/src/linux/syscall.rs",
            "reaper-overlay/src/testing/",
            "reaper-exec/src/conformance/",
            "reaper-exec/src/conformance.rs",
            "reaper-exec/src/io/conformance/",
        ],
    ),
    (
        "paths below the state root, which only its user can enter",
        &[
            "reaper-exec/src/channel.rs",
            "reaper-exec/src/engine/",
            "reaper-exec/src/hooks/bundle.rs",
            "reaper-exec/src/host/",
            "reaper-exec/src/monitor/oci_runtime/",
            "reaper-exec/src/monitor/operations/",
            "reaper-exec/src/monitor/serve/cleanup.rs",
            "reaper-exec/src/monitor/support/container_files.rs",
            "reaper-exec/src/records.rs",
            "reaper-state/src/",
        ],
    ),
    (
        "what the engine names on the host, opened before the process is in its view",
        &[
            "reaper-exec/src/io/",
            "reaper-exec/src/monitor/support/log.rs",
            "reaper-exec/src/namespaces.rs",
            "reaper-spec/src/",
        ],
    ),
    (
        "the process itself, with its user's rights, asks for what it would execute",
        &["reaper-exec/src/child/program.rs"],
    ),
    (
        "tasks of its own, and a change of the root to one that the caller has opened",
        &["reaper-exec/src/sys.rs"],
    ),
    (
        "what the person or the engine that calls names, or the node's own configuration",
        &["reaper-cli/src/", "reaper-shim/src/"],
    ),
];
