//! The containerd shim.
