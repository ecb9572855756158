
# The names of containers, which the options of the command line say where to look for.
function __fish_reaper_runtime_containers
    set -l words (commandline -opc)
    set -l options
    set -l wanted 0
    for word in $words[2..]
        if test $wanted = 1
            set -a options $word
            set wanted 0
        else if contains -- $word --root --namespace --config
            set -a options $word
            set wanted 1
        else if string match -qr -- '^--(root|namespace|config)=' $word
            set -a options $word
        end
    end
    $words[1] $options list --names 2>/dev/null
end
complete -c reaper-runtime -n "__fish_seen_subcommand_from COMMANDS; and not contains -- -- (commandline -opc)" -f -a "(__fish_reaper_runtime_containers)"
complete -c reaper-runtime -n "__fish_seen_subcommand_from completions" -f -a "SHELLS"
complete -c reaper-runtime -n "__fish_seen_subcommand_from run exec; and contains -- -- (commandline -opc)" -f -a "(__fish_complete_command)"
