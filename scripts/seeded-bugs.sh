#!/usr/bin/env bash
# Seeded bugs: faults planted on purpose, each of which a named test must catch. A test that no bug can break
# proves nothing, so the tests of the promises are tested here.
#
# A bug is a value of a private cfg, planted where the guarding line stands:
#
#     if !cfg!(steadfast_bug = "skip-sync") { medium.sync()?; }
#
# and a line of tests/seeded-bugs.txt:
#
#     skip-sync | lib store::committer::tests::an_ok_is_on_disk | `Ok` is given before the sync
#
# The second field is `lib`, `redb` or `loom`, then the full name of one test. Both are unit tests of the crate: the cfg
# reaches only the crate itself (`cargo rustc .. -- --cfg ..`), because through RUSTFLAGS it would rebuild every
# dependency once per bug. So a test that catches a bug lives in src/, not in tests/. `loom` tests are built with
# `--cfg steadfast_loom`, in release; those of `redb` with that feature.
#
# First every test runs without a bug and must pass. Then each bug is built and its test must fail: by an
# assertion, by an abort, or by hanging for more than 120 s. A bug that does not compile, a test that does not
# exist or is ignored, a bug in src/ without a line and a line without a bug in src/ are errors of their own.
#
# usage: scripts/seeded-bugs.sh [--short | --only NAME]
#   --short      the first 6 lines of the table
#   --only NAME  this bug alone
set -euo pipefail

readonly SHORT=6
readonly HANGS_AFTER=120
readonly TABLE=tests/seeded-bugs.txt

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly BUILDS=$PWD/target/bugs

die() {
    printf 'seeded-bugs: %s\n' "$*" >&2
    exit 2
}

names=() targets=() tests=() stories=()

main() {
    command -v timeout >/dev/null || die "needs timeout (GNU coreutils)"
    read_table
    compare_with_source
    choose "$@"
    rm -rf "$BUILDS/bin"
    mkdir -p "$BUILDS/bin" "$BUILDS/log"
    see_them_pass
    see_them_fail
}

