# A loader's list of drivers: of the host where the host has some.
if [ -d /etc/OpenCL/vendors ]; then
    ln -sf /etc/OpenCL/vendors "$CONDA_PREFIX/etc/OpenCL/vendors/host"
fi
