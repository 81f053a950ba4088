#!/bin/sh
apptainer build --build-arg CUDA_VERSION=12 \
    --build-arg ENVIRONMENT_NAME=gpu image.sif apptainer.def
