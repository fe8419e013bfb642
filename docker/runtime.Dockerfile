# The one image: dev container, local trainer, scoring server, Azure job and endpoint.  docker compose build runtime
#
# It holds dependencies only, in an environment of its own (/opt/phikit); code is mounted or uploaded. compose.yaml
# names the build's inputs, docs/image.md explains them. Needs Docker Engine 23 or newer (BuildKit).

# docker/bases.yaml lists the bases that this is meant for, with the Python and CUDA that each brings
ARG BASE_IMAGE=mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04:20260901.v1

# empty, unless the build names another context `wheels`: a folder of files that pip takes before it asks an index
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS runtime
USER root

# the Pythons that the torch lock has files for, best first
ARG PYTHONS="3.12 3.11 3.13 3.14"
RUN --mount=type=bind,source=docker/build/make_venv.sh,target=/run/make_venv.sh \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/make_venv.sh "${PYTHONS}"

# torch first and by itself: the largest layer, and the one that changes least
ARG TORCH_LOCK=torch-cpu.lock
RUN --mount=type=bind,source=docker/build/install.sh,target=/run/install.sh \
    --mount=type=bind,source=docker/${TORCH_LOCK},target=/run/torch.lock \
    --mount=type=bind,from=wheels,target=/run/wheels --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/install.sh /run/torch.lock --no-deps

RUN --mount=type=bind,source=docker/build/install.sh,target=/run/install.sh \
    --mount=type=bind,source=docker/runtime.lock,target=/run/runtime.lock \
    --mount=type=bind,from=wheels,target=/run/wheels --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/install.sh /run/runtime.lock && /opt/phikit/bin/pip check

# any uid can run here: a home that everyone may write to, and a name that getpass finds without a passwd entry
# (and a folder that a volume of anyone's can be mounted on)
RUN install -d -m 1777 /home/phikit /phikit/first-run
ENV PATH=/opt/phikit/bin:${PATH} \
    VIRTUAL_ENV=/opt/phikit \
    HOME=/home/phikit \
    USER=phikit \
    LOGNAME=phikit \
    MPLBACKEND=Agg \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1
WORKDIR /phikit

# what the container does when nothing else is asked of it, as a managed endpoint asks nothing: docker/serve.sh
COPY --chmod=755 docker/serve.sh /opt/phikit/bin/phikit-serve
EXPOSE 5001
STOPSIGNAL SIGTERM
# (a base may bring an entry point of its own)
ENTRYPOINT []
CMD ["phikit-serve"]

# what it was made from; docker/lock.sh keeps the digest of docker/runtime.lock here, and a test holds it
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="phikit-runtime" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    phikit.torch.lock="${TORCH_LOCK}" \
    phikit.runtime.lock.sha256="49ab17b3657935ca987f115486ab85437ecd776c944cfd8e032a5e9dba5cd7f8"
