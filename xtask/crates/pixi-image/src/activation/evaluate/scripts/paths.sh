add_front() {
    # $1: the variable's present value, $2: a directory
    local value="$1"
    case ":${value}:" in
    *":$2:"*) ;;
    *) value="$2${value:+:$value}" ;;
    esac
    front=$value
}
had_trace=no
case $- in *x*) had_trace=yes; set +x ;; esac
add_front "$PATH" "$CONDA_PREFIX/lib/tool/bin" && export PATH="$front"
add_front "${PKG_CONFIG_PATH-}" "$CONDA_PREFIX/lib/pkgconfig" && export PKG_CONFIG_PATH="$front"
add_front "$PKG_CONFIG_PATH" "$CONDA_PREFIX/lib/pkgconfig" && PKG_CONFIG_PATH=$front
for plugins in "$CONDA_PREFIX"/lib/plugin-*; do
    [ -d "$plugins" ] || continue
    export PLUGINS="${PLUGINS:+$PLUGINS:}${plugins##*/}"
done
if [ "$had_trace" = yes ]; then set -x; fi
unset -f add_front
unset front had_trace plugins
echo "paths are set for ${HOME:-nobody}" >/dev/null 2>&1
