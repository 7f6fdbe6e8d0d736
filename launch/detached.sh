#!/usr/bin/env bash
# Runs a command that goes on when the terminal, or the connection, is closed.
#
#   launch/detached.sh NAME COMMAND ARGS
#
# Its output goes to NAME.log, its process group to NAME.pid and, at its end, its status to
# NAME.status. A second one of the same name is refused while the first one runs.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "error: no arguments: launch/detached.sh NAME COMMAND ARGS" >&2
  exit 2
fi
if [[ $1 == --dry-run ]]; then
  shift
  printf '%q ' "${@:2}"
  echo
  exit 0
fi
name=$1
shift
if [[ -f $name.pid && ! -f $name.status ]] && kill -0 -- "-$(<"$name.pid")" 2>/dev/null; then
  echo "error: $name runs already, as $(<"$name.pid"): stop it first" >&2
  exit 2
fi
rm -f "$name.status"
setsid nohup bash -c '
  name=$1
  shift
  echo $$ >"$name.pid"
  trap "" TERM # the command hears it, and ends when it has saved
  status=0
  (trap - TERM && exec "$@") || status=$?
  echo "$status" >"$name.status"
' detached "$name" "$@" >>"$name.log" 2>&1 </dev/null &
disown
echo "started: $name.log"
