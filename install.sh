#!/usr/bin/env bash
# From a bare checkout to a working localllm: finds a Python, makes .venv, has the engine built
# (localllm/engine/build.py), installs the package. Knows nothing of llama.cpp itself.
# Works with bash 3.2, which macOS still ships.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: ./install.sh [options]

Makes the environment .venv beside this file with localllm and its engine, llama.cpp, in it.
The engine is built once (some minutes) and cached; run again, it changes only what must change.

  --backend NAME     auto (default), cpu, cuda, rocm, vulkan or metal
  --dev              install for development: editable, with the test tools
  --prebuilt         the maintainer's binary wheel instead of a build: no compiler is needed,
                     but it is the library only, so `localllm serve` will not run
  --wheelhouse DIR   no network: every package comes from the folder DIR (see below)
  --rebuild          build the engine even where a built one is at hand
  --python PROGRAM   the Python (3.10 or newer) to make .venv with
  -h, --help         this text

A wheelhouse is made on a machine with a network and the same system, Python and processor:
  pip download -d DIR . hatchling editables scikit-build-core cmake ninja pip
  (".[dev]" instead of "." for --dev)
With that the engine is built here, without a web UI. To bring a built one, add its wheel: copy
the .whl from the cache folder that `localllm engine status` names into DIR.

Environment: LOCALLLM_HOME (moves the cache), TMPDIR (where the engine is built),
CMAKE_BUILD_PARALLEL_LEVEL (compilers at a time), CMAKE_ARGS, CC and CXX (for the build).
USAGE
}

say() { printf 'localllm: %s\n' "$*" >&2; }

# die CODE SENTENCE [HINT]
die() {
    say "$2"
    if [ $# -gt 2 ]; then printf '\nhint: %s\n' "$3" >&2; fi
    exit "$1"
}

backend=auto dev=no prebuilt=no rebuild=no wheelhouse='' python=''
need_value() { if [ $# -lt 2 ] || [ -z "$2" ]; then die 2 "$1 needs a value" "./install.sh -h"; fi; }
while [ $# -gt 0 ]; do
    case $1 in
        --backend | --wheelhouse | --python) need_value "$@" ;;
    esac
    case $1 in
        --backend) backend=$2; shift ;;
        --backend=*) backend=${1#*=} ;;
        --wheelhouse) wheelhouse=$2; shift ;;
        --wheelhouse=*) wheelhouse=${1#*=} ;;
        --python) python=$2; shift ;;
        --python=*) python=${1#*=} ;;
        --dev) dev=yes ;;
        --prebuilt) prebuilt=yes ;;
        --rebuild) rebuild=yes ;;
        -h | --help) usage; exit 0 ;;
        *) die 2 "there is no option $1" "./install.sh -h" ;;
    esac
    shift
done
case $backend in
    auto | cpu | cuda | rocm | vulkan | metal) ;;
    *) die 2 "there is no backend $backend" "choose from auto, cpu, cuda, rocm, vulkan, metal" ;;
esac
if [ "$prebuilt" = yes ] && [ -n "$wheelhouse" ]; then
    die 2 "--prebuilt needs the network and --wheelhouse has none" \
        "put the binary wheel into the wheelhouse, and leave out --prebuilt"
fi
if [ -n "$wheelhouse" ]; then
    [ -d "$wheelhouse" ] || die 3 "the wheelhouse $wheelhouse is not a folder"
    wheelhouse=$(cd "$wheelhouse" && pwd)
