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
  local file count=${#payload[@]}
  # Another user may own the checkout, as in a workflow's container.
  git -c safe.directory="$(realpath "$root")" -C "$root" \
    ls-files -z --cached --others --exclude-standard >"$stage.files" ||
    die "git does not list the files of $root"
  while IFS= read -rd '' file; do
    [ ! -e "$root/$file" ] || payload+=("$root/$file")
  done <"$stage.files"
  [ ${#payload[@]} -gt "$count" ] || die "git knows no file of $root"
}

# Takes those test programs of a list that are of the crates and have one of the names, if any are
# given, with the programs that they start. Each gets the arguments.
choose_programs() {
  local list=$1 crates=$2 arguments=$3 crate kind name folder program
  shift 3
  while IFS=$'\t' read -r crate kind name folder program; do
    [[ " $crates " == *" $crate "* ]] || continue
    # Nothing starts the other programs of the end-to-end tests.
    [ "$crate/$kind" != tests/bin ] || continue
    if [ "$kind" = test ]; then
      # The programs of the crates have tests, too.
      [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
      printf '%s\t%s\t%s\t%s\n' "$crate/$name" "$folder" "$program" "$arguments" >>"$stage.chosen"
    fi
    stage_program "$program"
    staged+=("$program")
  done < <(sort "$list")
}

# Where the copies and lists are.
prepare_stage() {
  stage=$(target)/vm-programs
  mkdir -p "$stage"
  : >"$stage.chosen"
}

# Takes test programs of crates, all or those of some names.
take_programs() {
  local crates=$1
  shift
  build_tests --workspace --exclude reaper-tests >"$stage.list"
  choose_programs "$stage.list" "$crates" '' "$@"
}

# What tells nothing of a kernel, and takes the time of thousands of containers under emulation.
e2e_arguments='--test-threads=1 --skip thousands_of_sequential_execs'

# Takes end-to-end tests with a containerd. One test after another: each looks for all that it may
# have left behind.
take_e2e() {
  local suite store=${REAPER_CONTAINERD_DIR:-$root/target/containerd}
  build_tests -p reaper-tests >"$stage.list"
  choose_programs "$stage.list" tests "$e2e_arguments" "$@"
  carry_release
  for suite in $e2e_suites; do carry_containerd "$store/$suite" "$suite"; done
  variables+=("REAPER_CONTAINERD_DIR=$store" "REAPER_SUITES=$e2e_suites")
}

# Runs what was taken in the guests of a list.
run_taken() {
  local guests=$1
  shift
  [ -s "$stage.chosen" ] || die 'no test program is of these names'
  carry_sources
  payload+=("$stage.chosen" "$lab/guest/programs")
  in_guests "$guests" bash "$lab/guest/programs" "$stage.chosen" "$@"
}

# Divides what follows a part's options: names, and after a `--` what test programs get.
divide() {
  names=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    names+=("$1")
    shift
  done
  [ $# = 0 ] || shift
  arguments=("$@")
}

programs() {
  local names arguments crate
  divide "$@"
  for crate in "${names[@]}"; do
    [ -e "$root/$crate/Cargo.toml" ] || die "no crate $crate"
  done
  prepare_stage
  take_programs "${names[*]:-$kernel_crates}" "${opt_tests[@]}"
  run_taken "$(asked_guests)" "${arguments[@]}"
}

e2e() {
  local names arguments
  divide "$@"
  [ ${#names[@]} -gt 0 ] || names=("${guest_e2e[@]}")
  prepare_stage
  take_e2e "${names[@]}"
  run_taken "$(asked_guests)" "${arguments[@]}"
}

# What needs no toolchain, no other machine and no page of the documentation.
guest_e2e=(
  containerd_restart crashes cri_pods ctr_run exec harness limits monitor_cgroup oci overlay privileges
  start_failures streams terminals
)
e2e_suites=${REAPER_SUITES:-bookworm}

# The release build, where the end-to-end tests look for it.
carry_release() {
  local bin
  # A program is target/TRIPLE/PROFILE/deps/NAME-HASH.
  bin=$(head -n 1 "$stage.chosen" | cut -f 3)
  bin=${REAPER_BIN_DIR:-${bin%/*/*/*}/release}
  carry_programs "$bin"
  variables+=("REAPER_BIN_DIR=$bin")
}

carry_programs() {
  local bin=$1 name
  for name in containerd-shim-reaper-v2 reaper-runtime; do
    [ -x "$bin/$name" ] || die "no $bin/$name: run tests/run build"
    payload+=("$bin/$name")
  done
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

# The guests with each kernel and cgroup layout that was asked for.
asked_guests() {
  local kernel cgroups
  for kernel in ${opt[kernel]//,/ }; do
    for cgroups in ${opt[cgroups]//,/ }; do
      printf -- '--kernel %s --cgroups %s\n' "$kernel" "$cgroups"
    done
  done
}
