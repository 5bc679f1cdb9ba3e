# bash completion of kith, kithd and kith-gateway. What there is to complete is asked of the programs themselves (--help), so
# that it is always that of the version which is installed.

# Words of $1 that complete what is typed.
_kith_reply() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

# The run directory: --run of the line, or as the library chooses.
_kith_run() {
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --run) echo "${COMP_WORDS[i + 1]}" && return ;;
        esac
    done
    if [ -n "${KITH_RUN-}" ]; then
        echo "$KITH_RUN"
    elif [ -d /dev/shm/kith ] || [ ! -d /run/kith ]; then
        echo /dev/shm/kith
    else
        echo /run/kith
    fi
}

_kith_collections() {
    local run segment
    run=$(_kith_run)
    for segment in "$run"/*/segment; do
        [ -e "$segment" ] || continue
        segment=${segment%/segment}
        echo "${segment##*/}"
    done
}

# What may stand after option $2 of a program with usage $1, as a|b|c: those words; else nothing.
_kith_values() {
    grep -oE -- "$2 [a-z0-9_]+(\|[a-z0-9_]+)+" <<<"$1" | head -n 1 | sed 's/.* //; s/|/ /g'
}

# Does option $2 of a program with usage $1 take a value?
_kith_takes() {
    grep -qE -- "(^|[^-a-z])$2 [^]|)[]" <<<"$1"
}

_kith_options() {
    grep -oE -- '(^|[^-a-z])--?[a-z][-a-z]*' <<<"$1" | grep -oE -- '--?[a-z].*' | sort -u
}

# _kith_option USAGE: completes an option's value, or options; fails when it is an argument that is typed.
_kith_option() {
    local usage=$1 values
    if [[ $prev == -* ]] && _kith_takes "$usage" "$prev"; then
        values=$(_kith_values "$usage" "$prev")
        case $prev in
        --run | --data) compopt -o filenames 2>/dev/null && mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        --ids | --payload | --queries | --truth | --config | --keys | --to)
            compopt -o filenames 2>/dev/null && mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        --read-group | --write-group) mapfile -t COMPREPLY < <(compgen -g -- "$cur") ;;
        *) _kith_reply "$values" ;;
        esac
        return 0
    fi
    if [[ $cur == -* ]]; then
        _kith_reply "$(_kith_options "$usage")"
        return 0
    fi
    return 1
}

_kith() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
    local command='' arguments=0 i usage
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --run) ((i++)) ;;
        -*) ;;
        *)
            if [ -z "$command" ]; then
                command=${COMP_WORDS[i]}
            else
                ((arguments++))
            fi
            ;;
        esac
    done
    if [ -z "$command" ]; then
        usage=$("$program" --help 2>/dev/null)
        _kith_option "$usage" && return
        _kith_reply "$(sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p' <<<"$usage")"
        return
    fi
    usage=$("$program" "$command" --help 2>/dev/null)
    _kith_option "--run DIR --json --help $usage" && return
    if [ "$arguments" -eq 0 ] || [ "$command" = top ]; then
        _kith_reply "$(_kith_collections)"
        case $command in create | restore | doctor | list) COMPREPLY=() ;; esac
    else
        case $command in
        load | export | restore)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        esac
    fi
}

_kith_daemon() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    _kith_option "$("${COMP_WORDS[0]}" --help 2>/dev/null)"
}

complete -F _kith kith
complete -F _kith_daemon kithd kith-gateway
