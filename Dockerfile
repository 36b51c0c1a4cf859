FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/csi-provisioner
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY csi_provisioner csi_provisioner
# pip compiles as it installs, so that a start on a read-only file system is as fast as any other.
RUN /opt/csi-provisioner/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.13-slim
COPY --from=build /opt/csi-provisioner /opt/csi-provisioner
# Some charts set `command` to this path.
RUN ln -s /opt/csi-provisioner/bin/csi-provisioner /csi-provisioner
ENV PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["/csi-provisioner"]
