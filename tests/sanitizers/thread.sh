#!/usr/bin/env bash
# Runs the behaviour tests (or those that the arguments name, as for `cargo test`) under ThreadSanitizer, which reports data
# races. First it looks whether a race that is there on purpose is found. It takes some ten times as long as the tests do, so
# it runs weekly and not in `.ci/run`.
#
# Needs Linux on x86-64 and the standard library's source, as all code has to be compiled for the sanitizer:
# - `rustup toolchain install nightly --component rust-src`, or
# - on Debian, what `.ci/other-systems macos` has left in target/other (Rust, and zig for its linker); the sanitizer itself
#   comes from libclang-rt-N-dev.
set -euo pipefail
cd "$(dirname "$0")/../.."

TARGET=x86_64-unknown-linux-gnu
DEBIAN=$({ find "$PWD"/target/other/rust-*/usr -maxdepth 0 2> /dev/null || true; } | sort -V | tail -n 1)
export CARGO_TARGET_DIR=$PWD/target/sanitizers CARGO_INCREMENTAL=0 RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zsanitizer=thread' RUSTDOCFLAGS='-Zsanitizer=thread'
# A report ends with this code, at the end of all tests.
export TSAN_OPTIONS="exitcode=66 ${TSAN_OPTIONS:-}"
# To name the lines of a panic takes so long there that tests of panics run out of time.
export RUST_BACKTRACE=0

if [ -d "$(rustc +nightly --print sysroot 2> /dev/null)/lib/rustlib/src/rust/library" ]; then
  cargo=(cargo +nightly)
elif [ -x "$DEBIAN/bin/cargo" ]; then
  cargo=("$DEBIAN/bin/cargo")
  export RUSTC=$DEBIAN/bin/rustc RUSTDOC=$DEBIAN/bin/rustdoc LD_LIBRARY_PATH=$DEBIAN/lib/x86_64-linux-gnu
  llvm=$("$RUSTC" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  runtime=$PWD/target/other/clang-rt
  library=$runtime/usr/lib/llvm-$llvm/lib/clang/$llvm/lib/linux
  if [ ! -d "$library" ]; then
    mkdir -p "$runtime"
    (cd "$runtime" && apt-get download --quiet=2 -o APT::Sandbox::User=root "libclang-rt-$llvm-dev" && dpkg -x ./*.deb . && rm ./*.deb)
  fi
  tsan=$library/libclang_rt.tsan-x86_64.a
  RUSTFLAGS+=" -Zexternal-clangrt -Clink-arg=-Wl,--whole-archive -Clink-arg=$tsan -Clink-arg=-Wl,--no-whole-archive"
  # What the archive needs comes after it; its references to `tmpnam@@GLIBC_2.2.5` are none for the GNU linker.
  RUSTFLAGS+=" -Clink-arg=-Wl,--export-dynamic -Clink-arg=-lm -Clink-arg=-lc -Clink-arg=-fuse-ld=lld -Clink-arg=-B$runtime"
  printf '#!/bin/sh\nexec "%s" -m ziglang ld.lld "$@"\n' "$PWD/target/other/zig/bin/python" > "$runtime/ld.lld"
  chmod +x "$runtime/ld.lld"
else
  echo 'there is no Rust with the source of its standard library: see the top of this file' >&2
  exit 1
fi

# A race that is to be found.
race=target/sanitizers/race
mkdir -p "$race/src"
cat > "$race/Cargo.toml" << 'END'
[package]
name = "race"
edition = "2024"
[workspace]
END
cat > "$race/src/main.rs" << 'END'
static mut COUNT: u32 = 0;

fn main() {
    let add = || (0..1000).for_each(|_| unsafe { COUNT += 1 });
    let other = std::thread::spawn(add);
    add();
    other.join().unwrap();
}
END
status=0
"${cargo[@]}" run --quiet -Z build-std --target $TARGET --manifest-path "$race/Cargo.toml" > "$race/log" 2>&1 || status=$?
if [ $status != 66 ] || ! grep -q 'WARNING: ThreadSanitizer: data race' "$race/log"; then
  cat "$race/log"
  echo 'FAILED: the sanitizer does not find a race that is there on purpose' >&2
  exit 1
fi
echo 'a race that is there on purpose is found'

[ $# != 0 ] || set -- --test it
exec "${cargo[@]}" test -Z build-std --target $TARGET "$@"
