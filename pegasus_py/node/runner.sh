# The node's side of Pegasus: a shell that reads requests on stdin and answers on stdout. It is sent over the
# connection and nothing of it is left on the node. POSIX sh, with shorter ways where the shell is bash. Comments,
# indentation and empty lines are taken off before it is sent. protocol.py lists requests and answers.
#
# Kinds of files in the spool (one directory per queue, of mode 0700):
#   12.1.job        start marker and state of attempt 12.1: lines, appended, that end with a dot, as what a full disk
#                   cut off does not; the first one decides (starter.py makes them too)
#   12.1.sh .out    the command, and what it wrote
#   12.1.cancel     the entry's cancel command
#   since.KEY       sub-node KEY has been known here; if this is gone, so may be what else there was
#   epoch.7         run 7 of a controller has been here; the highest counts
#   ctl.7.KEY.TOK   the one runner that may start jobs for sub-node KEY; it starts nothing once this is gone

# bash forks less than others need to (its job control works without a terminal).
if [ -z "${BASH_VERSION-}" ] && [ -z "${PEGASUS_PLAIN_SH-}" ] && command -v bash >/dev/null 2>&1; then
    # shellcheck disable=SC2154
    PEGASUS_RUNNER=$pegasus_s PEGASUS_UMASK=$(umask)
    export PEGASUS_RUNNER PEGASUS_UMASK
    # --posix keeps bash from reading $BASH_ENV.
    exec bash --posix --norc --noprofile -c 'eval "$PEGASUS_RUNNER"' pegasus
fi
# A fork is dearer there, so what needs one is asked before.
login_umask=${PEGASUS_UMASK:-$(umask)}
unset PEGASUS_RUNNER PEGASUS_UMASK pegasus_s pegasus_c
umask 077
set -Cf
# A dead connection must not end the runner before it has written down how its job ended.
trap '' HUP PIPE
# What the login has exported with a name that we use is put aside for its jobs. Tests keep the list complete.
login_OURS="a b bad base bash before boot break bytes c child code count ctl d deadline dir dot e empty ended epoch f file
first found fresh g group highest inline job_pid job_start key known lately leader left line line_break lines
machine made mark marker marker_boot marker_count name nap now one one_name other our_base out owner owner_start
pending pid python queue request rest role runner_start self size spool spot st_group st_name st_parent st_start
st_state starter stat status task task_start text todo token told tries unsaved until when where why with
written"
login_NAMES=
# shellcheck disable=SC2154
if [ -n "${a+x}${b+x}${bad+x}${base+x}${bash+x}${boot+x}${break+x}${bytes+x}${c+x}${child+x}${code+x}${count+x}${ctl+x}${d+x}${deadline+x}${dir+x}${dot+x}${e+x}${empty+x}${ended+x}${epoch+x}${f+x}${file+x}${first+x}${found+x}${fresh+x}${g+x}${group+x}${highest+x}${inline+x}${job_pid+x}${job_start+x}${key+x}${known+x}${leader+x}${left+x}${line+x}${line_break+x}${lines+x}${machine+x}${made+x}${mark+x}${marker+x}${marker_boot+x}${marker_count+x}${name+x}${nap+x}${now+x}${one+x}${one_name+x}${other+x}${our_base+x}${out+x}${owner+x}${owner_start+x}${pending+x}${pid+x}${python+x}${queue+x}${request+x}${rest+x}${role+x}${runner_start+x}${self+x}${size+x}${spool+x}${spot+x}${st_group+x}${st_name+x}${st_parent+x}${st_start+x}${st_state+x}${starter+x}${stat+x}${status+x}${task+x}${task_start+x}${text+x}${todo+x}${token+x}${told+x}${tries+x}${unsaved+x}${until+x}${where+x}${why+x}${with+x}${written+x}" ]; then
    for login_NAME in $login_OURS; do
        if eval "[ -n \"\${$login_NAME+set}\" ]"; then
            eval "login_$login_NAME=\$$login_NAME"
            unset "$login_NAME"
            login_NAMES="$login_NAMES $login_NAME"
        fi
    done
