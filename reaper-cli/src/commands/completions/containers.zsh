# The names of containers, which the options of the command line say where to look for.
(( $+functions[_reaper-runtime_containers] )) ||
_reaper-runtime_containers() {
    local -a before options names
    local -i i
    before=(${(z)LBUFFER})
    for (( i = 2; i <= $#before; i++ )); do
        case $before[i] in
            (--root|--namespace|--config) options+=($before[i] $before[i+1]); (( i++ ));;
            (--root=*|--namespace=*|--config=*) options+=($before[i]);;
        esac
    done
    names=(${(f)"$($before[1] $options list --names 2>/dev/null)"})
    compadd -a names
}

(( $+functions[_reaper-runtime_state] )) ||
_reaper-runtime_state() {
    _reaper-runtime_containers
    _reaper-runtime__subcmd__state_commands
}

