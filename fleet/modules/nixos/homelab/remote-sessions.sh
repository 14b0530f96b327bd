# Holds a sleep inhibitor while somebody is logged in from another machine; ends at once when nobody is.
# Started by a path unit whenever logind's sessions change, and once as the inhibitor's child (`hold`).
remote() {
  loginctl list-sessions --no-legend | while read -r session _; do
    properties=$(loginctl show-session "$session" --property=Remote --property=State 2>/dev/null) || continue
    case $properties in *State=closing*) continue ;; *Remote=yes*) echo "$session" ;; esac
  done
}

if [ "${1:-}" = hold ]; then
  while [ -n "$(remote)" ]; do sleep 10; done
elif [ -n "$(remote)" ]; then
  exec systemd-inhibit --what=sleep --mode=block --who=SSH --why="somebody is logged in over SSH" /bin/sh "$0" hold
fi
