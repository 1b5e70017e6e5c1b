# The names of hosts, as the collector knows them now.
_speedmimi_hosts() {
    local -a names
    names=(${(f)"$(speedmimi complete-hosts -- "$LBUFFER" 2>/dev/null)"})
    (( $#names )) && compadd -a names
}

