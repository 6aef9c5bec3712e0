#!/usr/bin/env bash
# Instructions of one message, counted by callgrind: the same on a busy machine as on a quiet one, but for how threads happen
# to take turns (a few percent). Two runs, one with twice as many messages; what the second has more is theirs.
#
# usage: scripts/instructions.sh [KIND [MESSAGES]]      send, tell (the default) or cycle; 20000
#
# Needs valgrind. `callgrind_annotate target/callgrind/KIND-2.out` then says where they are.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly KIND=${1:-tell}
readonly MESSAGES=${2:-20000}
readonly OUT=$PWD/target/callgrind

die() {
    printf 'instructions: %s\n' "$*" >&2
    exit 2
}

command -v valgrind >/dev/null || die "needs valgrind"
mkdir -p "$OUT"
binary=$(cargo bench --locked -p steadfast-benches --bench profile --no-run --message-format=json |
    sed -nE 's/.*"executable":"([^"]+)".*/\1/p' | tail -1)
[[ -x $binary ]] || die "cargo named no executable"

# count TIMES: instructions of a run with so many times the messages
count() {
    valgrind --tool=callgrind --callgrind-out-file="$OUT/$KIND-$1.out" --log-file="$OUT/$KIND-$1.log" \
        "$binary" "$KIND" "$((MESSAGES * $1))" >/dev/null
    sed -nE 's/^(summary|totals): ([0-9]+).*/\2/p' "$OUT/$KIND-$1.out" | tail -1
}

once=$(count 1)
twice=$(count 2)
printf '%s: %d instructions a message (%d of them, and %d)\n' \
    "$KIND" "$(((twice - once) / MESSAGES))" "$MESSAGES" "$((2 * MESSAGES))"