trim() {
    local text=$1
    text=${text#"${text%%[![:space:]]*}"}
    printf '%s' "${text%"${text##*[![:space:]]}"}"
}

read_table() {
    [[ -f $TABLE ]] || die "$TABLE is missing"
    local line name where story target test
    while IFS= read -r line || [[ -n $line ]]; do
        [[ -z $(trim "$line") || $line == \#* ]] && continue
        IFS='|' read -r name where story <<<"$line"
        name=$(trim "$name") story=$(trim "$story")
        read -r target test <<<"$where"
        [[ $name =~ ^[a-z0-9_-]+$ && -n $story ]] || die "$TABLE: not \`name | lib test | story\`: $line"
        [[ $target == lib || $target == redb || $target == loom ]] || die "$TABLE: \`$name\` names no target (lib, redb, loom): $line"
        [[ $test =~ ^[A-Za-z0-9_:]+$ ]] || die "$TABLE: \`$name\` names no test: $line"
        [[ " ${names[*]} " == *" $name "* ]] && die "$TABLE: \`$name\` is there twice"
        names+=("$name") targets+=("$target") tests+=("$test") stories+=("$story")
    done <"$TABLE"
    ((${#names[@]} > 0)) || die "$TABLE holds no bug"
}

# The bugs of the source and those of the table are the same.
compare_with_source() {
    local listed planted
    listed=$(printf '%s\n' "${names[@]}" | sort)
    planted=$({ grep -rhoE 'steadfast_bug *= *"[^"]*"' src || true; } | sed -E 's/.*"(.*)"/\1/' | sort -u)
    [[ $listed == "$planted" ]] || {
        { diff <(printf '%s\n' "$listed") <(printf '%s\n' "$planted") || true; } | grep '^[<>]' |
            sed "s|^<|only in $TABLE:|; s|^>|only in src/:|" >&2
        die "the table and the source name different bugs"
    }
}

chosen=()

choose() {
    case "${1-}" in
        "") chosen=("${!names[@]}") ;;
        --short) chosen=("${!names[@]}") && chosen=("${chosen[@]:0:SHORT}") ;;
        --only) choose_one "${2-}" ;;
        *) die "usage: $0 [--short | --only NAME]" ;;
    esac
}

choose_one() {
    local i
    for i in "${!names[@]}"; do
        [[ ${names[i]} == "$1" ]] && chosen=("$i")
    done
    ((${#chosen[@]} == 1)) || die "no bug \`$1\` in $TABLE"
}

# build TARGET BUG: the unit tests of the crate in one executable, kept as bin/TARGET-BUG. BUG may be `none`.
build() {
    local target=$1 bug=$2 messages binary cfg=() log=$BUILDS/log/$1-$2.build
    local command=(cargo rustc --quiet --lib --profile test)
    [[ $target == redb ]] && command+=(--features redb)
    [[ $target == loom ]] && command=(cargo rustc --quiet --lib --profile bench)
    [[ $bug == none ]] || cfg=(--cfg "steadfast_bug=\"$bug\"")
    messages=$(
        export CARGO_TARGET_DIR=$BUILDS
        # the directory and the flags of the loom tests themselves: their dependencies are built once
        [[ $target == loom ]] && export CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg steadfast_loom"
        "${command[@]}" --message-format=json -- "${cfg[@]}" 2>"$log"
    ) || {
        show_errors "$messages" "$log"
        die "the $target tests do not build with the bug \`$bug\`"
    }
    binary=$(sed -nE 's/.*"executable":"([^"]+)".*/\1/p' <<<"$messages" | tail -1)
    [[ -x $binary ]] || die "cargo named no test executable ($target, $bug)"
    # the next bug is built over this one
    cp "$binary" "$BUILDS/bin/$target-$bug"
}

show_errors() {
    cat "$2" >&2
    { grep '"level":"error"' <<<"$1" || true; } | sed -E 's/.*"rendered":"(([^"\\]|\\.)*)".*/\1/; s/\\n/\n/g; s/\\"/"/g' >&2
}

# run TARGET BUG TEST: the test's status; its words are in the log.
run() {
    local status=0
    CARGO_MANIFEST_DIR=$PWD RUST_BACKTRACE=0 timeout -k 5 "$HANGS_AFTER" \
        "$BUILDS/bin/$1-$2" --exact "$3" >"$(log_of "$1" "$2")" 2>&1 || status=$?
    return "$status"
}

log_of() {
    printf '%s' "$BUILDS/log/$1-$2.test"
}

ran_one() {
    grep -q '^running 1 test$' "$1" && ! grep -q '^test .* \.\.\. ignored' "$1"
}

see_them_pass() {
    local i target test log status
    for target in $(for i in "${chosen[@]}"; do echo "${targets[i]}"; done | sort -u); do
        build "$target" none
    done
    for i in "${chosen[@]}"; do
        target=${targets[i]} test=${tests[i]} log=$(log_of "${targets[i]}" none) status=0
        run "$target" none "$test" || status=$?
        ran_one "$log" || die "\`${names[i]}\`: there is no $target test \`$test\`, or it is ignored"
        ((status == 0)) && grep -q '^test result: ok. 1 passed' "$log" ||
            { cat "$log" >&2 && die "\`$test\` does not pass without a bug (status $status)"; }
    done
    printf 'without a bug the tests of %d bugs pass\n\n' "${#chosen[@]}"
}

see_them_fail() {
    local i verdict missed=0 row='%-28s  %-22s  %s\n'
    # shellcheck disable=SC2059
    printf "$row" bug verdict 'test (what the bug does)'
    for i in "${chosen[@]}"; do
        build "${targets[i]}" "${names[i]}"
        verdict=$(judge "$i")
        [[ $verdict == caught* ]] || missed=$((missed + 1))
        [[ $verdict == error* ]] && die "\`${names[i]}\`: ${verdict#error }"
        # shellcheck disable=SC2059
        printf "$row" "${names[i]}" "$verdict" "${targets[i]} ${tests[i]} (${stories[i]})"
        rm -f "$BUILDS/bin/${targets[i]}-${names[i]}"
    done
    printf '\n%d of %d caught\n' "$((${#chosen[@]} - missed))" "${#chosen[@]}"
    ((missed == 0))
}

judge() {
    local target=${targets[$1]} bug=${names[$1]} status=0 log
    log=$(log_of "$target" "$bug")
    run "$target" "$bug" "${tests[$1]}" || status=$?
    if ! ran_one "$log"; then
        echo "error the test did not run (status $status, see $log)"
    elif ((status == 0)); then
        echo "NOT CAUGHT"
    elif ((status == 124 || status == 137)); then
        echo "caught: hangs"
    elif grep -q '^test result: FAILED. 0 passed; 1 failed' "$log"; then
        echo "caught"
    else
        echo "caught: dies ($status)"
    fi
}

main "$@"
