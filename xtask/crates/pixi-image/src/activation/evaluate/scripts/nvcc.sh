#!/bin/bash
[[ -z "${CONDA_BUILD:-}" ]] || [[ "$CONDA_BUILD" != 1 ]] && in_environment=1 || in_environment=
if [[ -n "${in_environment}" ]]; then
    targets="${CONDA_PREFIX}/targets/x86_64-linux"
    NVCC_PREPEND_FLAGS_BACKUP="${NVCC_PREPEND_FLAGS:-}"
    export NVCC_PREPEND_FLAGS="${NVCC_PREPEND_FLAGS:-}${NVCC_PREPEND_FLAGS:+ }-ccbin=${CXX:-c++}"
    [[ -d ${targets}/include ]] && export CUDAFLAGS="-I${targets}/include${CUDAFLAGS:+ $CUDAFLAGS}"
    export CFLAGS="${CFLAGS} -isystem ${targets}/include" LDFLAGS="${LDFLAGS:-} -L${targets}/lib"
fi
unset in_environment targets
