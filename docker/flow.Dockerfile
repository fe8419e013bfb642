# Prompt flow's image.  docker compose build flow
#
# It holds dependencies only, in an environment of its own (/opt/phikit); flows/ is mounted at /phikit/flows. Runs as
# nobody in particular, and needs no network but the endpoint's. Build inputs: those of docker/runtime.Dockerfile.

# any image with Python 3.11 or newer, its headers and ensurepip
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

# empty, unless the build names another context `wheels`: a folder of files that pip takes before it asks an index
FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS flow
USER root

ARG PYTHONS="3.12 3.11 3.13"
RUN --mount=type=bind,source=docker/build/make_venv.sh,target=/run/make_venv.sh \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/make_venv.sh "${PYTHONS}"

RUN --mount=type=bind,source=docker/build/install.sh,target=/run/install.sh \
    --mount=type=bind,source=docker/flow.lock,target=/run/flow.lock \
    --mount=type=bind,from=wheels,target=/run/wheels --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/install.sh /run/flow.lock && /opt/phikit/bin/pip check

# any uid can run here, and nothing is reported to anyone: promptflow reads that from its home folder
RUN install -d -m 1777 /home/phikit /home/phikit/.promptflow \
    && printf 'telemetry:\n  enabled: false\ntrace:\n  destination: none\n' >/home/phikit/.promptflow/pf.yaml \
    && chmod 666 /home/phikit/.promptflow/pf.yaml
ENV PATH=/opt/phikit/bin:${PATH} \
    VIRTUAL_ENV=/opt/phikit \
    HOME=/home/phikit \
    USER=phikit \
    LOGNAME=phikit \
    PF_TRACING_SKIP_LOCAL_SETUP=true \
    PF_DISABLE_TRACING=true \
    APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED=true \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /phikit

EXPOSE 8080
STOPSIGNAL SIGTERM
USER 10001:10001
# (a base may bring an entry point of its own)
ENTRYPOINT []
CMD ["pf", "flow", "serve", "--source", "flows/chat", "--host", "0.0.0.0", "--port", "8080", \
    "--engine", "fastapi", "--skip-open-browser"]

ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="phikit-flow" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
