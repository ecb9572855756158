# Which guests the tests are run in. To be sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `root` and `lab` are folders, `opt` are the options.

# Guests, a line each, as options. Debian's 6.12 and later have no memory and cpuset of version 1.
essential_guests() {
  cat <<'GUESTS'
--kernel 5.10 --cgroups v2
--kernel 5.10 --cgroups v1
--kernel 6.1 --cgroups hybrid
--kernel 6.12 --cgroups v2
--kernel newest --cgroups v2
GUESTS
}

# Every kernel with every layout.
all_guests() {
  local kernel
  # shellcheck disable=SC2154 # It is in kernels.sh.
  for kernel in $default_kernels; do
    printf -- "--kernel $kernel --cgroups %s\n" v2 v1 hybrid
  done
}

# What else nodes differ in, each with an old and a new kernel.
variant_guests() {
  local kernel
  for kernel in 5.10 newest; do
    printf -- "--kernel $kernel %s\n" '--root tmpfs' '--root xfs' '--root btrfs' --read-only \
      '--propagation private' '--lsm selinux' '--lsm none' --no-userns '--init systemd'
  done
  printf -- '--kernel 6.1 --init systemd --cgroups %s\n' v1 hybrid
}

# Runs a command in each of the guests of a list, and says at the end how it went.
in_guests() {
  local guests=$1 guest status began failed=0 summary=()
  shift
  while read -r guest <&5; do
    printf '\n== %s\n' "$guest"
    began=$SECONDS status=0
    # Not as a part of a condition: its first error is to end it.
    set +e
    # shellcheck disable=SC2086 # A line has several words.
    (
      set -e
      parse '' $guest
      boot "$@"
    )
    status=$?
    set -e
    [ $status = 0 ] || failed=$((failed + 1))
    summary+=("$(printf '%-6s %s, %d s' "$([ $status = 0 ] && echo ok || echo FAILED)" "$guest" $((SECONDS - began)))")
  done 5<<<"$guests"
  printf '\n'
  printf '%s\n' "${summary[@]}"
  [ $failed = 0 ] || die "$failed of ${#summary[@]} guests failed"
}

# One pass for each kernel, in a few minutes.
essentials() {
  prepare_stage
  take_programs "$kernel_crates" bootstrap driven masks protection rootfs scopes volumes
  take_e2e exec limits
  run_taken "$(essential_guests)"
}

# Everything with every kernel and layout, or in the guests with a part of their line. Takes hours.
full() {
  local guests
  guests=$(guests_with "$(all_guests)" "$@")
  # shellcheck disable=SC2034 # It is read elsewhere.
  opt[timeout]=7200
  prepare_stage
  take_programs "$kernel_crates"
  take_e2e "${guest_e2e[@]}"
  run_taken "$guests"
}

# What has to do with filesystems, mounts, rights and pid 1, in the other guests, or in those with
# a part of their line.
variants() {
  local guests
  guests=$(guests_with "$(variant_guests)" "$@")
  # shellcheck disable=SC2034 # It is read elsewhere.
  opt[timeout]=3600
  prepare_stage
  take_programs "$kernel_crates" cli devices driven full image masks nested overlays project_quota \
    protection restrictions rootfs rootless rootless_masks rootless_volumes volumes
  take_e2e exec privileges
  run_taken "$guests"
  ! guests=$(grep -F -- '--init systemd' <<<"$guests") || try_systemd "$guests"
}

# What needs a systemd that starts containerd, in the guests that have one, or in those with a part of their line.
systemd() {
  local guests
  # shellcheck disable=SC2034 # It is read elsewhere.
  opt[timeout]=3600
  guests=$(guests_with "$(variant_guests)" --init systemd)
  [ $# = 0 ] || guests=$(guests_with "$guests" "$@")
  try_systemd "$guests"
}

try_systemd() {
  local bin suite=${e2e_suites%% *} store=${REAPER_CONTAINERD_DIR:-$root/target/containerd}
  bin=${REAPER_BIN_DIR:-$(echo "$(target)"/*-linux-*/release)}
  carry_programs "$bin"
  carry_containerd "$store/$suite" "$suite"
  payload+=("$lab/guest/systemd")
  in_guests "$1" bash "$lab/guest/systemd" "$bin" "$store/$suite/bin"
}

# Those lines of a list of guests that have a text in them.
guests_with() {
  local guests=$1
  shift
  [ "${1:-}" != -- ] || shift
  grep -F -- "$*" <<<"$guests" || die "no guest has $*: see tests/lab/matrix.sh"
}