fi
# Bytes are bytes. Not exported, unless the login had set it: then the job gets that value back.
[ -z "${LC_ALL+set}" ] || login_LC_ALL=$LC_ALL
LC_ALL=C
bash=${BASH_VERSION:+yes}
inline=8192
count=0
task=
unsaved=
pending=
# Not from the PATH: what is found there may be on a file system that is away.
python=${PEGASUS_PYTHON-/usr/bin/python3}
nap=0.1
line_break='
'

# --- small things -----------------------------------------------------------------------------------------------

refuse_hello() {
    printf '\npegasus-error %s\n' "$*"
    exit 1
}

# as_login COMMAND...: with the variables that the login had exported; for the last command of a process
as_login() {
    [ -z "${login_LC_ALL+set}" ] || LC_ALL=$login_LC_ALL
    [ -z "$login_NAMES" ] || for login_NAME in $login_NAMES; do
        eval "$login_NAME=\$login_$login_NAME"
        # shellcheck disable=SC2163
        export "$login_NAME"
    done
    "$@"
}

# why: the reason why nothing can be written to the spool, in the system's words
why() {
    why=$({ head -c 4096 /dev/zero >|"$dir/probe.$$"; } 2>&1)
    rm -f -- "$dir/probe.$$"
    why=${why##*: }
    printf '%s' "${why:-unknown reason}"
}

# stat_of PID: sets st_state, st_group, st_start and st_name, or fails. The name may contain anything.
stat_of() {
    stat=
    [ -r "/proc/$1/stat" ] || return 1
    { while IFS= read -r line || [ -n "$line" ]; do stat="$stat$line "; done; } 2>/dev/null <"/proc/$1/stat"
    [ -n "$stat" ] || return 1
    st_name=${stat#*\(}
    st_name=${st_name%)*}
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ $# -ge 20 ] || return 1
    st_state=$1 st_parent=$2 st_group=$3 st_start=${20}
}

# alive PID START: that very process, and not only its zombie
alive() {
    stat_of "$1" && [ "$st_start" = "$2" ] && case $st_state in Z | X) false ;; esac
}

# centiseconds since boot
clock() {
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}
    now=${now#0}
    now=${now#0}
}

doze() {
    sleep "$nap" || { nap=1 && sleep 1; }
}

size_of() {
    size=0
    [ -s "$1" ] && size=$(wc -c <"$1") && size=$((size))
}

highest_epoch() {
    highest=$epoch
    set +f
    for file in "$dir"/epoch.*; do
        [ "${file##*.}" -gt "$highest" ] && highest=${file##*.}
    done 2>/dev/null
    set -f
}

# take BYTES: so many bytes from the channel to stdout, and none of what follows them: busybox's head reads ahead
take() {
    dd "iflag=fullblock" "bs=$1" "count=1" 2>/dev/null
    # One that does not know how has read nothing. One that was killed may have, and the rest must not be waited for.
    [ $? -ne 1 ] || head -c "$1"
}

# take_text LINES BYTES: a counted text from the channel to stdout; without lines it is exactly that many bytes.
# All of it is taken even if it cannot be written.
take_text() {
    if [ "$1" -eq 0 ]; then
        take "$2" | { cat || { cat >/dev/null && false; }; }
        return
    fi
    todo=$1 bad=0 break=
    while [ "$todo" -gt 0 ]; do
        IFS= read -r line || return 1
        printf "$break%s" "$line" || bad=1
        break='\n' todo=$((todo - 1))
    done
    return $bad
}

# --- what the spool knows ---------------------------------------------------------------------------------------

# read_marker NAME: sets first (start, fenced or nothing), status, and the fields of the start line. One that starter.py
# has made names that process, and the job in a line of its own.
read_marker() {
    first='' status=- job_pid='' job_start='' starter='' where=$machine
    { while read -r key a b c d e f _ g dot; do
        case $first$key in
        start) case $dot in
            . | *' .')
                first=start marker_boot=$a where=$b owner=$e owner_start=$f marker_count=$g
                starter=${dot%.}
                [ -n "$starter" ] || { job_pid=$c && job_start=$d; }
                ;;
            esac ;;
        startpid) [ "$c" != . ] || { job_pid=$a && job_start=$b; } ;;
        fenced | *refused) first=fenced ;;
        startexit) [ "$b" != . ] || status=$a ;;
        esac
    done; } 2>/dev/null <"$dir/$1.job"
}

