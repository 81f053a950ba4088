export JAVA_HOME_CONDA_BACKUP=${JAVA_HOME:-}
export JAVA_HOME=$CONDA_PREFIX/lib/jvm
export JAVA_LD_LIBRARY_PATH=$JAVA_HOME/lib/server
export TOOL_VERSION=$(cat "$CONDA_PREFIX/share/tool/version")
