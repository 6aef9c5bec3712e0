#!/usr/bin/env bash
# The part of `cargo deny check` that needs neither cargo-deny nor a network: every crate's licence is one that deny.toml
# allows, and every crate comes from crates.io. Advisories, yanked versions and doubled crates it does not see.
# `scripts/check-licences.sh EXPRESSION..` judges licence expressions instead.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly REGISTRY='registry+https://github.com/rust-lang/crates.io-index'

allowed=" $(awk '/^allow = \[/ {on=1; next} on && /^\]/ {exit} on && /^ *"/ {split($0, part, "\""); gsub(/ WITH /, "+WITH+", part[2]); printf "%s ", part[2]}' deny.toml)"

# Whether an SPDX expression holds with the allowed licences. `A/B` is the old way to write `A OR B`; a licence WITH an
# exception is another licence.
holds() {
    local expression=$1 term value=''
    expression=${expression//\// OR }
    expression=${expression//(/ ( }
    expression=${expression//)/ ) }
    expression=${expression// WITH /+WITH+}
    [[ $expression =~ [^[:space:]] ]] || return 1
    for term in $expression; do
        case $term in
        OR) value+='||' ;;
        AND) value+='&&' ;;
        '(' | ')') value+=$term ;;
        *) [[ $allowed == *" $term "* ]] && value+=1 || value+=0 ;;
        esac
    done
    # an expression that is none is not allowed
    (($value)) 2>/dev/null
}

judge() {
    local expression
    for expression in "$@"; do
        holds "$expression" && echo "allowed: $expression" || echo "refused: $expression"
    done
}

check_licences() {
    local crate licence count=0 refused=0
    while IFS='|' read -r crate licence; do
        count=$((count + 1))
        holds "$licence" && continue
        refused=$((refused + 1))
        echo "$crate: licence \`$licence\` is not allowed in deny.toml"
    done < <(cargo tree --locked --all-features --target all --edges normal,build,dev --prefix none --no-dedupe --format '{p}|{l}' |
        grep -vF "($PWD)" | sort -u)
    echo "$count crates, $refused with a licence that is not allowed; allowed:$allowed"
    ((count > 10 && refused == 0))
}

check_sources() {
    local foreign
    foreign=$(grep '^source = ' Cargo.lock | grep -vF "\"$REGISTRY\"" | sort -u) || true
    [[ -z $foreign ]] && return
    echo "crates from elsewhere than crates.io: $foreign"
    return 1
}

if (($# > 0)); then
    judge "$@"
else
    failed=0
    check_licences || failed=1
    check_sources || failed=1
    exit $failed
fi
