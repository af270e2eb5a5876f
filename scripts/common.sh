# For the scripts beside it, which source it at the root of the repository.

# Where cargo builds.
target_folder() {
    cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Sets $work: a folder that goes when the script ends, and with it the worktree in $work/source, if one was added.
make_work_folder() {
    work="$(mktemp -d)"
    trap 'git worktree remove --force "$work/source" 2>/dev/null || true; rm -rf "$work"' EXIT
}

# What every suite needs, as arguments of cargo. One list for all scripts: with another one cargo
# would resolve other features and build everything again.
ringside=(-p server-uring -p server-tokio -p loadgen -p bench -p conformance)
