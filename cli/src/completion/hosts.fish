# The names of hosts, as the collector knows them now.
function __speedmimi_hosts
    speedmimi complete-hosts -- (commandline -cp | string collect) 2>/dev/null
end

complete -c speedmimi -n "__fish_seen_subcommand_from reports export" -l host -x -a "(__speedmimi_hosts)"
complete -c speedmimi -n "__fish_seen_subcommand_from stats" -f -a "(__speedmimi_hosts)"
