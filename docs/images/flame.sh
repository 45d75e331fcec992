#!/usr/bin/env bash
# Draws docs/images/flame.svg anew: where the CPU of the topology goes under the contest's load, half of its peak.
# Needs Docker, root, perf (Debian: linux-perf) and inferno (cargo install inferno).
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bun run bench:cost --only official --rounds 8 --seconds 4 >"$work/cost" &
bench=$!
until [[ -n $(docker ps --quiet --filter "name=cost-.*nginx" --filter health=healthy) ]]; do
  kill -0 "$bench"
  sleep 0.2
done
pids=$(for service in nginx api1 api2 db; do
  docker top "$(docker ps --quiet --filter "name=cost-.*-$service")" -eo pid | tail -n +2
done | paste -sd,)
perf record --quiet --event cpu-clock --freq 999 --pid "$pids" --call-graph fp --output "$work/perf.data" sleep 25
wait "$bench"
cat "$work/cost"
# Frames without a name are Bun's own and those that its compiler has made.
perf script --input "$work/perf.data" 2>/dev/null |
  inferno-collapse-perf 2>/dev/null |
  sed -E 's/\[(bun\.exe|bun)\]/[bun]/g; s/\[perf-[0-9]+\.map\]|\[unknown\]/[compiled JavaScript or unnamed]/g' |
  inferno-flamegraph --title "CPU of the topology, 300 creates/s" --minwidth 0.6 --colors hot >docs/images/flame.svg
