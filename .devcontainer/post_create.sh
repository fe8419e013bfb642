#!/usr/bin/env bash
# Once, in a new dev container: the command line and what the tests need, into the image's own environment; the Docker
# client, for the engine whose socket is mounted.  .devcontainer/post_create.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# the folder belongs to whoever it does outside
git config --global --get-all safe.directory | grep -qxF "$PWD" || git config --global --add safe.directory "$PWD"

if [ -s /run/phikit/ca.pem ]; then
    # besides the public ones, as in the image's build; for every later `make setup-...` too, in whichever environment
    bundle=/etc/ssl/phikit.pem
    cat /etc/ssl/certs/ca-certificates.crt /run/phikit/ca.pem >"$bundle"
    python -m pip config --global set global.cert "$bundle"
fi

if ! command -v docker >/dev/null && apt-get -q update; then
    # whatever this distribution has of the client: Ubuntu's and Debian's packages differ in their names
    for package in docker-cli docker.io docker-compose-v2 docker-compose docker-buildx; do
        command -v docker >/dev/null && case "$package" in docker-cli | docker.io) continue ;; esac
        apt-get -q install -y --no-install-recommends "$package" || true
    done
fi
make setup setup-train setup-test
make doctor || true
