# What the scripts of this folder share: Debian's packages, with nothing of this machine's apt
# touched. To be sourced.
# shellcheck shell=bash

# The part of a script's name that is before its messages.
me=${0##*/}

say() { printf '%s: %s\n' "$me" "$*"; }
die() { printf '%s: %s\n' "$me" "$*" >&2; exit 1; }

# Installs those of the packages that this machine lacks.
install_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  apt-get -q update
  # Services that packages bring would be no part of a test; a policy keeps them from starting.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"
  [ -z "$made" ] || rm -f "$policy"
}

# The Debian mirror of this machine, so that a private one is used where there is one.
mirror() {
  if [ -n "${REAPER_DEBIAN_MIRROR:-}" ]; then
    printf '%s\n' "$REAPER_DEBIAN_MIRROR"
    return
  fi
  local codename uri
  codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
  uri=$({
    { cat /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } | awk -v suite="$codename" '
      BEGIN { RS = ""; FS = "\n" }
      { uri = ""; match_suite = 0
        for (i = 1; i <= NF; i++) {
          if ($i ~ /^URIs:/) { split($i, part, /[ \t]+/); uri = part[2] }
          if ($i ~ /^Suites:/ && (" " $i " ") ~ (" " suite " ")) match_suite = 1
        }
        if (match_suite && uri != "") print uri }'
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | awk -v suite="$codename" '
      $1 == "deb" { gsub(/\[[^]]*\]/, ""); if ($3 == suite) print $2 }'
  } | head -n 1)
  [ -n "$uri" ] || die 'no Debian mirror in /etc/apt/sources*: name one in REAPER_DEBIAN_MIRROR'
  printf '%s\n' "$uri"
}

# An apt state of its own in a folder, for the suites that are named.
apt_state() {
  local dir=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg uri
  shift
  uri=$(mirror)
  mkdir -p "$dir"/{state/lists/partial,cache/archives/partial}
  : >"$dir/status"
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$*"
    [ ! -e "$keyring" ] || printf 'Signed-By: %s\n' "$keyring"
  } >"$dir/suite.sources"
  private_apt apt-get "$dir" update
}

# Runs a program of apt on such a state.
private_apt() {
  local program=$1 dir=$2
  shift 2
  "$program" -q \
    -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" \
    -o Dir::Cache="$dir/cache" -o Dir::Etc::sourcelist="$dir/suite.sources" \
    -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o APT::Keep-Downloaded-Packages=true -o APT::Install-Recommends=false "$@"
}
