# The chat page's image.  docker compose build chat
#
# It holds dependencies only, in an environment of its own (/opt/phikit); flows/ is mounted at /phikit/flows. Runs as
# nobody in particular, and needs no network but the flow's. Build inputs: those of docker/runtime.Dockerfile.

# any image with Python 3.11 or newer, its headers and ensurepip
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

# empty, unless the build names another context `wheels`: a folder of files that pip takes before it asks an index
FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS chat
USER root

ARG PYTHONS="3.12 3.11 3.13"
RUN --mount=type=bind,source=docker/build/make_venv.sh,target=/run/make_venv.sh \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/make_venv.sh "${PYTHONS}"

RUN --mount=type=bind,source=docker/build/install.sh,target=/run/install.sh \
    --mount=type=bind,source=docker/chat.lock,target=/run/chat.lock \
    --mount=type=bind,from=wheels,target=/run/wheels --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=ca --mount=type=tmpfs,target=/run/phikit \
    bash /run/install.sh /run/chat.lock && /opt/phikit/bin/pip check

# any uid can run here, and keep conversations in /phikit/history: a volume that is mounted there begins as this folder
RUN install -d -m 1777 /home/phikit /phikit/history
ENV PATH=/opt/phikit/bin:${PATH} \
    VIRTUAL_ENV=/opt/phikit \
    HOME=/home/phikit \
    USER=phikit \
    LOGNAME=phikit \
    GRADIO_ANALYTICS_ENABLED=False \
    GRADIO_TEMP_DIR=/tmp/gradio \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /phikit

EXPOSE 7860
STOPSIGNAL SIGTERM
USER 10001:10001
# (a base may bring an entry point of its own)
ENTRYPOINT []
CMD ["python", "-m", "flows.page"]

ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="phikit-chat" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
