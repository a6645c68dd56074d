#!/bin/sh
# Makes .venv: exactly the packages of requirements.lock, PyTorch for this machine, and semkey itself (editable).
# Does nothing, in well under a second, when .venv is already as the lock file wants it.
#
#   PYTHON=...   the interpreter to use (default: the first of python3, python3.14 ... python3.11 that is >= 3.11)
#   TORCH=cpu    CPU build of PyTorch (the default for a new .venv; about 200 MB)
#   TORCH=gpu    the CUDA build from PyPI (several GB). Later runs keep what .venv has until TORCH says otherwise.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'set-up: %s\n' "$*"; }
fail() {
    printf 'set-up: error: %s\n' "$*" >&2
    exit 1
}

venv=.venv
kind=${TORCH:-$(cat "$venv/semkey-torch" 2>/dev/null || echo cpu)}
case $kind in
    cpu | gpu) ;;
    *) fail "TORCH=$kind is unknown: use TORCH=cpu or TORCH=gpu" ;;
esac

# A virtual environment holds absolute paths, so the folder counts too. cksum is the one checksum POSIX promises.
wanted="$(cat requirements.lock scripts/setup.sh | cksum) torch=$kind in $(pwd)"
project=$(cksum <pyproject.toml)
is_current() { [ "$(cat "$venv/$1" 2>/dev/null || true)" = "$2" ]; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python >= 3.11 found (looked for ${PYTHON:-python3, python3.14 ... python3.11}): install one, or name it with PYTHON=/path/to/python3"
}

# Debian ships Python without ensurepip; its python3.X-venv package adds it.
require_venv_module() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing the Debian package $package (this Python lacks ensurepip)"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$package"; } \
            >/dev/null || fail "apt-get could not install $package: install it, then run this again"
        "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    fi
    fail "$1 cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install $package), then run this again"
}

# pip, as this machine has configured it (index, mirrors, find-links). Byte code is written by warm_up, where it is used.
pip_install() { "$venv/bin/python" -m pip --disable-pip-version-check install --no-compile $quiet "$@"; }

# PyPI never serves local versions, so asking for +cpu cannot bring in the CUDA build: either pip's own configuration
# offers a CPU build, or it comes from PyTorch's CPU index.
install_torch() {
    if [ "$kind" = gpu ] || [ "$(uname -s)" = Darwin ]; then
        # === compares the whole version, so a +cpu build that pip could also see does not count. PyPI's macOS build
        # is the CPU/MPS one.
        pip_install "torch===$torch"
    elif pip_install --no-deps "torch==$torch+cpu" >"$venv/pip-torch.log" 2>&1; then
        return
    else
        pip_install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu" || {
            tail -n 3 "$venv/pip-torch.log" >&2
            fail "no CPU build of torch $torch found: neither where pip looks nor in PyTorch's CPU index (network?)"
        }
    fi
}

# Importing what is used proves the installation and leaves its byte code behind; compiling all of torch takes longer.
warm_up() {
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" - <<'PYTHON'
import importlib

for name in (
    "cv2 evo.core.metrics evo.core.trajectory hypothesis kornia matplotlib.pyplot numpy poselib pytest rich.progress"
    " rich.table rich.traceback safetensors.torch scipy.ndimage scipy.optimize scipy.spatial skimage.data torch tqdm"
    " lightning_fabric torch.utils.tensorboard typer typer.rich_utils xdist yaml"
).split():
    importlib.import_module(name)
PYTHON
}

quiet=-qq # errors only; on a terminal pip shows its progress
[ ! -t 1 ] || quiet=

if ! is_current semkey-stamp "$wanted" || ! "$venv/bin/python" -c '' 2>/dev/null; then
    python=$(find_python)
    require_venv_module "$python"
    say "making $venv with $("$python" -V) at $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"

    # The lock names torch without hashes, because its builds differ per machine; everything else is verified.
    torch=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements.lock)
    awk '/^[A-Za-z]/ { is_torch = /^torch==/ } !is_torch' requirements.lock >"$venv/locked.txt"
    say "installing the packages of requirements.lock"
    pip_install --no-deps --require-hashes -r "$venv/locked.txt"
    say "installing torch $torch ($kind)"
    install_torch
    say "checking that everything imports"
    warm_up
    echo "$kind" >"$venv/semkey-torch"
    echo "$wanted" >"$venv/semkey-stamp"
fi

# Editable, built with the locked hatchling: nothing is downloaded, and edits under src/ need no new set-up.
if ! is_current semkey-project "$project"; then
    say "installing semkey (editable)"
    pip_install --no-deps --no-build-isolation --editable .
    echo "$project" >"$venv/semkey-project"
fi
