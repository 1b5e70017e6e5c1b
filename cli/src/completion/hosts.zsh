# The names of hosts, as the collector knows them now.  It is asked with the words
# of this command alone: arguments can be read by everybody on the machine, and
# what stands before on the line is none of their business.
_speedmimi_hosts() {
    local -a names
    local typed="speedmimi ${(j: :)words[1,CURRENT-1]} $IPREFIX$PREFIX"
    names=(${(f)"$(speedmimi complete-hosts -- "$typed" 2>/dev/null)"})
    (( $#names )) && compadd -a names
}

