# The one image: dev container, local trainer, scoring server, Azure job and endpoint.  docker compose build runtime
#
# It holds dependencies only, in an environment of its own (/opt/phikit); code is mounted or uploaded. compose.yaml
# names the build's inputs, docs/image.md explains them. Needs Docker Engine 23 or newer (BuildKit).

# docker/bases.yaml lists the bases that are known to work, with the Python and CUDA that each brings
ARG BASE_IMAGE=mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04:20260901.v1

# empty unless the build names another context `wheels`: a folder of files that pip takes before it asks an index
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS runtime
USER root
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# The Pythons that the torch lock has files for, best first. A base's own is taken where it can make environments and
# has headers (torch.compile builds against them); else conda, which Azure's bases bring, makes the first of the list.
ARG PYTHONS="3.12 3.11 3.13 3.14"
RUN --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit <<'END'
usable() {
    "$1" -c 'import ensurepip, os, sys, sysconfig
wanted = "%d.%d" % sys.version_info[:2] == sys.argv[1]
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
sys.exit(not (wanted and headers))' "$2" 2>/dev/null
}
python=""
for version in $PYTHONS; do
    for candidate in "python$version" python3 /opt/miniconda/bin/python /opt/conda/bin/python; do
        if usable "$candidate" "$version"; then python="$candidate"; break 2; fi
    done
done
if [ -z "$python" ]; then
    conda="$(command -v conda || ls /opt/miniconda/bin/conda /opt/conda/bin/conda 2>/dev/null | head -n 1 || true)"
    if [ -z "$conda" ]; then
        echo "the base has none of Python $PYTHONS (with ensurepip and headers) and no conda to make one" >&2
        exit 1
    fi
    if [ -s /run/secrets/ca ]; then
        cat /etc/ssl/certs/ca-certificates.crt /run/secrets/ca >/run/phikit/ca.pem
        export SSL_CERT_FILE=/run/phikit/ca.pem REQUESTS_CA_BUNDLE=/run/phikit/ca.pem
    fi
    "$conda" create --yes --quiet --prefix /opt/python --override-channels --channel conda-forge \
        "python=${PYTHONS%% *}"
    "$conda" clean --all --yes --quiet
    python=/opt/python/bin/python
fi
"$python" -m venv /opt/phikit
/opt/phikit/bin/python --version
END

ENV PATH=/opt/phikit/bin:${PATH} \
    VIRTUAL_ENV=/opt/phikit \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# torch first and by itself: the largest layer, and the one that changes least. A wheel from the context `wheels` is
# taken without asking any index.
ARG TORCH_LOCK=torch-cpu.lock
RUN --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    --mount=type=bind,from=wheels,target=/run/wheels --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,source=docker/${TORCH_LOCK},target=/run/torch.lock <<'END'
if [ -s /run/secrets/ca ]; then
    cat /etc/ssl/certs/ca-certificates.crt /run/secrets/ca >/run/phikit/ca.pem
    export PIP_CERT=/run/phikit/ca.pem
fi
export PIP_CACHE_DIR=/var/cache/pip PIP_ROOT_USER_ACTION=ignore
install=(pip install --progress-bar off --find-links /run/wheels --no-deps --require-hashes --requirement /run/torch.lock)
"${install[@]}" --no-index --quiet 2>/dev/null || "${install[@]}"
END

RUN --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    --mount=type=bind,from=wheels,target=/run/wheels --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,source=docker/runtime.lock,target=/run/runtime.lock <<'END'
if [ -s /run/secrets/ca ]; then
    cat /etc/ssl/certs/ca-certificates.crt /run/secrets/ca >/run/phikit/ca.pem
    export PIP_CERT=/run/phikit/ca.pem
fi
export PIP_CACHE_DIR=/var/cache/pip PIP_ROOT_USER_ACTION=ignore
pip install --progress-bar off --find-links /run/wheels --require-hashes --requirement /run/runtime.lock
pip check
END

# Any uid can run here: a home that everyone may write to, and a name that getpass finds without a passwd entry.
ENV HOME=/home/phikit \
    USER=phikit \
    LOGNAME=phikit \
    MPLBACKEND=Agg \
    PYTHONUNBUFFERED=1
RUN install -d -m 1777 "$HOME"
WORKDIR /phikit

# what it was made from; docker/lock.sh keeps the digest of docker/runtime.lock here, and a test holds it
ARG BASE_IMAGE
ARG TORCH_LOCK
LABEL org.opencontainers.image.title="phikit-runtime" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    phikit.torch.lock="${TORCH_LOCK}" \
    phikit.runtime.lock.sha256="60aec171d3108dc659e139e7b19cb756593d0c104ff1e22e858c68008d382f31"
CMD ["bash"]
