# docs/how-to/image.md says how it is built and verified. A release gives DEBIAN and BASE with their digests.
# The last stage is BASE and copied files: the distroless variant, or with BASE=slim the stage of that name. Both have
# the Python of the same Debian, at the same path.
ARG DEBIAN=debian:13-slim
ARG BASE=gcr.io/distroless/python3-debian13:latest

FROM ${DEBIAN} AS slim
# Byte code that goes by the times of files is no use once a build has set them; what is used comes below.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && find /usr/lib/python3* /usr/share/python3 -name __pycache__ -prune -exec rm -r {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/*

FROM slim AS tools
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
COPY image/backend.txt ./
# The secret `pip`, if there is one, is a pip.conf: for a package index or a certificate of one's own.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /tools && /tools/bin/pip install --require-hashes --only-binary :all: -r backend.txt

FROM tools AS dependencies
# tracing.txt: what sends traces is in the image too (docs/how-to/tracing.md).
ARG REQUIREMENTS=requirements.txt
COPY image/requirements.txt image/tracing.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/csi-provisioner \
 && /tools/bin/pip --python /opt/csi-provisioner/bin/python install \
    --no-compile --require-hashes --only-binary :all: -r ${REQUIREMENTS} \
 && find /opt/csi-provisioner/bin -type f -delete \
 && /tools/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/csi-provisioner/lib

FROM dependencies AS code
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY csi_provisioner csi_provisioner
RUN /tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /tools/bin/pip --python /opt/csi-provisioner/bin/python install \
    --root /code --no-index --no-deps --no-compile /wheel/*.whl \
 && /tools/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /code -p / /code/opt/csi-provisioner/lib
# Some charts set `command` to one of the first two; under the others the program acts as that command.
RUN mkdir -p /code/usr/bin \
 && for link in usr/bin/csi-provisioner csi-provisioner explain check orphans; do \
      ln -s /opt/csi-provisioner/bin/csi-provisioner /code/$link; \
    done

FROM ${BASE} AS base

# The byte code of the very library that the last stage has: it is not compared with its source at a start.
FROM code AS library
COPY --from=base /usr/lib/python3.13 /library/usr/lib/python3.13
COPY image/library.py ./
RUN cp -a /code/opt / && /opt/csi-provisioner/bin/python library.py /library

FROM ${BASE}
ARG VERSION=unreleased
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="csi-provisioner" \
      org.opencontainers.image.description="A CSI external-provisioner for Kubernetes on Trio: claims in, volumes out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=library /library/ /
COPY --from=dependencies /opt/csi-provisioner /opt/csi-provisioner
COPY --from=code /code/ /
# What a start does not need has no byte code, and the file system of a container is no place to keep it.
ENV PYTHONDONTWRITEBYTECODE=1
# No USER: the sockets of most drivers are root's.
ENTRYPOINT ["/csi-provisioner"]
