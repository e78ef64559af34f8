# logroute in a container: docs/docker.md tells what it may read there, and as whom.
#
#   docker build -t logroute .
#   docker run --rm --group-add "$(stat -c %g /var/run/docker.sock)" \
#     -v /var/run/docker.sock:/var/run/docker.sock logroute run stdout:

ARG PYTHON=3.13

# --- build: a virtual environment with logroute and what it needs, without pip ------------------------------
FROM python:${PYTHON}-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN python -m venv /opt/logroute

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY cli cli
COPY config config
COPY processors processors
COPY router router
COPY simulator simulator
COPY sinks sinks
COPY sources sources
# Last: its links lead to the folders above.
COPY logroute logroute

# --compile: the image may run read-only, and a start without bytecode takes four times as long. What else is
# kept for the next start (cli/kept_code.py) these commands write, which import everything together.
RUN /opt/logroute/bin/pip install --compile . \
 && /opt/logroute/bin/pip uninstall --yes pip \
 && /opt/logroute/bin/logroute version \
 && /opt/logroute/bin/logroute schema > /dev/null \
 && /opt/logroute/bin/logroute run --help > /dev/null \
 && /opt/logroute/bin/logroute tail --help > /dev/null

# --- the image ----------------------------------------------------------------------------------------------
FROM python:${PYTHON}-slim

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="logroute" \
      org.opencontainers.image.description="Routes the logs of containers: attach, parse, fan out, without losing a line." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Not root, and in a group that may have the number of the socket's group. That number differs from host to
# host: build with the host's, or give it to the container with --group-add (compose: group_add).
# The folders are open to group root, too, for `--user 0:0 --cap-drop ALL`: a root without its powers.
ARG UID=10001
ARG DOCKER_GID=999
RUN groupadd --gid "${UID}" logroute \
 && groupadd --non-unique --gid "${DOCKER_GID}" docker-socket \
 && useradd --uid "${UID}" --gid logroute --groups docker-socket --no-log-init \
      --home-dir /var/lib/logroute --no-create-home --shell /usr/sbin/nologin logroute \
 && install --directory --owner logroute --group root --mode 0770 /var/lib/logroute /logs \
 && install --directory --owner logroute --group root --mode 0770 /run/logroute \
 && install --directory --mode 0755 /etc/logroute

COPY --from=build /opt/logroute /opt/logroute

# STATE_DIRECTORY: where a configuration without `state_dir` keeps its checkpoints. RUNTIME_DIRECTORY: where the
# API's socket is, for `docker exec NAME logroute health`.
ENV PATH=/opt/logroute/bin:$PATH \
    STATE_DIRECTORY=/var/lib/logroute \
    RUNTIME_DIRECTORY=/run/logroute

USER logroute
WORKDIR /var/lib/logroute
VOLUME ["/var/lib/logroute"]

# SIGTERM drains the routes within `limits.grace` (30s): give `docker stop` more than that.
STOPSIGNAL SIGTERM

# Without arguments: as /etc/logroute/logroute.yaml says.
ENTRYPOINT ["logroute"]
CMD ["run"]
