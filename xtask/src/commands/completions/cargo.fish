
# Completes `cargo xtask` as `xtask`.
function __fish_cargo_is_xtask
    set -l words (commandline -opc)
    if string match -q -- '+*' $words[2]
        set -e words[2]
    end
    test "$words[2]" = xtask
end

function __fish_cargo_xtask
    set -l words (commandline -opc)
    if string match -q -- '+*' $words[2]
        set -e words[2]
    end
    set -e words[1]
    complete --do-complete (string join ' ' -- (string escape -- $words) (commandline -ct))
end

complete -c cargo -n __fish_cargo_is_xtask -f -k -a '(__fish_cargo_xtask)'
