#!/usr/bin/env bash
# Builds peer-uwebsockets into the release folder of the workspace: peers/uwebsockets/build.sh
# The sources of uWebSockets and uSockets come out of a package of crates.io, which cargo fetches and checks against Cargo.lock;
# they are compiled here with the flags of their own makefiles, for epoll, without TLS and without compression.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"

for tool in cargo cc c++; do
    if ! command -v "$tool" >/dev/null; then
        echo "uwebsockets: missing: $tool. On Debian or Ubuntu: sudo apt-get install build-essential; Rust: https://rustup.rs" >&2
        exit 1
    fi
done
if ! cargo fetch --quiet --locked --manifest-path "$here/Cargo.toml"; then
    echo "uwebsockets: cannot fetch the package libuwebsockets-sys (no network, or no such package in the registry in use)." >&2
    echo "uwebsockets: the other peers need no download of their own: leave peer-uwebsockets out of --contestants." >&2
    exit 1
fi
# Paths out of cargo's JSON: no other tool is needed for that.
described() { cargo metadata --format-version 1 --locked --offline "$@"; }
package="$(described --manifest-path "$here/Cargo.toml" | grep -o '"manifest_path":"[^"]*/libuwebsockets-sys-[^"]*"' | cut -d'"' -f4)"
target="$(described --no-deps --manifest-path "$root/Cargo.toml" | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')"
sources="$(dirname "$package")/uWebSockets"
version="$(basename "$(dirname "$package")")"

work="$target/uwebsockets"
mkdir -p "$work" "$target/release"
flags=(-O3 -march=native -flto=auto -DLIBUS_NO_SSL -I"$sources/uSockets/src")
objects=()
for file in "$sources"/uSockets/src/*.c "$sources"/uSockets/src/eventing/epoll_kqueue.c; do
    object="$work/$(basename "$file" .c).o"
    cc -std=c11 "${flags[@]}" -c "$file" -o "$object"
    objects+=("$object")
done
c++ -std=c++20 "${flags[@]}" -Wall -Wextra -DUWS_NO_ZLIB -DSOURCES="\"$version\"" -I"$sources/src" \
    "$here/server.cpp" "${objects[@]}" -pthread -o "$work/peer-uwebsockets"
mv "$work/peer-uwebsockets" "$target/release/peer-uwebsockets"
echo "$target/release/peer-uwebsockets"
