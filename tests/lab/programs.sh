# The project's test programs in a guest. They are static, so they run there as they are. To be
# sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `vm`, `root` and `lab` are folders, `opt` are the options.

# The crates whose tests need a kernel.
kernel_crates='reaper-state reaper-overlay reaper-exec reaper-shim reaper-cli'

target() { printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"; }

# Builds the test programs, as tests/run does; prints crate, kind, name, folder and path of each.
build_tests() {
  # shellcheck disable=SC2016 # It is jq's.
  local programs='select(.reason == "compiler-artifact" and .executable)
    | [(.manifest_path | split("/")[-2]), (if .profile.test then "test" else .target.kind[0] end),
       (if (.target.kind[0] | test("lib")) then "unit" else .target.name end),
       (.manifest_path | rtrimstr("/Cargo.toml")), .executable] | @tsv'
  (cd "$root" && cargo test --no-run --quiet --locked --message-format=json "$@") | jq -r "$programs"
}

# Copies a program without what debuggers need, which is most of it, to where a payload is
# taken from; again only if it changed.
stage_program() {
  local program=$1 staged
  staged=$stage$program
  [ ! "$staged" -nt "$program" ] || return 0
  mkdir -p "${staged%/*}"
  strip --strip-debug -o "$staged" "$program"
}

# The files of the source tree: some tests read them.
carry_sources() {
  local file
  while IFS= read -rd '' file; do
    [ ! -e "$root/$file" ] || payload+=("$root/$file")
  done < <(git -C "$root" ls-files -z --cached --others --exclude-standard)
}

# Prints the lines of those programs of a list that are of the crates and of the wanted names, and
# stages them with the programs that they start.
choose_programs() {
  local list=$1 crates=$2 crate kind name folder program
  while IFS=$'\t' read -r crate kind name folder program; do
    [[ " $crates " == *" $crate "* ]] || continue
    if [ "$kind" = test ]; then
      [ ${#opt_tests[@]} = 0 ] || [[ " ${opt_tests[*]} " == *" $name "* ]] || continue
      printf '%s\t%s\t%s\n' "$crate/$name" "$folder" "$program"
    fi
    stage_program "$program"
    printf '%s\n' "$program" >>"$stage.wanted"
  done <"$list"
}

# Where the copies are, and lists.
prepare_stage() {
  stage=$(target)/vm-programs
  mkdir -p "$stage"
  : >"$stage.wanted"
}

# Runs the test programs of crates in a guest of each kernel and cgroup layout.
programs() {
  local crates=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [ -d "$root/$1" ] || die "no crate $1"
    crates+=("$1")
    shift
  done
  [ $# = 0 ] || shift
  prepare_stage
  build_tests --workspace --exclude reaper-tests >"$stage.list"
  choose_programs "$stage.list" "${crates[*]:-$kernel_crates}" >"$stage.chosen"
  [ -s "$stage.chosen" ] || die 'no test program is of these names'
  mapfile -t staged <"$stage.wanted"
  carry_sources
  payload+=("$stage.chosen" "$lab/guest/programs")
  in_each_guest bash "$lab/guest/programs" "$stage.chosen" "$@"
}

# The end-to-end tests, with a containerd in the guest: all, or those that are named.
e2e() {
  local suite store tests=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    tests+=("$1")
    shift
  done
  [ $# = 0 ] || shift
  [ ${#tests[@]} = 0 ] || opt_tests=("${tests[@]}")
  [ ${#opt_tests[@]} -gt 0 ] || opt_tests=("${guest_e2e[@]}")
  prepare_stage
  build_tests -p reaper-tests >"$stage.list"
  choose_programs "$stage.list" tests >"$stage.chosen"
  [ -s "$stage.chosen" ] || die 'no end-to-end test is of these names'
  mapfile -t staged <"$stage.wanted"
  carry_release
  store=${REAPER_CONTAINERD_DIR:-$root/target/containerd}
  for suite in $e2e_suites; do carry_containerd "$store/$suite" "$suite"; done
  carry_sources
  payload+=("$stage.chosen" "$lab/guest/programs")
  variables+=("REAPER_CONTAINERD_DIR=$store" "REAPER_SUITES=$e2e_suites")
  in_each_guest bash "$lab/guest/programs" "$stage.chosen" --test-threads=1 "$@"
}

# What needs no toolchain, no other machine and no page of the documentation.
guest_e2e=(
  containerd_restart crashes cri_pods ctr_run exec harness oci overlay start_failures streams terminals
)
e2e_suites=${REAPER_SUITES:-bookworm}

# The release build, where the end-to-end tests look for it.
carry_release() {
  local bin name
  bin=${REAPER_BIN_DIR:-$(dirname "$(dirname "$(dirname "$(head -n 1 "$stage.wanted")")")")/release}
  for name in containerd-shim-reaper-v2 reaper-runtime; do
    [ -x "$bin/$name" ] || die "no $bin/$name: run tests/run build"
    payload+=("$bin/$name")
  done
  variables+=("REAPER_BIN_DIR=$bin")
}

# A suite's containerd with its libraries, without the package's other files.
carry_containerd() {
  local dir=$1 suite=$2 library
  [ -e "$dir/ready" ] || die "no containerd of $suite: run REAPER_SUITES=$suite tests/provision"
  payload+=("$dir/bin")
  while IFS= read -rd '' library; do
    payload+=("$library")
  done < <(find "$dir/root" -name '*.so*' -print0)
}

# Runs a command in a guest of each kernel and cgroup layout that was asked for.
in_each_guest() {
  local kernels=${opt[kernel]//,/ } layouts=${opt[cgroups]//,/ } kernel cgroups status failed=()
  for kernel in $kernels; do
    for cgroups in $layouts; do
      opt[kernel]=$kernel opt[cgroups]=$cgroups
      # Not as a part of a condition: the first error is to end it.
      set +e
      (set -e; boot "$@")
      status=$?
      set -e
      [ $status = 0 ] || failed+=("$kernel with cgroups $cgroups")
    done
  done
  [ ${#failed[@]} = 0 ] || die "failed on $(IFS=,; printf '%s' "${failed[*]}")"
}
