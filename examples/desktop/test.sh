#!/usr/bin/env bash
# Checks this package: it has a lock file and dependencies of its own. The tests open the window on a screen that nobody
# sees (Xvfb), with OpenGL in software (Mesa), and use a mouse and a keyboard (xdotool). Where these are missing they are
# installed, if this may be done here; if not, it exits with 77.
#
# `test.sh --screenshot` also renews the pictures in the README.
set -euo pipefail
cd "$(dirname "$0")"

# The fonts have the letters of Arabic, Hebrew, Chinese and Japanese; the last ones are what the program loads when it
# runs.
PACKAGES='xvfb xdotool fontconfig fonts-dejavu-core fonts-droid-fallback libgl1-mesa-dri libgl1 libegl1 libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0'

run() { printf '$ %s\n' "$*"; "$@"; }

has_fonts() { [ -n "$(fc-list :lang=zh)" ] && [ -n "$(fc-list :lang=ar)" ]; }

if ! { command -v Xvfb && command -v xdotool && has_fonts; } > /dev/null 2>&1; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "install Xvfb, xdotool, Mesa's software renderer and fonts first; for Debian: $PACKAGES" >&2
    exit 77
  fi
  run apt-get update -q
  # shellcheck disable=SC2086 # a list
  run env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $PACKAGES
fi

run cargo fmt --check
run cargo clippy --all-targets -- -D warnings
run cargo test --no-run
run timeout 10m cargo test
if [ "${1:-}" = --screenshot ]; then
  run cargo test -- --ignored pictures
fi
