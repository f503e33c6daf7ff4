# onnx-prune in a container:
#   docker build -t onnx-prune .
#   docker run --rm -v "$PWD:/data" onnx-prune model.onnx --macs 50%
# CUDA: docker build --build-arg EXTRAS=gpu,report --build-arg BASE=nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 needs Python
# and pip in that image; the CPU image runs everywhere.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRAS=cpu,report
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt "/src[${EXTRAS}]" && rm -r /src
WORKDIR /data
# Files belong to who runs it: docker run --user "$(id -u):$(id -g)" ...
ENV ONNX_PRUNE_CACHE="" HOME=/tmp
ENTRYPOINT ["onnx-prune"]
