#!/usr/bin/env bash
# Write docker/{runtime,dev,azure,test,chat}.lock anew from pyproject.toml:  docker/lock.sh [--upgrade]  (make lock)
#
# Every version with the hashes of all its files, for every platform and Python 3.11 or newer. A version that is locked
# already stays unless pyproject.toml excludes it or --upgrade is given. torch is not in these: docker/torch-*.lock are
# written by hand, because their files lie on PyTorch's own index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly UV_VERSION="0.13.9"

tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet "uv==$UV_VERSION"

# compile OUTPUT ARGUMENT...: from PyPI alone, whatever index this machine is set to: the hashes are the public files'
compile() {
    local output="$1"
    shift
    env -u UV_DEFAULT_INDEX -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL \
        "$tools/venv/bin/uv" pip compile --quiet --config-file docker/torch-metadata.toml \
        --universal --python-version 3.11 --generate-hashes \
        --annotation-style line --custom-compile-command "make lock" --no-emit-package torch \
        --output-file "$output" "$@" >/dev/null
    echo "$output: $(grep -c '==' "$output") packages"
}

compile docker/runtime.lock --group pyproject.toml:runtime "$@"
# whatever two of them hold must be one version: `make test` installs them all into one environment
compile docker/dev.lock pyproject.toml --group pyproject.toml:dev --constraint docker/runtime.lock "$@"
both=(--constraint docker/runtime.lock --constraint docker/dev.lock)
compile docker/azure.lock --group pyproject.toml:azure "${both[@]}" "$@"
compile docker/test.lock --group pyproject.toml:test "${both[@]}" --constraint docker/azure.lock "$@"
# environments of their own, each locked by itself
compile docker/flow.lock --group pyproject.toml:flow "$@"
compile docker/chat.lock --group pyproject.toml:chat "$@"
compile docker/agent.lock --group pyproject.toml:agent "$@"

# the image says which lock it was made from
digest="$(sha256sum docker/runtime.lock | cut -c1-64)"
sed -i -E "s/(phikit\.runtime\.lock\.sha256)=\"[0-9a-f]{64}\"/\1=\"$digest\"/" docker/runtime.Dockerfile
