#!/usr/bin/env bash
# Draws docs/images/flame.svg: where the CPU of the topology goes at half of the contest's peak.
# Needs Docker, root, perf (Debian: linux-perf) and inferno (cargo install inferno).
set -euo pipefail
case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,/^[^#]/s/^# //p' "$0"; exit 0 ;;
  *) echo "$(basename "$0"): $1: expected no argument; see --help" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bun run bench:cost --only official --rounds 16 --seconds 4 >"$work/cost" &
bench=$!
until [[ -n $(docker ps --quiet --filter "name=cost-.*nginx" --filter health=healthy) ]]; do
  kill -0 "$bench"
  sleep 0.2
done
pids=$(for service in nginx api1 api2 db; do
  docker top "$(docker ps --quiet --filter "name=cost-.*-$service")" -eo pid | tail -n +2
done | paste -sd,)
perf record --quiet --event cpu-clock --freq 999 --pid "$pids" --call-graph fp --output "$work/perf.data" sleep 25
# perf finds the names of functions only while the containers run. Frames without a name are Bun's.
perf script --input "$work/perf.data" >"$work/stacks" 2>/dev/null
wait "$bench"
cat "$work/cost"
inferno-collapse-perf <"$work/stacks" 2>/dev/null |
  sed -E 's/\[(bun\.exe|bun)\]/[bun]/g; s/\[perf-[0-9]+\.map\]|\[unknown\]/[no name]/g' |
  inferno-flamegraph --title "CPU of the topology, 300 creates/s" --minwidth 0.6 --colors hot >docs/images/flame.svg
