#!/usr/bin/env bash
# Inside the build of docker/runtime.Dockerfile: install one lock into /opt/phikit.  install.sh LOCK [PIP OPTION...]
#
# The wheels of the build context `wheels` (/run/wheels) come first: where they are enough, no index is asked. Else pip
# asks PyPI and the index that the lock names; a private certificate authority given to the build is trusted besides
# those of the base.
set -euo pipefail

readonly LOCK="$1"
readonly CA=/run/secrets/ca
shift

if [ -s "$CA" ]; then
    cat /etc/ssl/certs/ca-certificates.crt "$CA" >/run/phikit/ca.pem
    export PIP_CERT=/run/phikit/ca.pem
fi
export PIP_CACHE_DIR=/var/cache/pip PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
install=(/opt/phikit/bin/pip install --quiet --find-links /run/wheels --require-hashes --requirement "$LOCK" "$@")
if "${install[@]}" --no-index 2>/dev/null; then
    echo "installed from the wheels at hand"
else
    "${install[@]}"
fi
