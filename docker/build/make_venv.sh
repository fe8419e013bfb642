#!/usr/bin/env bash
# Inside the build of docker/runtime.Dockerfile: make the environment /opt/phikit.  make_venv.sh "3.12 3.11"
#
# The argument lists the Pythons that will do, best first. One of the base's own is taken where it can make environments
# and has headers (torch.compile builds against them). Else conda, which Azure's bases bring, makes the first of them.
set -euo pipefail

readonly PYTHONS="$1"
readonly CA=/run/secrets/ca

# usable PYTHON VERSION: whether that program is that Python, with ensurepip and headers
usable() {
    "$1" - "$2" 2>/dev/null <<'END'
import ensurepip, os, sys, sysconfig

right_version = "%d.%d" % sys.version_info[:2] == sys.argv[1]
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
sys.exit(not (right_version and headers))
END
}

python=""
for version in $PYTHONS; do
    for candidate in "python$version" python3 /opt/miniconda/bin/python /opt/conda/bin/python; do
        if usable "$candidate" "$version"; then
            python="$candidate"
            break 2
        fi
    done
done

if [ -z "$python" ]; then
    PATH="$PATH:/opt/miniconda/bin:/opt/conda/bin"
    if ! command -v conda >/dev/null; then
        echo "the base image has no Python among $PYTHONS (with ensurepip and headers) and no conda to make one:" \
            "choose a BASE_IMAGE from docker/bases.yaml" >&2
        exit 1
    fi
    if [ -s "$CA" ]; then
        cat /etc/ssl/certs/ca-certificates.crt "$CA" >/run/phikit/ca.pem
        export SSL_CERT_FILE=/run/phikit/ca.pem REQUESTS_CA_BUNDLE=/run/phikit/ca.pem
    fi
    conda create --yes --quiet --prefix /opt/python --override-channels --channel conda-forge "python=${PYTHONS%% *}"
    conda clean --all --yes --quiet
    python=/opt/python/bin/python
fi

"$python" -m venv /opt/phikit
/opt/phikit/bin/python --version
