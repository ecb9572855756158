//! What tests assume of the machine.

/// Fails with what to do where the machine has no `/dev/stderr`.
pub(crate) fn needs_dev_stderr() {
    assert!(
        std::fs::symlink_metadata("/dev/stderr").is_ok(),
        "this test needs /dev/stderr on the machine: ln -s /proc/self/fd/2 /dev/stderr"
    );
}
