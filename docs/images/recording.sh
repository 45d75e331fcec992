#!/usr/bin/env bash
# Draws recording.svg: runs the commands below on a copy of the last commit, and records the terminal. Nothing is faked:
# the 201s, the kill -9 and the count are those of this run.
# Needs git, bun, curl 7.82 or newer, python3, PyPI for the recorder, and a free port 9999.
set -euo pipefail

# The typed commands. Each scene begins on an empty screen.
scenes() {
  say "Start it. It brings its own PostgreSQL."
  run 'bun run server.ts &' started
  say "Create somebody. The 201 is sent when they are on disk."
  run "curl -i localhost:9999/pessoas --json '{\"apelido\": \"ana\", \"nome\": \"Ana Barbosa\",
  \"nascimento\": \"1985-09-23\", \"stack\": [\"Node\", \"Postgres\"]}'"
  pause 3 && clear

  say "1000 more, and right after the last 201 a kill -9 of the server and of PostgreSQL."
  run 'bun run seed 1000; kill -9 $! $(head -1 .data/pg18/postmaster.pid)'
  pause 1.5
  run 'curl localhost:9999/contagem-pessoas'
  pause 1.5
  echo

  say "Start it again. Is anybody missing?"
  run 'bun run server.ts &' started
  run 'curl localhost:9999/contagem-pessoas; echo'
  pause 1.5
  run 'curl localhost:9999/pessoas/765148a1-c1e8-5d1b-9e74-d2994fd79cb8; echo'
  pause 1
  say "All 1001 who were answered 201 are there."
}

say() { printf '\e[90m# %s\e[0m\n' "$1"; pause 1; }

# Shows a command as if it were typed, runs it, and then waits with `$2`.
run() {
  printf '\e[1;32m$\e[0m '
  local word
  while IFS= read -r -d ' ' word || [[ -n $word ]]; do
    printf '%s ' "$word"
    pause 0.09
  done <<<"$1"
  printf '\e[1D'
  pause 0.4
  eval "$1" || true
  ${2:-true}
}

started() {
  disown # else bash reports its end with the path of this script
  until curl -so /dev/null localhost:9999/readyz; do pause 0.05; done
}

# Time for the viewer.
pause() { sleep "$1"; }

case ${1:-} in
scenes) # inside the recorder
  scenes
  kill $!
  while kill -0 $! 2>/dev/null; do pause 0.05; done
  exit
  ;;
"") ;;
-h | --help) sed -n '2,/^[^#]/s/^# //p' "$0" && exit ;;
*) echo "$1: expected no argument; see --help" >&2 && exit 2 ;;
esac

if curl -so /dev/null localhost:9999; then echo "port 9999 is in use" >&2 && exit 1; fi
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
copy=/tmp/pessoas # the path is visible in the recording
mkdir "$copy"
tools=$(mktemp -d)
trap 'rm -rf "$copy" "$tools"' EXIT
git -C "$repository" archive HEAD | tar x -C "$copy"
cp "$0" "$tools/recording.sh"
cd "$copy"
bun install --frozen-lockfile >/dev/null 2>&1
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check termtosvg-ng==1.4.1

cat >"$tools/window.svg" <<'SVG'
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" id="terminal" baseProfile="full" viewBox="0 0 688 355" width="688" version="1.1">
    <title>A terminal: 1001 people are created, the server and PostgreSQL are killed, and all of them are there</title>
    <defs>
        <termtosvg:template_settings xmlns:termtosvg="https://github.com/nbedos/termtosvg">
            <termtosvg:screen_geometry columns="82" rows="19"/>
            <termtosvg:animation type="css"/>
        </termtosvg:template_settings>
        <style type="text/css" id="generated-style"></style>
        <style type="text/css" id="user-style">
            .foreground {fill: #e6edf3} .background {fill: #0d1117}
            .color0 {fill: #0d1117} .color1 {fill: #ff7b72} .color2 {fill: #56d364} .color3 {fill: #e3b341}
            .color4 {fill: #79c0ff} .color5 {fill: #d2a8ff} .color6 {fill: #56d4dd} .color7 {fill: #e6edf3}
            .color8 {fill: #9da7b3} .color9 {fill: #ffa198} .color10 {fill: #7ee787} .color11 {fill: #f2cc60}
            .color12 {fill: #a5d6ff} .color13 {fill: #e2c5ff} .color14 {fill: #b3f0ff} .color15 {fill: #ffffff}
            @media (prefers-reduced-motion: reduce) {
                #screen_view {animation-play-state: paused !important; animation-delay: -LASTms !important}
            }
        </style>
    </defs>
    <rect id="terminalui" class="background" width="100%" height="100%" rx="8"/>
    <svg id="screen" width="656" height="323" x="16" y="16" viewBox="0 0 656 323" preserveAspectRatio="xMidYMin slice"></svg>
</svg>
SVG

mkfifo "$tools/keyboard" # an input without keystrokes: the recorder ends when its input ends
recorder=("$tools/venv/bin/termtosvg")
"${recorder[@]}" record "$tools/session.cast" -g 92x19 -c "bash $tools/recording.sh scenes" <>"$tools/keyboard" >/dev/null
"${recorder[@]}" render "$tools/session.cast" "$tools/recording.svg" -m 30 -D 5000 -t "$tools/window.svg"
last=$(grep -om1 'animation-duration: *[0-9]*' "$tools/recording.svg" | grep -o '[0-9]*$')
sed "s/-LASTms/-$((last - 1))ms/" "$tools/recording.svg" >"$repository/docs/images/recording.svg"
echo "docs/images/recording.svg: $((last / 1000)) s, $(wc -c <"$repository/docs/images/recording.svg") bytes"
