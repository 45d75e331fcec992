#!/usr/bin/env bash
# A load test, from payloads to verdict.
set -euo pipefail

usage() {
  cat <<'END'
Usage: run-test.sh [OPTIONS] GATLING_DIR

Generates the payloads, waits until the registry is ready, runs the contest's load with Gatling, and judges the
run. GATLING_DIR is the folder that install-gatling.sh created, such as DIR/gatling-3.9.5. The registry has to be
empty. A run leaves in stress-test/user-files/results/<run>: Gatling's report (index.html) and log
(simulation.log), verdict.json, report.html with its charts (*.svg), and usage.jsonl with --project.

  --short             about 16 s, for CI (same as --seconds-scale 0.08)
  --seconds-scale X   multiplies every duration by X, above 0 and up to 1 (default 1: 205 s); rates stay the same
  --seed N            seed of the payloads (default 1)
  --project NAME      docker compose project of the registry: measures CPU and memory of its services
                      (default: $COMPOSE_PROJECT_NAME, if set)
  --against FILE      verdict.json of an earlier run to compare with
  --not-empty         accept stored persons; their apelidos must not be among this run's
  -h, --help          this text

Environment:
  BASE_URL            the registry (default http://127.0.0.1:9999)
  JAVA_HOME, JAVA_OPTS  for Gatling

Exit code: 0 passed, 1 failed, 2 could not be run or judged. Needs bun, curl and java.
END
}

fail() {
  echo "run-test.sh: $*" >&2
  exit 2
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
scale=1
seed=1
project=${COMPOSE_PROJECT_NAME:-}
against=
not_empty=
gatling=
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --short) scale=0.08; shift ;;
    --not-empty) not_empty=yes; shift ;;
    --seconds-scale | --seed | --project | --against)
      [ $# -ge 2 ] || fail "$1 needs a value; see --help"
      case "$1" in
        --seconds-scale) scale=$2 ;;
        --seed) seed=$2 ;;
        --project) project=$2 ;;
        --against) against=$2 ;;
      esac
      shift 2
      ;;
    -*) fail "unknown option $1; see --help" ;;
    *)
      [ -z "$gatling" ] || fail "expected one GATLING_DIR; see --help"
      gatling=$1
      shift
      ;;
  esac
done
[ -n "$gatling" ] || fail "expected one GATLING_DIR; see --help"
[ -x "$gatling/bin/gatling.sh" ] || fail "no bin/gatling.sh in $gatling: install it with install-gatling.sh"
gatling=$(cd -- "$gatling" && pwd)
[[ $scale =~ ^(1|0?\.[0-9]*[1-9][0-9]*)$ ]] || fail "--seconds-scale: expected above 0 and up to 1, got $scale"
[ -z "$against" ] || [ -f "$against" ] || fail "--against: there is no file $against"
command -v bun > /dev/null || fail "bun is missing: npm install -g bun"
command -v curl > /dev/null || fail "curl is missing"
[ -d "$here/../node_modules" ] || (cd -- "$here/.." && bun install --frozen-lockfile >&2)
export BASE_URL=${BASE_URL:-http://127.0.0.1:9999} SECONDS_SCALE=$scale
BASE_URL=${BASE_URL%/}
ready_timeout_s=120

data=$here/user-files/resources
results=$here/user-files/results
mkdir -p "$results"
bun run "$here/generate.ts" --seed "$seed" --out "$data" > /dev/null || exit 2

get() { curl --silent --max-time 5 "$@" 2> /dev/null; }

echo "Waiting for $BASE_URL/contagem-pessoas ..." >&2
deadline=$((SECONDS + ready_timeout_s))
until count_before=$(get --fail "$BASE_URL/contagem-pessoas"); do
  [ "$SECONDS" -lt "$deadline" ] || fail "GET /contagem-pessoas does not answer 200 within $ready_timeout_s s"
  sleep 0.5
done
[[ $count_before =~ ^[0-9]+$ ]] || fail "GET /contagem-pessoas answers no number: $count_before"
if [ "$count_before" -gt 0 ] && [ -z "$not_empty" ]; then
  fail "$count_before persons are stored already: start with an empty registry, because this run may need their apelidos"
fi

# In an empty folder, because Gatling chooses the name of the run's folder.
run=$(mktemp -d "$results/.run.XXXXXX")
sampler=
cleanup() {
  [ -z "$sampler" ] || kill "$sampler" 2> /dev/null || true
  rm -rf -- "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -n "$project" ]; then
  bun run "$here/measure/usage.ts" --project "$project" --out "$run/usage.jsonl" &
  sampler=$!
  until [ -s "$run/usage.jsonl" ]; do
    kill -0 "$sampler" 2> /dev/null || { sampler=; fail "cannot measure the compose project $project"; }
    sleep 0.1
  done
fi

# A terminal sees Gatling's progress; elsewhere it goes to a file only.
show() { if [ -t 2 ]; then tee "$run/gatling.out" >&2; else cat > "$run/gatling.out"; fi; }
echo "Running the load ..." >&2
description="seed $seed"
[ "$scale" = 1 ] || description="$description, durations x $scale"
if ! CREATED_FILE=$run/created.tsv "$gatling/bin/gatling.sh" -sf "$here/user-files/simulations" \
  -s RinhaBackendSimulation -rsf "$data" -rf "$run" -rd "$description" 2>&1 | show; then
  tail -n 20 "$run/gatling.out" >&2
  fail "Gatling did not finish"
fi
if [ -n "$sampler" ]; then
  kill "$sampler"
  wait "$sampler" || true
  sampler=
fi

log=$(find "$run" -mindepth 2 -maxdepth 2 -name simulation.log)
[ -n "$log" ] || fail "Gatling left no simulation.log"
result=$results/$(basename -- "$(dirname -- "$log")")
find "$run" -mindepth 1 -maxdepth 1 -type f -exec mv -t "$(dirname -- "$log")" -- {} +
mv -T -- "$(dirname -- "$log")" "$result"

code=0
bun run "$here/measure/verdict.ts" --data "$data" --base-url "$BASE_URL" --count-before "$count_before" \
  ${against:+--against "$against"} "$result" || code=$?
command="./stress-test/run-test.sh --seed $seed --seconds-scale $scale${project:+ --project $project} GATLING_DIR"
if [ "$code" -le 1 ]; then
  bun run "$here/report/page.ts" --command "$command" "$result" || fail "no charts; \"bun install\" installs the library that draws them"
fi
echo >&2
echo "Pictures: $result/report.html" >&2
echo "Gatling's report: $result/index.html" >&2
exit "$code"
