#!/usr/bin/env sh
if test -z "${ZSH_VERSION:-}" && test ! -z "$BASH_VERSION"; then reader=bash; else reader=other; fi
R_HOME=$CONDA_PREFIX/lib/R
export R_HOME
[ "$reader" = bash ] && export R_READER=$reader
true
