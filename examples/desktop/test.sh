#!/usr/bin/env bash
# Checks this package: it has a lock file and dependencies of its own. The tests open the window on a screen that nobody
# sees (Xvfb), with OpenGL in software (Mesa), and use a mouse and a keyboard (xdotool). Where these are missing they are
# installed, if this may be done here; if not, it exits with 77.
#
# `test.sh --screenshot` also renews the picture in the README.
set -euo pipefail
cd "$(dirname "$0")"

# The last ones are what the program loads when it runs.
PACKAGES='xvfb xdotool libgl1-mesa-dri libgl1 libegl1 libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0'

run() { printf '$ %s\n' "$*"; "$@"; }

if ! { command -v Xvfb && command -v xdotool; } > /dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "install Xvfb, xdotool and Mesa's software renderer first; for Debian: $PACKAGES" >&2
    exit 77
  fi
  run apt-get update -q
  # shellcheck disable=SC2086 # a list
  run env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $PACKAGES
fi

if [ "${1:-}" = --screenshot ]; then
  export SCREENSHOT="$PWD/screenshot.png"
fi
run cargo fmt --check
run cargo clippy --all-targets -- -D warnings
run cargo test --no-run
run timeout 10m cargo test
