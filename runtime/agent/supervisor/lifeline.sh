# Usage: lifeline.sh <grace seconds> <command> [arguments...]
#
# Runs a command that would outlive its agent: when standard input closes, the agent is gone, and the whole process group
# is ended: SIGTERM, then SIGKILL after the grace. A SIGTERM to this shell is handed on once, since a second one makes
# some servers drop their requests. Ends as the command ended.
grace=$1
shift
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
# A handler and not an ignored signal, because a child would inherit that.
trap 'kill -TERM "$child" 2>/dev/null' TERM INT HUP
{
  cat <&3 >/dev/null
  trap '' TERM
  kill -TERM "$child" 2>/dev/null
  sleep "$grace"
  kill -KILL 0
} &
while :; do
  wait "$child"
  status=$?
  kill -0 "$child" 2>/dev/null || break
done
# What the command left behind (tensor-parallel workers, the watcher above) ends with it.
trap '' TERM
kill -TERM 0
trap - TERM
[ "$status" -gt 128 ] && kill -"$((status - 128))" $$
exit "$status"
