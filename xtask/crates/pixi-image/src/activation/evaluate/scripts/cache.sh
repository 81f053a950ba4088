export TOOL_DATA="$CONDA_PREFIX/share/tool"
export TOOL_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tool"
