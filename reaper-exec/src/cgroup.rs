//! Cgroups: a container is a cgroup of the v2 hierarchy, with a leaf for init and for each exec.
