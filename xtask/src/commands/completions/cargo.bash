
# Completes `cargo xtask` as `xtask`, and what else follows `cargo` as before.
_cargo_or_xtask() {
    local at=1
    if [[ ${COMP_WORDS[1]} == +* ]]; then at=2; fi
    if [[ ${COMP_WORDS[at]} == xtask && $COMP_CWORD -gt $at ]]; then
        COMP_WORDS=("${COMP_WORDS[@]:at}")
        COMP_CWORD=$((COMP_CWORD - at))
        _xtask xtask "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        return
    fi
    if [[ -z $_cargo_beside_xtask ]]; then
        # bash-completion loads cargo's own when it is needed first.
        complete -r cargo 2>/dev/null
        _comp_load cargo 2>/dev/null || _completion_loader cargo 2>/dev/null
        _find_cargo_beside_xtask
        complete -F _cargo_or_xtask -o bashdefault -o default cargo
    fi
    if [[ $_cargo_beside_xtask != none ]]; then
        "$_cargo_beside_xtask" "$@"
    fi
}

_find_cargo_beside_xtask() {
    _cargo_beside_xtask=none
    if [[ $(complete -p cargo 2>/dev/null) =~ " -F "([^ ]+) && ${BASH_REMATCH[1]} != _cargo_or_xtask ]]; then
        _cargo_beside_xtask=${BASH_REMATCH[1]}
    fi
}

if [[ -z $_cargo_beside_xtask ]]; then
    _find_cargo_beside_xtask
    if [[ $_cargo_beside_xtask == none || $_cargo_beside_xtask == _minimal ]]; then _cargo_beside_xtask=; fi
fi
complete -F _cargo_or_xtask -o bashdefault -o default cargo
