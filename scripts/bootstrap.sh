#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The few lines that must run before cargo exists: finds or installs cargo, builds the runner into the
# cache and becomes it. Exit code 10 is the runner's own for setup (docs/runner.md).
set -eu

checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${NOLOCKS_CACHE:-$HOME/.cache/nolocks}
packages='cargo-web build-essential git'

# A git hook's would lead cargo's tests, and git, to the repository that it runs for.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_PREFIX

fail() {
	printf 'nolocks: %s\n' "$1" >&2
	exit 10
}

# As the runner does, but before a minute of cargo.
case $cache in
*[[:space:]:%\'\#\$]*)
	printf "nolocks: NOLOCKS_CACHE=%s: the kernel's build needs a path without blanks and without any of : %% ' # $\n" "$cache" >&2
	exit 2
	;;
esac

yes=${CI:-}
for arg in "$@"; do
	[ "$arg" = --yes ] && yes=true
done

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
	command -v apt-get >/dev/null || fail "$needed. This is no Debian machine, so install them by hand"
	[ "$(id -u)" = 0 ] || fail "$needed. As root: $line"
	echo "$needed; missing packages: $packages" >&2
	if [ "$yes" != true ]; then
		[ -t 0 ] || fail "nothing was installed (CI=true or YES=1 means yes); as root: $line"
		printf 'install them now with apt-get? [y/N] ' >&2
		read -r answer
		[ "$answer" = y ] || fail "nothing was installed; as root: $line"
	fi
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086
	{ apt-get update && apt-get install --yes --no-install-recommends $packages; } >&2 ||
		fail "apt-get failed (is the network there?): $line"
	find_cargo || fail "apt-get succeeded, and cargo 1.$wanted or newer is still needed$old"
fi

mkdir -p "$cache" || fail "cannot create $cache: set NOLOCKS_CACHE to a folder you may write"
# Checkouts share what is built here.
export CARGO NOLOCKS_CHECKOUT="$checkout"
"$CARGO" build --quiet --locked --manifest-path "$checkout/ci/Cargo.toml" --target-dir "$cache/runner" ||
	fail "cargo could not build the runner (is the network there, and room in $cache?)"
exec "$cache/runner/debug/nolocks-ci" "$@"
