#!/bin/bash
# What another installation has set is put aside.
if [[ -n "${GDAL_DATA}" ]]; then
    export _CONDA_SET_GDAL_DATA=${GDAL_DATA}
fi
if [[ -n "$GDAL_DRIVER_PATH" && "$GDAL_DRIVER_PATH" != "$CONDA_PREFIX"/* ]]; then
    export _CONDA_SET_GDAL_DRIVER_PATH=$GDAL_DRIVER_PATH
    unset GDAL_DRIVER_PATH
fi
if [[ -d ${CONDA_PREFIX}/share/gdal ]]; then
    export GDAL_DATA=$CONDA_PREFIX/share/gdal
fi
if [[ -d "$CONDA_PREFIX/lib/gdalplugins" ]]; then
    export GDAL_DRIVER_PATH="$CONDA_PREFIX/lib/gdalplugins"
fi
# Names in archives are read as what they mostly are.
export CPL_ZIP_ENCODING=UTF-8
