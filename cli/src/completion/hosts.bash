# The names of hosts, as the collector knows them now.
_speedmimi_live() {
    local names
    names=$(speedmimi complete-hosts -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ -n $names ]]; then
        mapfile -t COMPREPLY <<<"$names"
        return 0
    fi
    _speedmimi "$@"
}

complete -F _speedmimi_live -o bashdefault -o default speedmimi
