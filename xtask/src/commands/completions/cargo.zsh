
# Completes `cargo xtask` as `xtask`, and what else follows `cargo` as before.
_cargo_or_xtask() {
    local at=2
    if [[ ${words[2]} == +* ]]; then at=3; fi
    if [[ ${words[at]} == xtask ]] && (( CURRENT > at )); then
        shift $(( at - 1 )) words
        (( CURRENT -= at - 1 ))
        _xtask
    else
        ${=_cargo_beside_xtask:-_default} "$@"
    fi
}

if [[ ${_comps[cargo]} != _cargo_or_xtask ]]; then
    typeset -g _cargo_beside_xtask=${_comps[cargo]}
    compdef _cargo_or_xtask cargo
fi
