# The guest's root: a small Debian on disk images. To be sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `vm` is the laboratory's folder.

root_suite=bookworm
# What the tests start, and what a node of Debian has.
root_packages=(
  apparmor btrfs-progs busybox-static ca-certificates conmon crun dbus e2fsprogs fish iproute2 jq
  kmod login passwd podman policycoreutils procps runc selinux-policy-default strace systemd
  systemd-sysv util-linux xfsprogs zsh
)
# What no test reads.
root_without=(
  '/usr/lib/cni/*' '/usr/share/doc/*' '/usr/share/info/*'
  '/usr/share/locale/*' '/usr/share/man/*' '/usr/share/zoneinfo/*'
)
root_size=6G

# What the root is made of, so that one of an older list is not taken for it.
root_recipe() {
  { declare -p root_suite root_packages root_without root_size; declare -f furnish_root label_root; } |
    sha256sum | cut -c 1-12
}

root_image() { printf '%s/root/%s-%s.img\n' "$vm" "$1" "$(root_recipe)"; }

need_root() {
  [ -e "$(root_image "$1")" ] || die "no root on $1 in $vm: run tests/provision vm"
}

# Makes the root on ext4; the kernel is not needed for that.
make_root() {
  local image dir=$vm/root options=() path
  image=$(root_image ext4)
  [ ! -e "$image" ] || return 0
  say "making the guest's root"
  # Of a run that was interrupted, and roots of other lists.
  rm -rf "$dir/tree" "$dir"/*.img "$dir"/*.img.new
  mkdir -p "$dir"
  for path in "${root_without[@]}"; do options+=("--dpkgopt=path-exclude=$path"); done
  mmdebstrap --quiet --mode=root --variant=minbase --format=directory "${options[@]}" \
    --include="$(IFS=,; printf '%s' "${root_packages[*]}")" \
    "$root_suite" "$dir/tree" "deb $(mirror) $root_suite main"
  furnish_root "$dir/tree"
  label_root "$dir/tree"
  # Features that came after the oldest kernel are left out.
  mke2fs -q -t ext4 -O '^orphan_file,^metadata_csum_seed' -d "$dir/tree" "$image.new" "$root_size"
  rm -rf "$dir/tree"
  mv "$image.new" "$image"
}

# What a node has besides packages.
furnish_root() {
  local root=$1
  printf 'lab\n' >"$root/etc/hostname"
  printf '127.0.0.1 localhost lab\n::1 localhost\n' >"$root/etc/hosts"
  printf '5f1a0c2e8d3b4a6f9e7c1d2b3a495867\n' >"$root/etc/machine-id"
  : >"$root/etc/fstab"
  mkdir -p "$root/etc/kubernetes/pki"
  printf 'apiVersion: v1\nkind: Config\n' >"$root/etc/kubernetes/kubelet.conf"
  printf 'not a key\n' >"$root/etc/kubernetes/pki/ca.key"
  chmod 600 "$root"/etc/kubernetes/kubelet.conf "$root/etc/kubernetes/pki/ca.key"
  printf 'user:x:1000:1000::/home/user:/bin/bash\n' >>"$root/etc/passwd"
  printf 'user:!:19000::::::\n' >>"$root/etc/shadow"
  printf 'user:x:1000:\n' >>"$root/etc/group"
  printf 'user:100000:65536\n' | tee "$root/etc/subuid" >"$root/etc/subgid"
  install -d -o 1000 -g 1000 "$root/home/user"
}

# Gives all files the labels of SELinux's policy. /proc is needed for that, in a mount namespace.
label_root() {
  local contexts=/etc/selinux/default/contexts/files/file_contexts
  # shellcheck disable=SC2016 # They are the shell's inside.
  unshare --mount --propagation private \
    sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" setfiles -F "$2" /' label "$1" $contexts
}

# Makes the same root on another filesystem, in a guest: no mount of this machine is needed.
copy_root() {
  local filesystem=$1 image
  image=$(root_image "$filesystem")
  [ ! -e "$image" ] || return 0
  say "making the guest's root on $filesystem"
  rm -f "$image.new"
  truncate -s "$root_size" "$image.new"
  # The oldest kernel: none of its features is too new for another.
  "$lab/../vm" --kernel "$(installed_kernel)" --drive "$image.new" -- \
    bash -c "mkfs.$filesystem -q /dev/vdd && mount /dev/vdd /mnt && mkdir /tmp/root &&
      mount --bind / /tmp/root && cp -a /tmp/root/. /mnt && rm -rf /mnt/lib/modules/* &&
      umount /mnt"
  mv "$image.new" "$image"
}
