# Boots a guest, runs a command in it and takes over its output and status. To be sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `vm` and `lab` are folders, `opt` are the options.

# Files that the guest gets, at the same absolute paths.
payload=()
# Files that it gets, whose copies are below the folder `stage`.
staged=()
stage=
# Other disks: /dev/vdd and following.
drives=()
# Variables that the command gets.
variables=()

need_tools() {
  local tool
  for tool in qemu-system-x86_64 cpio busybox "$@"; do
    command -v "$tool" >/dev/null || die "no $tool on this machine: run tests/provision vm"
  done
}

# Checks what was asked for, before anything is started.
check_options() {
  need_tools
  need_kernel "${opt[kernel]}"
  one_of cgroups v2 v1 hybrid
  one_of root tmpfs ext4 xfs btrfs
  one_of propagation shared private
  one_of lsm apparmor selinux none
  one_of init minimal systemd
  [ "${opt[root]}" = tmpfs ] || need_root "${opt[root]}"
  need_root ext4
  if [ "${opt[root]}" = tmpfs ] && [ -n "${opt[disk]}" ]; then
    die '--disk: a root on a tmpfs is on no disk'
  fi
  if [ "${opt[read-only]}" = yes ] && [ "${opt[init]}" = systemd ]; then
    die '--read-only goes with --init minimal'
  fi
}

one_of() {
  local name=$1 value
  shift
  for value in "$@"; do [ "${opt[$name]}" != "$value" ] || return 0; done
  die "--$name ${opt[$name]}: $*"
}

# What the kernel is told.
kernel_command_line() {
  # On a busy machine the timer comes too late for the kernel's look whether it works, and it panics.
  local line='console=ttyS0 loglevel=5 panic=-1 net.ifnames=0 no_timer_check'
  case ${opt[lsm]} in
    apparmor) line+=' lsm=landlock,lockdown,yama,apparmor,bpf apparmor=1' ;;
    selinux) line+=' lsm=landlock,lockdown,yama,selinux,bpf selinux=1 enforcing=0' ;;
    none) line+=' lsm=landlock,lockdown,yama,bpf' ;;
  esac
  if [ "${opt[init]}" = systemd ]; then
    line+=' systemd.wants=lab.service systemd.mask=serial-getty@ttyS0.service systemd.show_status=0'
    case ${opt[cgroups]} in
      v2) line+=' systemd.unified_cgroup_hierarchy=1' ;;
      v1) line+=' systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1' ;;
      hybrid) line+=' systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0' ;;
    esac
  fi
  printf '%s\n' "$line"
}

# A second initramfs, which the kernel unpacks over that of its modules.
pack_init() {
  local dir=$1 name
  shift
  mkdir -p "$dir"/init/{bin,lab,proc,sys,dev,newroot,base}
  cp "$(command -v busybox)" "$dir/init/bin/busybox"
  install -m 755 "$lab/guest/init" "$dir/init/init"
  cp "$lab"/guest/{boot,power-cut,lab.service} "$dir/init/lab"
  for name in cgroups root propagation lsm init read-only userns; do
    printf '%s=%q\n' "lab_${name//-/_}" "${opt[$name]}"
  done >"$dir/init/lab/options"
  printf 'lab_disk=%q\n' "${opt[disk]:+yes}" >>"$dir/init/lab/options"
  {
    for name in "${variables[@]}"; do printf 'export %q\n' "$name"; done
    printf 'cd %q 2>/dev/null || cd /root\n' "$PWD"
    printf 'exec'
    printf ' %q' "$@"
    printf '\n'
  } >"$dir/init/lab/command"
  (cd "$dir/init" && find . | cpio --quiet -o -H newc) >"$dir/init.cpio"
  cat "$vm/kernels/${opt[kernel]}/early.cpio" "$dir/init.cpio" >"$dir/initrd"
}

# A file or program that is named in the command is there in the guest.
carry_command() {
  local word
  for word in "$@"; do
    case $word in
      /usr/* | /bin/* | /sbin/* | /lib* | /etc/* | /dev/* | /proc/* | /sys/* | /run/*) ;;
      */*) [ ! -f "$word" ] || payload+=("$(realpath -s "$word")") ;;
    esac
  done
}

