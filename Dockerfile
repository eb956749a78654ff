# The commands in a container.
#   docker build -t monai-simclr .
#   docker run --rm -v /data:/data monai-simclr audit /data/NIH -o /data/audit
#   docker run --rm -v /data:/data --entrypoint python monai-simclr -m monai.bundle run --config_file ...
# For CUDA, name the index of the torch build for your driver, and run with --gpus all:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t monai-simclr:cuda .
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=dicom,nifti,pacs

WORKDIR /source
COPY constraints.txt setup.cfg pyproject.toml README.md LICENSE ./
COPY monai_simclr monai_simclr
COPY bundles bundles
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && rm -rf /source/*

# not root: what is written into a mounted folder belongs to whoever `docker run --user` says
RUN useradd --create-home reader
USER reader
WORKDIR /home/reader
ENV MPLBACKEND=Agg
ENTRYPOINT ["monai-simclr"]
CMD ["--help"]
