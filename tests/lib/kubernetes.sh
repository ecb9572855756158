# A Kubernetes for the tests: what a node and its control plane run, in a folder. To be sourced, by
# tests/provision, after debian.sh.
# shellcheck shell=bash

# The suite whose Kubernetes it is. Later ones have the client alone.
kubernetes_suite=bookworm

# What the package's build and the cluster need of this machine.
kubernetes_packages=(dpkg-dev jq make openssl rsync)

# The programs that are built; etcd and kubectl are there as packages.
kubernetes_programs=(
  cmd/kubelet cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kube-proxy
)

provision_kubernetes() {
  local dir=$1
  mkdir -p "$dir"
  exec 6>"$dir/.provision"
  flock 6
  install_packages "${kubernetes_packages[@]}"
  # One that was built otherwise is built anew.
  local made="$kubernetes_suite ${kubernetes_programs[*]}"
  [ "$(cat "$dir/ready" 2>/dev/null)" != "$made" ] || return 0
  rm -rf "${dir:?}"/{bin,build}
  mkdir -p "$dir"/{bin,build}
  fetch_kubernetes "$dir/build"
  speak_newer_cri "$dir/build/source"
  say 'building Kubernetes, which takes minutes'
  build_kubernetes "$dir/build" >"$dir/build.log" 2>&1 || {
    tail -n 40 "$dir/build.log" >&2
    die "Kubernetes was not built: all of it is in $dir/build.log"
  }
  local program
  for program in "${kubernetes_programs[@]}"; do
    cp "$dir/build/source/_output/bin/${program##*/}" "$dir/bin"
  done
  cp "$dir"/build/packages/usr/bin/{etcd,kubectl} "$dir/bin"
  rm -rf "$dir/build"
  "$dir/bin/kubelet" --version
  printf '%s\n' "$made" >"$dir/ready"
}

# Downloads the source, and unpacks it and the packages beside this machine's own.
fetch_kubernetes() {
  local dir=$1 packages=(golang-1.19-go golang-1.19-src etcd-server kubernetes-client) package
  apt_state "$dir/apt" "$kubernetes_suite"
  sed -i 's/^Types: deb$/Types: deb deb-src/' "$dir/apt/suite.sources"
  private_apt apt-get "$dir/apt" update
  # Not what they depend on: they are programs of one file, or bring all of it.
  (cd "$dir" && private_apt apt-get "$dir/apt" download "${packages[@]}")
  (cd "$dir" && private_apt apt-get "$dir/apt" --download-only source kubernetes)
  for package in "${packages[@]}"; do
    dpkg-deb -x "$dir/$package"_*.deb "$dir/packages"
  done
  dpkg-source --no-copy -x "$dir"/kubernetes_*.dsc "$dir/source"
}

# Has the kubelet ask for the CRI by its later name. The messages are the same; containerd 1.6 and 1.7 serve
# both, 2.x that one alone.
speak_newer_cri() {
  local file=$1/staging/src/k8s.io/cri-api/pkg/apis/runtime/v1alpha2/api.pb.go
  sed -i 's|"/runtime\.v1alpha2\.|"/runtime.v1.|; s|\(ServiceName: "runtime\.\)v1alpha2\.|\1v1.|' "$file"
  grep -q '"/runtime\.v1\.' "$file" || die 'the names of the CRI are not where they were'
}

# Runs those parts of the package's own build that make the programs, without what no test uses: the
# clouds and the runtime docker. The source brings its dependencies, so nothing is fetched.
build_kubernetes() (
  local dir=$1
  local go=$dir/packages/usr/lib/go-1.19
  cd "$dir/source" || exit
  mkdir -p "$dir"/{home,cache,tmp} .go/src/k8s.io
  ln -sfn ../../.. .go/src/k8s.io/kubernetes
  export GOROOT=$go PATH=$go/bin:$PATH GOPATH=$PWD/.go GOCACHE=$dir/cache HOME=$dir/home TMPDIR=$dir/tmp
  export GO111MODULE=off GOPROXY=off GOSUMDB=off GOFLAGS=-tags=providerless,dockerless CGO_ENABLED=0
  export KUBE_BUILD_PLATFORMS=
  nice -n 5 make gen_openapi &&
    nice -n 5 hack/make-rules/build.sh "${kubernetes_programs[@]}"
)