pack_payload() {
  local target=$1 path
  for path in "${payload[@]}"; do
    [ -e "$path" ] || die "--file $path: there is no such file"
    printf '%s\0' "${path#/}"
  done | sort -zu | tar -cf "$target" -C / --no-unquote --null -T -
  [ ${#staged[@]} = 0 ] ||
    printf '%s\0' "${staged[@]#/}" | sort -zu | tar -rf "$target" -C "$stage" --no-unquote --null -T -
}

# Prints qemu's arguments, one a line.
machine() {
  local dir=$1 root index=3 drive
  root=$(root_image "${opt[root]/tmpfs/ext4}")
  # With a thread for each processor one runs what the kernel is patching while another one does, which
  # real processors never do: kernels crashed or hung, most of all in the page allocator, which is
  # patched with the first cpuset.
  printf '%s\n' -accel "${REAPER_VM_ACCEL:-tcg,thread=single}" -cpu max -smp 2 -m "${opt[memory]}" \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$vm/kernels/${opt[kernel]}/vmlinuz" -initrd "$dir/initrd" \
    -append "$(kernel_command_line)" \
    -serial "file:$dir/console" -device virtio-serial-pci \
    -chardev stdio,id=output,signal=off -device virtserialport,chardev=output \
    -chardev "file,id=status,path=$dir/status" -device virtserialport,chardev=status \
    -object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng
  if [ -n "${opt[disk]}" ]; then
    printf '%s\n' -drive "file=${opt[disk]},if=virtio,format=qcow2,cache=writeback"
  else
    printf '%s\n' -drive "file=$root,if=virtio,format=raw,snapshot=on,cache=unsafe"
  fi
  printf '%s\n' -drive "file=$dir/payload.tar,if=virtio,format=raw,readonly=on"
  printf '%s\n' -drive "file=$vm/kernels/${opt[kernel]}/modules.tar,if=virtio,format=raw,readonly=on"
  for drive in "${drives[@]}"; do
    printf '%s\n' -drive "file=$drive,if=virtio,format=raw,cache=unsafe,index=$((index++))"
  done
}

# Runs a command in a guest. The status is the command's, 124 when its time is over, and 125 when
# the guest ended by itself.
boot() {
  local dir status=0
  check_options
  need_disk
  dir=$(mktemp -d "$vm/run.XXXXXX")
  # shellcheck disable=SC2064 # This folder.
  trap "rm -rf '$dir'" EXIT
  pack_init "$dir" "$@"
  pack_payload "$dir/payload.tar"
  machine "$dir" >"$dir/machine"
  : >"$dir/status"
  run_machine "$dir" || status=$?
  if [ "${opt[console]}" = yes ]; then cat "$dir/console" >&2; fi
  if [ -s "$dir/status" ]; then
    status=$(cat "$dir/status")
  elif [ $status = 124 ] || [ $status = 137 ]; then
    explain "$dir" "the guest was ended after ${opt[timeout]} s"
    status=124
  else
    explain "$dir" 'the guest ended by itself'
    status=125
  fi
  rm -rf "$dir"
  trap - EXIT
  return "$status"
}

# One guest at a time has the machine for itself.
run_machine() (
  dir=$1
  mapfile -t arguments <"$dir/machine"
  # An input that ends would close the guest's output.
  mkfifo "$dir/input"
  exec 8>"$vm/.lock"
  flock --nonblock 8 || { say 'waiting for another guest to end' >&2; flock 8; }
  # Who kills the script means the guest, too.
  TMPDIR=$dir exec setpriv --pdeathsig TERM timeout --foreground -k 10 "${opt[timeout]}" \
    setpriv --pdeathsig TERM qemu-system-x86_64 "${arguments[@]}" <>"$dir/input"
)

explain() {
  printf '%s: %s; the last of its console:\n' "$me" "$2" >&2
  tail -n 30 "$1/console" >&2 || true
}

# A disk that outlives the guest starts as a copy of the root.
need_disk() {
  [ -n "${opt[disk]}" ] || return 0
  need_tools qemu-img
  [ -e "${opt[disk]}" ] || qemu-img create -q -f qcow2 -F raw \
    -b "$(root_image "${opt[root]}")" "${opt[disk]}"
}
