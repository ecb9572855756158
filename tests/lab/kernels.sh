# The laboratory's kernels: Debian's, by name. To be sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `vm` is the laboratory's folder.

# The names, each with its Debian suite and the package whose newest version it is. Debian's cloud
# kernels have all that is needed here, and are a fifth of the others' size.
kernel_table() {
  cat <<'TABLE'
5.10 bullseye linux-image-cloud-amd64
6.1 bookworm linux-image-cloud-amd64
6.12 trixie linux-image-cloud-amd64
6.16 trixie-backports linux-image-6.16.*-cloud-amd64
6.17 trixie-backports linux-image-6.17.*-cloud-amd64
6.18 trixie-backports linux-image-6.18.*-cloud-amd64
6.19 trixie-backports linux-image-6.19.*-cloud-amd64
7.0 trixie-backports linux-image-7.0.*-cloud-amd64
newest sid linux-image-cloud-amd64
TABLE
}

# Those that are always there; the others are for who asks for them.
# shellcheck disable=SC2034 # For tests/provision.
default_kernels='5.10 6.1 6.12 newest'

# What a guest needs before it has a root: its disks, and the filesystems of its root.
early_modules='virtio_pci virtio_blk virtio_console ext4 xfs btrfs'
# Where the modules are that a guest may load later. It has no hardware, and one network device.
module_folders='arch block crypto drivers/block/loop.ko* drivers/block/virtio_blk.ko* drivers/char drivers/md drivers/virtio
  fs/9p fs/autofs fs/btrfs fs/ext4 fs/fuse fs/jbd2 fs/mbcache.ko* fs/nls fs/overlayfs fs/quota fs/squashfs
  fs/xfs fs/binfmt_misc.ko* fs/erofs fs/netfs lib mm net/bridge net/ipv4 net/ipv6 net/netfilter net/unix
  net/llc net/802 security'

kernel_names() { kernel_table | cut -d' ' -f1; }

# Fails unless a kernel of that name is unpacked.
need_kernel() {
  local name=$1
  kernel_names | grep -qxF -- "$name" ||
    die "no kernel is called $name: $(kernel_names | paste -sd' ')"
  [ -e "$vm/kernels/$name/ready" ] || die "no kernel $name in $vm: run tests/provision vm $name"
}

# The first that is unpacked.
installed_kernel() {
  local name
  for name in $(kernel_names); do
    [ ! -e "$vm/kernels/$name/ready" ] || break
  done
  printf '%s\n' "$name"
}

kernel_release() { cat "$vm/kernels/$1/release"; }

# The packages of a kernel: newer ones are split, so what the first depends on is followed.
kernel_packages() {
  local apt=$1 pattern=$2 first
  first=$(private_apt apt-cache "$apt" pkgnames linux-image | grep -xE -- "${pattern//\*/[^-]*}" | sort -V | tail -n 1)
  [ -n "$first" ] || die "the mirror has no $pattern"
  private_apt apt-cache "$apt" depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances "$first" |
    grep -E '^linux-(base|image|binary|modules)-[^ ]*amd64$'
}

# What of a kernel is taken, so that one of an older list is not taken for it.
kernel_recipe() {
  printf '%s\n' "$early_modules" "$module_folders" | sha256sum | cut -c 1-12
}

unpack_kernel() {
  local name=$1 dir=$vm/kernels/$1 suite pattern package
  [ "$(cat "$dir/ready" 2>/dev/null)" != "$(kernel_recipe)" ] || return 0
  read -r _ suite pattern < <(kernel_table | grep -F -- "$name ")
  [ -n "${pattern:-}" ] || die "no kernel is called $name: $(kernel_names | paste -sd' ')"
  say "unpacking kernel $name"
  rm -rf "$dir"
  mkdir -p "$dir/root"
  apt_state "$dir/apt" "$suite"
  # shellcheck disable=SC2046 # Several packages.
  (cd "$dir/apt" && private_apt apt-get "$dir/apt" download $(kernel_packages "$dir/apt" "$pattern"))
  for package in "$dir"/apt/*.deb; do
    dpkg-deb -x "$package" "$dir/root"
  done
  lay_out_kernel "$dir"
  rm -rf "$dir/apt" "$dir/root"
  kernel_recipe >"$dir/ready"
}

# Makes what a guest is booted with of the files of a kernel's packages.
lay_out_kernel() {
  local dir=$1 release modules
  cp "$(find "$dir/root" -name 'vmlinuz*' -type f -print -quit)" "$dir/vmlinuz"
  modules=$(find "$dir/root" -type d -path '*/lib/modules/*' -name kernel -print -quit)
  release=$(basename "$(dirname "$modules")")
  printf '%s\n' "$release" >"$dir/release"
  mkdir -p "$dir/tree/lib/modules/$release/kernel"
  local entry path
  for entry in $module_folders; do
    # Not every kernel has each of them, or as a module.
    (cd "$modules/.." && shopt -s nullglob && for path in kernel/$entry; do
      [ ! -e "$path" ] || cp -a --parents "$path" "$dir/tree/lib/modules/$release"
    done)
  done
  cp "$modules"/../modules.{order,builtin*} "$dir/tree/lib/modules/$release"
  # The guest is slow at it.
  find "$dir/tree" -name '*.ko.xz' -exec xz -d {} +
  find "$dir/tree" -name '*.ko.zst' -exec zstd -q -d --rm {} +
  depmod -b "$dir/tree" "$release"
  early_kernel "$dir" "$release"
  tar --owner=0 --group=0 -cf "$dir/modules.tar" -C "$dir/tree" lib/modules
  rm -rf "$dir/tree"
}

# Packs the early modules, with a list for each of them of what is to be loaded for it.
early_kernel() {
  local dir=$1 release=$2 module file
  mkdir -p "$dir/early/modules"
  for module in $early_modules; do
    # One that is built in has none.
    { modprobe -d "$dir/tree" -S "$release" --show-depends "$module" 2>/dev/null || true; } |
      awk '$1 == "insmod" { print $2 }' | while read -r file; do
      cp "$file" "$dir/early/modules"
      basename "$file"
    done >"$dir/early/modules/$module.list"
  done
  (cd "$dir/early" && find . | cpio --quiet -o -H newc) >"$dir/early.cpio"
  rm -rf "$dir/early"
}