# ours NAME: its marker is the one that this runner's present start has made
ours() {
    read_marker "$1"
    [ "$first.$where.$owner.$owner_start.$marker_count" = "start.$machine.$$.$runner_start.$count" ]
}

# carriers NAME: the processes that have the attempt in their environment
carriers() {
    set +f
    # -z: a line is what ends with a null byte, at which busybox's grep stops otherwise.
    grep -lzFs -e "PEGASUS_ATTEMPT=$1.$queue" /proc/[0-9]*/environ
    set -f
}

# A starter.py that was killed has not said which process is the job. There may still be one that is just about to
# become it, and cannot be told from others yet: without its text it never will. One that lives looks for the line
# between having written the text and starting it.
bar_nameless() {
    if [ -z "$job_pid" ] && [ -n "$starter" ]; then
        printf '\nbarred .\n' >>"$dir/$1.job"
        rm -f -- "$dir/$1.sh"
    fi
}

# in_hand: the job, or who would write down how it ended, is still there
in_hand() {
    # shellcheck disable=SC2086
    { [ -n "$job_pid" ] && alive "$job_pid" "$job_start"; } || alive "$owner" "$owner_start" ||
        { [ -n "$starter" ] && alive $starter; }
}

# look NAME: sets spot, status, where
look() {
    spot=absent status=- where=$machine
    [ -e "$dir/$1.job" ] || return 0
    read_marker "$1"
    if [ "$first" = start ] && [ "$status" = - ] && [ "$where.$marker_boot" = "$machine.$boot" ] &&
        ! in_hand && bar_nameless "$1" && [ -z "$(carriers "$1")" ]; then
        # All gone: what there is to read now is the last word.
        read_marker "$1"
        [ "$status" != - ] || { spot=vanished && return 0; }
    fi
    case $first.$status in
    .*) [ ! -e "$dir/$1.job" ] || spot=unsure ;;
    fenced.*) spot=fenced ;;
    *.-)
        spot=running
        [ -e "$dir/$1.out" ] || spot=starting
        [ "$marker_boot" = "$boot" ] || spot=rebooted
        [ "$where" = "$machine" ] || spot=elsewhere
        ;;
    *) spot=exited ;;
    esac
}

# An empty marker: whoever made it is about to write its line, or died just then. The first line decides, and a
# starter looks whose it is before it goes on, so that after a while we may put ours.
look_surely() {
    look "$1"
    tries=0
    while [ "$spot" = unsure ] && [ "$tries" -lt 10 ]; do
        doze
        tries=$((tries + 1))
        look "$1"
    done
    [ "$spot" = unsure ] || return 0
    printf '\nfenced %s %s %s .\n' "$boot" "$machine" "$epoch" >>"$dir/$1.job"
    look "$1"
    [ "$spot" != unsure ] || spot=fenced
}

report() {
    size_of "$dir/$1.out"
    printf 'report %s %s %s %s %s\n' "$1" "$spot" "$status" "$size" "$where"
}

# tell_exit NAME STATUS: the exit frame, with the output when it is short
tell_exit() {
    out=$dir/$1.out
    if [ ! -s "$out" ]; then
        printf 'exit %s %s 0 0\n' "$1" "$2"
        return
    fi
    if [ -n "$bash" ]; then
        # Reads up to a NUL; a failure with fewer bytes than asked for means that the file has no NUL and is all here.
        # shellcheck disable=SC3045
        if ! IFS= read -r -d '' -n $((inline + 1)) text <"$out" && [ "${#text}" -le $inline ]; then
            printf 'exit %s %s %s %s\n%s' "$1" "$2" "${#text}" "${#text}" "$text"
            return
        fi
    fi
    size_of "$out"
    if [ "$size" -le $inline ]; then
        printf 'exit %s %s %s %s\n' "$1" "$2" "$size" "$size"
        # A process left behind may still be writing.
        head -c "$size" "$out"
    else
        printf 'exit %s %s %s -\n' "$1" "$2" "$size"
    fi
}

