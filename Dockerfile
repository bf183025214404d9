# Training on verl and vLLM on NVIDIA GPUs: the commands of docs/cluster.md as an image.
#   docker build -t lfpc .
#   docker run --gpus all --ipc=host -v "$PWD":/work lfpc train stage1 --engine verl --hardware gpu1 ...
# torch 2.11 is built for CUDA 13.0; the devel image has the nvcc that flash-attn compiles with.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /opt/lfpc
COPY pyproject.toml requirements-cluster.txt LICENSE ./
COPY src src
RUN pip install --no-cache-dir -r requirements-cluster.txt '.[data,web,lora]'
# Compiles for long. Without it: docker build --build-arg FLASH_ATTN=no, and --cluster.no-padding-free.
ARG FLASH_ATTN=yes
RUN if [ "$FLASH_ATTN" = yes ]; then \
    pip install --no-cache-dir ninja packaging setuptools wheel \
    && pip install --no-cache-dir --no-build-isolation 'flash-attn>=2.8,<3'; fi

WORKDIR /work
ENTRYPOINT ["lfpc"]
CMD ["--help"]