fi
case $python in
    */*) python=$(cd "$(dirname "$python")" 2>/dev/null && pwd)/$(basename "$python") ;;
esac

caller=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"
# Another environment's settings must not reach into this one.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX

# ---- a Python that is new enough: only running it tells (a pyenv shim exists and fails) ----

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' </dev/null >/dev/null 2>&1
}
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

# install_line apt dnf zypper pacman apk brew: the line of the package manager that is here
install_line() {
    local sudo='sudo '
    if [ "$(id -u)" = 0 ]; then sudo=''; fi
    if command -v apt-get >/dev/null; then echo "${sudo}apt-get install $1"
    elif command -v dnf >/dev/null; then echo "${sudo}dnf install $2"
    elif command -v zypper >/dev/null; then echo "${sudo}zypper install $3"
    elif command -v pacman >/dev/null; then echo "${sudo}pacman -S $4"
    elif command -v apk >/dev/null; then echo "${sudo}apk add $5"
    elif command -v brew >/dev/null; then echo "brew install $6"
    else echo "see https://www.python.org/downloads/"
    fi
}

has_uv=no
if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then has_uv=yes; fi

find_python() {
    local name old=''
    path=''
    if [ -n "$python" ]; then
        path=$(command -v "$python") || die 3 "there is no program $python"
        is_new_enough "$path" && return
        old=$(version_of "$path") || die 9 "$python is not a Python that runs"
        die 9 "$python is Python $old, and localllm needs 3.10 or newer"
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
        path=$(command -v "$name") || continue
        is_new_enough "$path" && return
        [ -n "$old" ] || old=$(version_of "$path") || true
    done
    if [ $has_uv = yes ] && path=$(uv python find --no-project '>=3.10' 2>/dev/null) &&
        is_new_enough "$path"; then
        return
    fi
    path=''
    local hint
    if [ $has_uv = yes ]; then hint="uv python install 3.12"
    else hint=$(install_line "python3 python3-venv" python3.12 python312 python python3 python@3.12)
    fi
    if [ -n "$old" ]; then
        die 9 "localllm needs Python 3.10 or newer, and the one here is $old" \
            "$hint    (or name another one: ./install.sh --python PROGRAM)"
    fi
    die 9 "localllm needs Python 3.10 or newer, and there is none here" "$hint"
}

# ---- the environment ----

bin=bin
case $(uname -s) in
    MINGW* | MSYS* | CYGWIN*) bin=Scripts ;;
esac
venv=.venv
made_with='kept'

make_environment() {
    find_python
    local found=$path how
    if [ $has_uv = yes ] && [ -z "$wheelhouse" ]; then
        # --seed brings pip: the engine is built by `pip wheel`, which uv has no word for.
        if how=$(uv venv --quiet --no-project --seed --python "$found" "$venv" 2>&1); then
            made_with='made with uv'
            return
        fi
        say "uv could not make the environment ($(printf '%s' "$how" | grep . | tail -n 1 | sed 's|^ *||')): trying without it"
        rm -rf "$venv"
    fi
    if ! "$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        local minor
        minor=$("$found" -c 'import sys; print("3.%d" % sys.version_info[1])')
        die 9 "the Python at $found has no venv module" \
            "$(install_line "python$minor-venv" "python$minor" "python$minor" python py3-pip "python@$minor")"
    fi
    if ! how=$("$found" -m venv "$venv" 2>&1); then
        rm -rf "$venv"
        die 9 "$found could not make an environment: $(printf '%s' "$how" | grep . | tail -n 1)"
    fi
    made_with='made with venv'
}

env_python=$root/$venv/$bin/python
if [ -e "$venv" ]; then
    if [ ! -f "$venv/pyvenv.cfg" ]; then
        die 9 "$root/$venv is there and is not a Python environment" "move it away, and run this again"
    fi
    if ! is_new_enough "$env_python"; then
        say "the environment $venv has no Python that works any more: it is made again"
        rm -rf "$venv"
    elif [ "$(cat "$venv/localllm-root" 2>/dev/null || echo "$root")" != "$root" ]; then
        # Its programs name the Python of the place where it was made.
        say "the environment $venv was made in another folder: it is made again"
        rm -rf "$venv"
    elif [ -n "$python" ]; then
        find_python
        if [ "$(version_of "$path")" != "$(version_of "$env_python")" ]; then
            die 9 "$venv has Python $(version_of "$env_python"), not $(version_of "$path")" \
                "rm -r $(printf '%q' "$root/$venv"), and run this again"
        fi
    fi
fi
[ -e "$venv" ] || make_environment
printf '%s\n' "$root" >"$venv/localllm-root"
base=$("$env_python" -c 'import os, sys
print(os.path.realpath(sys.executable))')
say "Python $(version_of "$env_python") at $base, environment $venv ($made_with)"

# ---- the engine ----

set -- install --backend "$backend"
if [ "$prebuilt" = yes ]; then set -- "$@" --prebuilt; fi
if [ "$rebuild" = yes ]; then set -- "$@" --rebuild; fi
if [ -n "$wheelhouse" ]; then set -- "$@" --wheelhouse "$wheelhouse"; fi
"$env_python" -m localllm.engine.build "$@"

# ---- the package ----

fingerprint() {
    # What is not there (find complains of it) counts, too: by its absence.
    { find "$@" -type f ! -name '*.pyc' -exec cksum {} + 2>/dev/null || true; } | LC_ALL=C sort | cksum
}

# quietly WHAT LOG COMMAND...: the output into the log, a word every 15 seconds
quietly() {
    local what=$1 log=$2 waited=0 child
    shift 2
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    trap 'kill "$child" 2>/dev/null; wait "$child" 2>/dev/null; say interrupted; exit 130' INT TERM HUP
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        if [ $((waited % 75)) -eq 0 ]; then say "$what, $((waited / 5)) s"; fi
    done
    trap - INT TERM HUP
    wait "$child"
}

stamp=$venv/localllm-install
mode=plain
if [ "$dev" = yes ]; then mode=dev; fi
had=$(head -n 1 "$stamp" 2>/dev/null || true)
if [ "$mode" = plain ] && [ "${had%% *}" = dev ]; then
    mode=dev # it has all that a plain one has, and is this very checkout
fi
if [ "$mode" = dev ]; then
    # An editable installation is the checkout itself; only what pip read matters.
    want="dev $(fingerprint pyproject.toml localllm/__init__.py)"
else
    want="plain $(fingerprint localllm profiles pyproject.toml README.md LICENSE)"
fi
if [ "$had" = "$want" ] && [ -x "$venv/$bin/localllm" ]; then
    say "localllm is here already, and nothing in the checkout has changed"
else
    what="installing localllm and what it needs"
    if [ "$mode" = dev ]; then what="$what, for development"; fi
    say "$what"
    rm -f "$stamp"
    log=$venv/install.log
    if [ "$mode" = dev ]; then set -- -e '.[dev]'; else set -- .; fi
    if [ -n "$wheelhouse" ]; then set -- --no-index --find-links "$wheelhouse" "$@"; fi
    done=no
    if [ $has_uv = yes ]; then
        if quietly "$what" "$log" uv pip install --python "$env_python" \
            --reinstall-package localllm "$@"; then
            done=yes
        else
            say "uv could not ($(grep . "$log" | tail -n 1 | cut -c 1-160 | sed 's|^ *||')): trying pip"
        fi
    fi
    # Given a folder, pip installs it anew even where the same version is installed.
    if [ $done = no ] && ! quietly "$what" "$log" \
        "$env_python" -m pip install --progress-bar off "$@"; then
        grep -E 'ERROR|error:' "$log" | head -n 5 | sed 's/^/  /' >&2 || true
        die 9 "localllm could not be installed; the whole log is $root/$log" \
            "check the network, or use --wheelhouse DIR (see ./install.sh -h)"
    fi
    printf '%s\n' "$want" >"$stamp"
fi

program=$venv/$bin/localllm
if [ "$caller" != "$root" ]; then program=$root/$program; fi
if [ "$mode" = dev ]; then
    say "done. Try: $(printf '%q' "$program") chat demo, or run the tests: $(printf '%q' "${program%localllm}pytest")"
else
    say "done. Try: $(printf '%q' "$program") chat demo"
fi
