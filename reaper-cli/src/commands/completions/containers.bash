
# The names of containers, which the options of the command line say where to look for.
_reaper_runtime_containers() {
    local i options=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            --) return ;;
            --root | --namespace | --config)
                options+=("${COMP_WORDS[i]}")
                # Bash takes "=" for a word.
                [[ "${COMP_WORDS[i + 1]}" == "=" ]] && ((i++))
                options+=("${COMP_WORDS[++i]}")
                ;;
        esac
    done
    "${COMP_WORDS[0]}" "${options[@]}" list --names 2>/dev/null
}

_reaper_runtime() {
    local i command=""
    _reaper__runtime "$@"
    # What stands for an argument in the help is no word to complete to.
    for i in "${!COMPREPLY[@]}"; do
        [[ "${COMPREPLY[i]}" == [\[\<]* ]] && unset "COMPREPLY[i]"
    done
    COMPREPLY=("${COMPREPLY[@]}")
    [[ "$2" == -* ]] && return
    # Here comes the value of an option.
    case "$3" in
        "=" | VALUED) return ;;
    esac
    for i in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$i" in
            COMMANDS) command="$i" ;;
        esac
    done
    if [[ -n "$command" ]]; then
        local named=($(compgen -W "$(_reaper_runtime_containers)" -- "$2"))
        [[ ${#named[@]} -gt 0 ]] && COMPREPLY=("${named[@]}")
    fi
}
complete -F _reaper_runtime -o bashdefault -o default reaper-runtime
