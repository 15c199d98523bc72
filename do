#!/usr/bin/env bash
# What a newcomer can do on a fresh machine with Python 3.11 to 3.13, git and apt:
#
#   ./do demo      a simulated production line, the agent and a listener, live
#   ./do test      everything that must hold: style, types, tests
#
# and what developers do besides:
#
#   ./do prepare              what the tests need, without running them
#   ./do pytest [ARGUMENTS]   the tests alone
#   ./do pytest-tflite-runtime   the tests of models with the old TFLite runtime, on Python 3.11 and NumPy 1
#   ./do pytest-train         those that train networks; the first time this fetches 2 GB
#   ./do lint                 style and types alone
#   ./do docs                 render the documentation that comes from the code
#   ./do lock                 write requirements.lock anew from what pyproject.toml allows
#   ./do bench [ARGUMENTS]    side by side with the bare loop
#   ./do aarch64              the product on an emulated 64-bit Pi; root, half an hour
#   ./do clean                remove environments and caches
#
# PYTHON=… names another interpreter, VENV=… another folder for the environment.
set -euo pipefail
cd "$(dirname "$0")"
VENV=${VENV:-.venv}
TEST_NEEDS=(mosquitto socat libmodbus-dev gcc libc6-dev openssl procps systemd shellcheck)

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

# An environment of our own with the project and one extra in it; a second call costs nothing.
environment() {
    local extra=$1 stamp="$VENV/.installed-$1" python key
    python=${PYTHON:-$(.ci/find-python)}
    key=$(cat pyproject.toml requirements.lock 2>/dev/null | sha256sum | cut -d' ' -f1)-$("$python" -V)
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then return; fi
    echo "preparing $VENV with $("$python" -V); this takes a minute or two the first time"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then .ci/apt-needs python3-venv; fi
    if [ "$("$VENV/bin/python" -V 2>/dev/null)" != "$("$python" -V)" ]; then "$python" -m venv --clear "$VENV"; fi
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "${LOCK:-requirements.lock}" --editable ".[$extra]"
    echo "$key" >"$stamp"
}

lint() {
    environment dev
    "$VENV/bin/ruff" format --check .
    "$VENV/bin/ruff" check .
    "$VENV/bin/mypy"
}

prepare() {
    .ci/apt-needs "${TEST_NEEDS[@]}"
    environment dev
}

tests() {
    prepare
    local status=0 failed
    local ask=("$VENV/bin/python" -m pytest -o cache_dir="$VENV/.pytest_cache")
    "${ask[@]}" "$@" || status=$?
    if [ "$status" != 1 ] || [ -z "${CI:-}" ]; then return "$status"; fi
    # On a machine shared with others a real process may starve. Up to three are asked once more, by themselves, and stay
    # named in what is printed: one that passes now is unsteady and wants mending. More than three are no accident.
    failed=$("$VENV/bin/python" -c 'import json; print(len(json.load(open(0))))' <"$VENV/.pytest_cache/v/cache/lastfailed")
    if [ "$failed" -gt 3 ]; then return 1; fi
    echo "=== once more, by themselves: the $failed that failed"
    "${ask[@]}" --last-failed
}

# Where both runtimes are installed the successor is asked, so it goes. Nobody trains there.
tflite_runtime_tests() {
    local exact
    exact=$(mktemp)
    grep -vE '^(numpy|opencv-python-headless|ml_dtypes)==' requirements.lock >"$exact"
    LOCK=$exact environment dev,tflite-runtime
    rm "$exact"
    "$VENV/bin/python" -m pip uninstall --quiet --yes ai-edge-litert
    "$VENV/bin/python" -m pytest tests/models --ignore-glob='*/test_train*' "$@"
}

# No function stands before && or ||: there the shell passes over what fails inside it.
command=${1:-help}
shift || true
case $command in
    demo) environment demo; exec "$VENV/bin/edge-agent" demo "$@" ;;
    test) # all of it, also after something failed
        failed=0
        ./do lint || failed=1
        ./do pytest "$@" || failed=1
        exit "$failed"
        ;;
    prepare) prepare ;;
    pytest) tests "$@" ;;
    pytest-train) VENV=$VENV-train; environment train,dev; exec "$VENV/bin/python" -m pytest tests/models/test_train_*.py "$@" ;;
    pytest-tflite-runtime) tflite_runtime_tests "$@" ;;
    lint) lint ;;
    docs) environment dev; exec "$VENV/bin/python" -m edge_agent.reference --write "$@" ;;
    lock) exec .ci/lock "$@" ;;
    bench) environment dev; exec "$VENV/bin/python" -m bench "$@" ;;
    aarch64) exec .ci/aarch64 "$@" ;;
    clean) rm -rf .venv .venv-* build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis ;;
    help | -h | --help) usage ;;
    *) usage >&2 && exit 2 ;;
esac
