#!/bin/sh
# Writes requirements.lock from pyproject.toml (runtime and dev), for every supported Python and platform.
# Pins already in the lock are kept where they still fit: `make lock` after adding a dependency,
# `make lock ARGS=--upgrade` for the newest of everything, `make lock ARGS="--upgrade-package rich"` for one.
set -eu
cd "$(dirname "$0")/.."

uv=${UV:-.venv/bin/uv}
new=requirements.lock.new
trap 'rm -f "$new" "$new.raw"' EXIT
[ ! -f requirements.lock ] || cp requirements.lock "$new.raw"
"$uv" pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-header \
    --custom-compile-command "make lock" --output-file "$new.raw" "$@" pyproject.toml

{
    cat <<'HEADER'
# Every package of .venv, pinned, for Linux and macOS and Python 3.11 to 3.14. Regenerate with `make lock`; do not edit.
# torch has no hashes and none of its GPU packages are here: scripts/setup.sh picks its CPU or GPU build (TORCH=cpu|gpu).
HEADER
    awk '/^[A-Za-z]/ { is_torch = /^torch==/; if (is_torch) { sub(/ *\\$/, ""); print; next } }
         !(is_torch && /--hash=/)' "$new.raw"
} >"$new"
mv "$new" requirements.lock