# --- starting ---------------------------------------------------------------------------------------------------

# give_up NAME REASON: the job's text has not run and never will; leaves no marker, or one that says so
give_up() {
    printf '\nrefused .\n' >>"$dir/$1.job"
    rm -f -- "$dir/$1.sh" "$dir/$1.out" "$dir/$1.job"
    printf 'refused %s %s\n' "$1" "$2"
    exit 125
}

# become NAME LINES BYTES DEADLINE: in a process of its own, takes the start marker, then the text, and becomes the job.
# The marker names this very process from the first, so that nobody has to guess whether it may still start.
# Exits with 125 after an answer of its own.
become() {
    # Its own name has no surprises: a short way to what stat_of does.
    read -r stat </proc/self/stat
    pid=${stat%% *}
    # shellcheck disable=SC2086
    set -- "$1" "$2" "$3" "$4" ${stat##*) }
    marker=$dir/$1.job made='' written=''
    mark="start $boot $machine $pid ${24} $$ $runner_start $epoch $count ."
    # Appended, through the descriptor: a fence that was put into the empty file is not written over, and one that was
    # cleared away is not made again.
    { made=yes && printf '%s\n' "$mark" >>/proc/self/fd/5 && written=yes; } 5>"$marker"
    if [ -z "$written" ]; then
        take_text "$2" "$3" >/dev/null
        if [ -n "$made" ]; then
            give_up "$1" "the start marker cannot be written: $(why)"
        elif [ -e "$marker" ]; then
            printf 'exists %s\n' "$1"
        else
            printf 'refused %s the start marker cannot be made: %s\n' "$1" "$(why)"
        fi
        exit 125
    fi
    # Whoever found the marker while it was empty may have put a fence there.
    read -r line <"$marker"
    if [ "$line" != "$mark" ]; then
        take_text "$2" "$3" >/dev/null
        printf 'exists %s\n' "$1"
        exit 125
    fi
    made='' written=''
    { made=yes && take_text "$2" "$3" && written=yes; } >|"$dir/$1.sh"
    [ -n "$made" ] || take_text "$2" "$3" >/dev/null
    if [ "$2" -eq 0 ] && [ -n "$written" ]; then
        size_of "$dir/$1.sh"
        [ "$size" -eq "$3" ] || written=
    fi
    [ -n "$written" ] || give_up "$1" "the command cannot be written: $(why)"
    if [ "$4" != - ]; then
        clock
        [ "$now" -le "$4" ] || give_up "$1" "the request to start it came too late"
    fi
    {
        PEGASUS_JOB_ID=${1%%.*} PEGASUS_ATTEMPT=$1.$queue
        export PEGASUS_JOB_ID PEGASUS_ATTEMPT
        umask "$login_umask"
        trap - HUP PIPE
        # shellcheck disable=SC2086
        as_login exec $leader /bin/sh "$dir/$1.sh"
    } </dev/null >>"$dir/$1.out" 2>&1
    give_up "$1" "its output file cannot be made: $(why)"
}

# start NAME LINES BYTES DEADLINE [CLEAR...]
start() {
    name=$1 lines=$2 bytes=$3 deadline=$4
    shift 4
    [ $# -eq 0 ] || clear_names "$@"
    # Opened, not only looked for: NFS asks the server then.
    if ! true <"$ctl"; then
        take_text "$lines" "$bytes" >/dev/null
        highest_epoch
        printf 'overtaken %s\n' "$highest"
        return
    fi
    count=$((count + 1))
    if [ -n "$bash" ]; then
        set -m
        (become "$name" "$lines" "$bytes" "$deadline") &
        child=$!
        set +m
        wait $child
        status=$?
        # A stop is no end.
        while [ $status -gt 128 ] && stat_of $child && [ "$st_parent.$st_state" = "$$.T" ]; do
            doze
            wait $child
            status=$?
        done
    else
        (become "$name" "$lines" "$bytes" "$deadline")
        status=$?
    fi
    if [ $status -ge 125 ]; then
        ended=$status
        if ! ours "$name"; then
            # It has answered, or was killed before it could, and then what follows on the channel is unknown.
            [ $ended -eq 125 ] || exit 1
            return
        fi
        status=$ended
    fi
    printf 'exit %s .\n' $status >>"$dir/$name.job" || unsaved="$unsaved $name $status"
    # Without an output file it was killed before it had taken its text from the channel.
    [ $status -lt 125 ] || [ -e "$dir/$name.out" ] || exit 1
    tell_exit "$name" $status
    [ -z "$unsaved" ] || save
}

# serve BYTES: starter.py, of so many bytes, takes requests from the channel until there is one for us
serve() {
    code=$(take "$1")
    if [ -z "$python" ] || [ ! -x "$python" ]; then
        return
    fi
    {
        left=$(
            # A job that ends all programs of Python's must not end its own starter.
            # shellcheck disable=SC2086
            as_login exec ${bash:+-a pegasus} $python -ISc "$code" "$dir/" "$ctl" "$queue" "$boot" "$machine" \
                "$$ $runner_start" "$epoch" "$login_umask" "${LC_CTYPE+=$LC_CTYPE}" "${our_base:+$base}" 3>&1 >&4 4>&-
        )
    } 4>&1
    status=$?
    case $left in
    ready*) ;;
    *)
        # It has not touched the channel.
        python=
        return
        ;;
    esac
    # Nobody knows how far it has read.
    [ $status -eq 0 ] || exit 1
    left=${left#*"$line_break"}
    unsaved="$unsaved ${left%%"$line_break"*}"
    [ "$unsaved" != ' ' ] || unsaved=
    pending=${left#*"$line_break"}
    [ "$pending" != "$left" ] || pending=
}

# Exit statuses that a full disk did not take, tried again.
save() {
    # shellcheck disable=SC2086
    set -- $unsaved
    unsaved=
    while [ $# -ge 2 ]; do
        if [ -e "$dir/$1.job" ]; then
            # A part of the line may be there already.
            printf '\nexit %s .\n' "$2" >>"$dir/$1.job" || unsaved="$unsaved $1 $2"
        fi
        shift 2
    done
}

# --- the other requests -----------------------------------------------------------------------------------------

clear_names() {
    for file; do
        shift
        set -- "$@" "$dir/$file.sh" "$dir/$file.out" "$dir/$file.cancel" "$dir/$file.job"
    done
    # The marker goes last: as long as anything is left, the attempt has not been forgotten.
    rm -f -- "$@"
}

fence() {
    look "$1"
    if [ "$spot" = absent ]; then
        if true >"$dir/$1.job"; then
            printf '\nfenced %s %s %s .\n' "$boot" "$machine" "$epoch" >>"$dir/$1.job"
            spot=fenced
        elif [ ! -e "$dir/$1.job" ]; then
            printf 'error the marker of %s cannot be made: %s\n' "$1" "$(why)"
            return
        fi
    fi
    [ "$spot" = fenced ] || look_surely "$1"
    report "$1"
}

# wait_exit NAME: until it has ended, however
wait_exit() {
    while :; do
        look_surely "$1"
        case $spot in
        running | starting) ;;
        exited) tell_exit "$1" "$status" && return ;;
        *) report "$1" && return ;;
        esac
        kill -0 $$ || return
        doze
    done
}

