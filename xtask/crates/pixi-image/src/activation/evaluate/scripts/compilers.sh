#!/bin/bash
# In the manner of compilers' packages: one function for all tools, with names made at run time.
set_tools() {
    local front=$1; shift
    local tool value
    for tool in "$@"; do
        case "${tool}" in
        *,*) value="${tool#*,}"; tool="${tool%%,*}" ;;
        *) value="${CONDA_PREFIX}/bin/${front}${tool}" ;;
        esac
        tool=$(echo "${tool}" | tr 'a-z+-' 'A-ZX_')
        eval old="\$${tool}"
        if [ -n "${old}" ]; then
            eval export "SAVED_${tool}=\"${old}\""
        fi
        eval export "${tool}=\"${value}\""
    done
    return 0
}

if [ "${CONDA_BUILD:-0}" = "1" ]; then
    env > /tmp/environment-$$.txt
fi
set_tools x86_64-conda-linux-gnu- ar as cc,gcc ld nm
if [ $? -ne 0 ]; then
    echo "the tools are not set: $(basename "${BASH_SOURCE[0]}")"
fi
