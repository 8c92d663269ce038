#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The few lines that must run before cargo exists: finds or installs cargo, builds the runner into the
# cache and becomes it. Exit codes 2 and 10 are the runner's own for usage and setup (docs/runner.md).
set -eu

# With it, cd may go elsewhere, and prints where it went.
unset CDPATH

# All that is kept of the environment: the machine, the terminal, the way to the network, who commits.
# Anything else (CARGO_BUILD_TARGET, KCFLAGS, POSIXLY_CORRECT, a git hook's GIT_DIR) would steer cargo, git
# or Kbuild, and no stamp would know. Messages are read, so they have to be in English.
kept='PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|EMAIL|CI|APT_CONFIG|XDG_CONFIG_HOME|NOLOCKS_.*
TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|CLICOLOR|CLICOLOR_FORCE
(https?|ftp|all|no)_proxy|(HTTPS?|FTP|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|(CURL|REQUESTS)_CA_BUNDLE|GIT_SSL_.*
PIP_.*|CARGO_(HOME|NET_.*|HTTP_.*|REGISTRY_.*|REGISTRIES_.*|SOURCE_.*)|RUSTUP_(HOME|TOOLCHAIN|DIST_SERVER)
GIT_(AUTHOR|COMMITTER)_.*|GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_.*|VALUE_.*)'
if [ "${NOLOCKS_CLEAN:-}" != 1 ]; then
	dropped=$(kept=$kept awk 'BEGIN {
		kept = ENVIRON["kept"]; gsub("\n", "|", kept)
		for (name in ENVIRON) if (name !~ "^(" kept ")$") print "--unset=" name
	}')
	# One word a line: a name may hold a blank.
	IFS='
'
	# shellcheck disable=SC2086
	exec env $dropped NOLOCKS_CLEAN=1 LC_ALL=C.UTF-8 sh "$0" "$@"
fi
unset NOLOCKS_CLEAN

fail() {
	printf 'nolocks: %s\n' "$2" >&2
	exit "$1"
}

# cron, systemd and some containers set none.
if [ -z "${HOME:-}" ]; then
	HOME=$(getent passwd "$(id -u)" | cut -d: -f6) || HOME=
	[ -n "$HOME" ] || fail 2 "set HOME, or NOLOCKS_CACHE and CARGO_HOME"
	export HOME
fi

# As the runner does, but before a minute of cargo.
checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${NOLOCKS_CACHE:-$HOME/.cache/nolocks}
case $cache in
*[[:space:]:%\'\#\$]*)
	fail 2 "NOLOCKS_CACHE=$cache: the kernel's build needs a path without blanks and without any of : % ' # $"
	;;
esac
case ${TMPDIR:=/tmp} in
/*) [ -d "$TMPDIR" ] && [ -w "$TMPDIR" ] ;;
*) false ;;
esac || fail 2 "TMPDIR=$TMPDIR: give the whole path of a folder that you may write, or unset it"

yes=${CI:-}
for arg in "$@"; do
	[ "$arg" = --yes ] && yes=true
done

packages='cargo-web build-essential git'
wanted=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"$/\1/p' "$checkout/ci/Cargo.toml")

# The first cargo that is new enough. Debian's may come after an older one on PATH.
find_cargo() {
	old=
	for CARGO in "$(command -v cargo)" /usr/bin/cargo; do
		version=$("$CARGO" --version 2>/dev/null) || continue
		minor=${version#cargo 1.}
		[ "${minor%%.*}" -ge "$wanted" ] 2>/dev/null && return
		old="; $CARGO is too old: $version"
	done
	return 1
}

if ! find_cargo || ! command -v cc >/dev/null || ! command -v git >/dev/null; then
	line="apt-get update && apt-get install --no-install-recommends $packages"
	needed="cargo 1.$wanted or newer, cc and git are needed$old"
	command -v apt-get >/dev/null || fail 10 "$needed. This is no Debian machine, so install them by hand"
	[ "$(id -u)" = 0 ] || fail 10 "$needed. As root: $line"
	echo "$needed; missing packages: $packages" >&2
	if [ "$yes" != true ]; then
		[ -t 0 ] || fail 10 "nothing was installed (CI=true or YES=1 means yes); as root: $line"
		printf 'install them now with apt-get? [y/N] ' >&2
		read -r answer
		[ "$answer" = y ] || fail 10 "nothing was installed; as root: $line"
	fi
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086
	{ apt-get update && apt-get install --yes --no-install-recommends $packages; } >&2 ||
		fail 10 "apt-get failed, and says above why: $line"
	find_cargo || fail 10 "apt-get succeeded, and cargo 1.$wanted or newer is still needed$old"
fi

mkdir -p "$cache/runner" || fail 10 "cannot create $cache: set NOLOCKS_CACHE to a folder you may write"
probe=$cache/runner/probe.$$
printf '#!/bin/sh\n' >"$probe" && chmod +x "$probe" || fail 10 "cannot write to $cache: set NOLOCKS_CACHE to another folder"
run=0
"$probe" 2>/dev/null || run=$?
rm -f "$probe"
[ "$run" = 0 ] || fail 10 "nothing can be run from $cache, which is mounted noexec: set NOLOCKS_CACHE to another folder"

# By name, because cargo's configuration may say that everything is built for another machine.
host=$("$CARGO" --version --verbose | sed -n 's/^host: //p')
runner=$cache/runner/$host/debug/nolocks-ci
cargo() {
	"$CARGO" "$@" --locked --manifest-path "$checkout/ci/Cargo.toml" --target "$host"
}
# Checkouts share what is built here.
export CARGO NOLOCKS_CHECKOUT="$checkout"
# Cargo builds if the last build was another checkout's, or of a file that is newer now.
from=$(cut -d: -f2- "$runner.d" 2>/dev/null) || from=
case $from in
# shellcheck disable=SC2086
*" $checkout/ci/build.rs"*) newer=$(find $from -newer "$runner" 2>&1) || : ;;
*) newer=all ;;
esac
quiet=--quiet
if [ -n "$newer" ]; then
	echo 'ci: building the runner ...' >&2
	# The first time takes minutes, and says what it does.
	[ -e "$runner" ] && [ ! -t 2 ] || quiet=
fi
cargo fetch $quiet >&2 || fail 10 "cargo could not fetch what the runner is built from (is the network there?)"
cargo build $quiet --offline --target-dir "$cache/runner" >&2 ||
	fail 10 "cargo could not build the runner in $cache, and says above why"
exec "$runner" "$@"