# send NAME OFFSET LENGTH
send() {
    size_of "$dir/$1.out"
    size=$((size - $2))
    [ "$size" -ge 0 ] || size=0
    [ "$size" -le "$3" ] || size=$3
    printf 'data %s %s\n' "$1" "$size"
    [ "$size" -eq 0 ] || tail -c "+$(($2 + 1))" "$dir/$1.out" | head -c "$size"
}

# follow NAME OFFSET: from here on this channel has nothing but the bytes of the output
follow() {
    printf 'follow %s\n' "$1"
    # GNU tail can look after its parent, should that be killed.
    with=
    tail --pid=1 -c 1 /dev/null >/dev/null 2>&1 && with="--pid=$$ -s 0.2"
    tries=0
    while [ ! -e "$dir/$1.out" ] && kill -0 $$; do
        # Its start may still be on its way.
        [ -e "$dir/$1.job" ] || tries=$((tries + 1))
        [ $tries -lt 100 ] || break
        doze
    done
    # shellcheck disable=SC2086
    exec tail $with -c "+$(($2 + 1))" -f "$dir/$1.out"
}

# members NAME: sets found to the living processes of the attempt. The process group counts as long as one that is
# known to belong to the attempt is in it: then the number cannot have been given to strangers.
members() {
    found='' group='' self=
    [ -n "$job_pid" ] || [ -z "$starter" ] || read_marker "$1"
    if [ -n "$job_pid" ]; then
        # It may be about to become the job, and have neither group nor variable yet.
        alive "$job_pid" "$job_start" && group=$job_pid self=$job_pid
        for one in $known; do
            [ -z "$group" ] || break
            alive "${one%:*}" "${one#*:}" && [ "$st_group" = "$job_pid" ] && group=$job_pid
        done
    fi
    for one in $self $(carriers "$1") $(
        set +f
        [ -z "$group" ] ||
            grep -lEs -e "\\) [^ZX] [0-9-]+ ($group [0-9-]+|[0-9-]+ $group) " /proc/[0-9]*/stat
    ); do
        one=${one#/proc/}
        one=${one%/*}
        [ "$one" != $$ ] || continue
        stat_of "$one" || continue
        case $st_state in Z | X) continue ;; esac
        one=$one:$st_start
        case " $found " in *" $one "*) continue ;; esac
        found="$found $one"
        case " $known " in *" $one "*) ;; *) known="$known $one" ;; esac
        $2 "${one%:*}" "$one"
    done
}

# TERM once each: to many programs a second one means "at once". None for what is started afterwards by one that was
# told and goes on: that is how it finishes, and there is a grace period for it.
ask_to_end() {
    case " $told " in *" $2 "*) return ;; esac
    before=${when##*" $st_parent="}
    if [ "$before" != "$when" ] && [ "$1" -gt "${before%% *}" ]; then
        # What it starts in its turn is a part of that.
        case "$when" in *" $1=$1 "*) ;; *) when="$when $1=$1 " ;; esac
        return
    fi
    # Processes are numbered in their order: one with a lower number than this was there before.
    : &
    told="$told $2" lately="$lately $1=$! "
    kill -TERM "$1"
    kill -CONT "$1"
}

kill_it() {
    kill -KILL "$1"
}

# end NAME GRACE (centiseconds)
end() {
    known='' told='' when='' empty=0
    look "$1"
    if [ "$spot" = elsewhere ]; then
        printf 'error attempt %s is on %s, which shares this spool\n' "$1" "$where"
        return
    fi
    # Only where these numbers are of this boot do they mean our processes.
    [ "$first.$marker_boot" = "start.$boot" ] || job_pid='' starter=''
    # Not named yet: from now on it is to be found by its variable, or never becomes the job.
    bar_nameless "$1"
    clock
    until=$((now + $2))
    while [ $empty -lt 2 ] && [ "$now" -lt "$until" ]; do
        # What is found along with its parent was there before, too.
        lately=''
        members "$1" ask_to_end
        when="$when$lately"
        if [ -n "$found" ]; then empty=0; else empty=$((empty + 1)); fi
        doze
        clock
    done
    clock
    until=$((now + 500))
    while [ $empty -lt 2 ] && [ "$now" -lt "$until" ]; do
        members "$1" kill_it
        [ -z "$group" ] || kill -KILL "-$group"
        if [ -n "$found" ]; then empty=0; else empty=$((empty + 1)); fi
        clock
    done
    if [ $empty -lt 2 ]; then
        members "$1" true
        for one in $found; do
            stat_of "${one%:*}" && printf 'survivor %s %s %s\n' "$1" "${one%:*}" "$st_name" | tr -c '[:print:]\n' '?'
        done
    fi
    printf 'ended %s\n' "$1"
}

# run NAME LINES BYTES LIMIT (centiseconds): the entry's cancel command, its output goes to the job's
run() {
    if ! take_text "$2" "$3" >|"$dir/$1.cancel"; then
        printf 'error the cancel command of %s cannot be written\n' "$1"
        return
    fi
    [ -z "$bash" ] || set -m
    (
        PEGASUS_JOB_ID=${1%%.*}
        export PEGASUS_JOB_ID
        umask "$login_umask"
        trap - HUP PIPE
        # shellcheck disable=SC2086
        as_login exec $leader sh "$dir/$1.cancel" </dev/null >>"$dir/$1.out" 2>&1
    ) &
    child=$!
    [ -z "$bash" ] || set +m
    clock
    until=$((now + $4))
    while stat_of $child && [ "$st_state" != Z ] && [ "$now" -lt "$until" ]; do
        doze
        clock
    done
    status=
    if stat_of $child && [ "$st_state" != Z ]; then
        status=124
        kill -KILL "-$child" || kill -KILL $child
    fi
    wait $child
    printf 'ran %s %s\n' "$1" ${status:-$?}
}

list() {
    set +f
    for file in "$dir"/[0-9]*.*.*; do
        [ ! -e "$file" ] || printf 'name %s\n' "${file##*/}"
    done
    set -f
    printf 'listed\n'
}

bye() {
    rm -f -- "$ctl"
    set +f
    set -- "$dir"/ctl.* "$dir"/[0-9]*
    if [ ! -e "$1" ] && [ ! -e "$2" ]; then
        set -- "$dir"/epoch.* "$dir"/since.*
        # A newer run that is there by now is seen, and what it puts there from now on is not among these names.
        highest_epoch
        if [ "$highest" -eq "$epoch" ]; then
            rm -f -- "$@"
            rmdir -- "$dir" && [ -n "$our_base" ] && rmdir -- "$base"
        fi
    fi
    printf 'bye\n'
    exit 0
}

next_request() {
    if [ -z "$pending" ]; then
        IFS=' ' read -r request rest
        return
    fi
    request=${pending%% *}
    rest=${pending#"$request"}
    pending=
}

# What goes on while the next request is waited for; that request, or the end of the channel, ends it.
new_task() {
    task=$1
    stat_of "$1" && task_start=$st_start
}

stop_task() {
    [ -n "$task" ] || return 0
    alive "$task" "$task_start" && kill "$task"
    wait "$task"
    task=
}

# --- hello ------------------------------------------------------------------------------------------------------

open_spool() {
    our_base=
    # shellcheck disable=SC2088
    case $spool in
    '')
        [ -n "${XDG_STATE_HOME:-${HOME-}}" ] || refuse_hello "wrong HOME is not set there: set options: {spool: DIR}"
        base=${XDG_STATE_HOME:-$HOME/.local/state}/pegasus
        our_base=yes
        ;;
    '~/'*) base=${HOME-}/${spool#??} ;;
    /*) base=$spool ;;
    *) base=$PWD/$spool ;;
    esac
    dir=$base/$queue
    tries=0
    # An earlier session of this run has seen to it.
    if [ -d "$dir" ] && [ ! -h "$dir" ] && [ -O "$dir" ] && [ -e "$dir/epoch.$epoch" ]; then return; fi
    while :; do
        # `exec` spares a fork, which the shell makes because of the traps; -m is for what the parent's ACL may add.
        if { [ -d "$base" ] || made=$(exec mkdir -p -- "$base" 2>&1); } &&
            made=$(exec mkdir -m 700 -- "$dir" 2>&1); then
            if [ -O "$dir" ]; then return; fi
            break
        fi
        [ ! -h "$dir" ] || refuse_hello "wrong $dir is a symbolic link: remove it"
        [ ! -d "$dir" ] || break
        # Another runner's goodbye may have taken it away under us.
        tries=$((tries + 1))
        [ $tries -lt 5 ] || refuse_hello "trouble $dir cannot be made: ${made##*: }"
    done
    [ -O "$dir" ] || refuse_hello "wrong $dir belongs to someone else: set options: {spool: DIR}"
    chmod 700 "$dir" || refuse_hello "trouble the mode of $dir cannot be set"
}

# Each epoch is a file of its own, so that no later writer can lower the highest. A new runner first takes the word
# from its predecessors, then looks for a higher epoch, whose runners do it in the same order: one of two sees the other.
claim() {
    [ -e "$dir/epoch.$epoch" ] || true >>"$dir/epoch.$epoch" || return 1
    fresh=no
    [ -e "$dir/since.$key" ] || fresh=yes
    ctl=$dir/none
    if [ "$role" = control ]; then
        ctl=$dir/ctl.$epoch.$key.$token
        set +f
        for file in "$dir"/ctl.*; do
            other=${file##*/ctl.}
            [ -e "$file" ] || continue
            if [ "${other%%.*}" -lt "$epoch" ] || [ "${other%.*}" = "$epoch.$key" ]; then rm -f -- "$file"; fi
        done
        set -f
        printf '%s %s\n' "$$" "$machine" >"$ctl" || return 1
    fi
    highest_epoch
    if [ "$highest" -gt "$epoch" ]; then
        rm -f -- "$ctl"
        printf '\npegasus-overtaken %s\n' "$highest"
        exit 1
    fi
    set +f
    for file in "$dir"/epoch.*; do
        [ "$file" = "$dir/epoch.$epoch" ] || rm -f -- "$file"
    done
    set -f
}

