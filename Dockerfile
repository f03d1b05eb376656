# An image with advgen and the tested set of packages. It was written without Docker at hand and has not been built yet.
#
#   docker build -t advgen .                                                                  # torch with CUDA 13, CPU too
#   docker build -t advgen --build-arg TORCH_INDEX=INDEX .       # with the index of CPU builds that torch's installation page names
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" advgen train --plugin audio
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" advgen train --plugin image    # NVIDIA Container Toolkit
FROM python:3.13-slim

# An index with another build of torch; empty for the one from PyPI.
ARG TORCH_INDEX=""

WORKDIR /opt/advgen
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY core core
COPY plugins plugins

# The CUDA libraries in the constraints belong to the torch from PyPI (docs/dependencies.md).
RUN python -m venv /opt/venv \
    && cp constraints.txt used.txt \
    && if [ -n "$TORCH_INDEX" ]; then \
           grep -Ev '^(cuda|nvidia|triton)' constraints.txt > used.txt \
           && /opt/venv/bin/pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"; \
       fi \
    && /opt/venv/bin/pip install --no-cache-dir -c used.txt '.[export,hub,tracking,transformers]' \
    && useradd --create-home --uid 1000 advgen \
    && install --directory --owner=advgen /work

# The cache is next to the runs, so that it persists and any `--user` can write to it.
ENV PATH="/opt/venv/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/work/.cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

USER advgen
WORKDIR /work
ENTRYPOINT ["gen"]
CMD ["--help"]