# pegasus ROLE QUEUE EPOCH KEY TOKEN SPOOL HOSTNAME SUBNODE: the last line of what is sent calls it
pegasus() {
    role=$1 queue=$2 epoch=$3 key=$4 token=$5 spool=$6
    PEGASUS_HOSTNAME=$7 PEGASUS_SUBNODE=$8
    export PEGASUS_HOSTNAME PEGASUS_SUBNODE
    read -r boot <"${PEGASUS_BOOT_ID_FILE:-/proc/sys/kernel/random/boot_id}" || boot=
    read -r machine </proc/sys/kernel/hostname || machine=$(uname -n)
    { [ -n "$boot" ] && stat_of $$; } || refuse_hello "wrong there is no /proc as Linux has it"
    runner_start=$st_start
    leader='' group=yes
    if [ -z "$bash" ]; then
        leader=$(command -v setsid) || leader='' group=no
    fi
    exec 2>/dev/null
    open_spool
    if ! claim; then
        open_spool
        claim || refuse_hello "trouble $dir cannot be written: $(why)"
    fi
    clock
    printf '\npegasus-hello %s %s %s %s %s %s\n' "$boot" "$machine" "${bash:-no}" $group "$now" "$fresh"
    while next_request; do
        stop_task
        # shellcheck disable=SC2086
        set -- $rest
        case $request in
        start) start "$@" ;;
        serve) serve "$@" ;;
        attach)
            wait_exit "$1" &
            new_task $!
            ;;
        ask) for one_name; do look_surely "$one_name" && report "$one_name"; done ;;
        fence) fence "$1" ;;
        read) send "$@" ;;
        follow)
            follow "$@" &
            new_task $!
            ;;
        end) end "$@" ;;
        run) run "$@" ;;
        clear)
            clear_names "$@"
            printf 'cleared\n'
            ;;
        list) list ;;
        know)
            if true >>"$dir/since.$key"; then
                printf 'known\n'
            else
                printf 'error %s cannot be written: %s\n' "$dir" "$(why)"
            fi
            ;;
        bye) bye ;;
        # starter.py has answered `bye`.
        left) exit 0 ;;
        '') ;;
        *)
            printf 'error unknown request %s\n' "$request"
            exit 1
            ;;
        esac
    done
    stop_task
    tries=0
    while [ -n "$unsaved" ] && [ $tries -lt 600 ]; do
        save
        [ -z "$unsaved" ] || sleep 1
        tries=$((tries + 1))
    done
    [ "$role" != control ] || rm -f -- "$ctl"
    exit 0
}
