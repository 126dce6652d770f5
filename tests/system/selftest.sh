#!/usr/bin/env bash
# If selftest broke, the first person with a new card would learn nothing from it, or would trust a card that computes
# wrong. The host whole; the ops, copies and one model on the emulated card, where that is built; a card that breaks.
tree=$(cd "$(dirname "$0")/../.." && pwd)
. "$tree/tests/system/lib.sh"

count() { # FILE FILTER: rows
    jq "[.rows[] | select($2)] | length" "$1"
}

ops=$(grep -cE '^    X\([a-z_]+\)' "$tree/kernels/kernels.h")
timeout -s KILL 100 "$build/longtake-worker" selftest --quick --json host.json >host.out 2>host.err || fail "$(cat host.out)"
[[ $(field host.json device) == host && $(count host.json '.verdict != "pass"') == 0 ]] || fail "$(cat host.json)"
[[ $(count host.json '.part == "op" and .bound > 0') == $((ops + 4)) ]] || fail "not every op is there: $(cat host.out)"
[[ $(count host.json '.part == "model" and .error == 0') == 10 ]] || fail "the host is not equal to itself"
[[ $(count host.json '.part == "copy" and .rate > 0') -ge 2 ]] || fail "copies have no rate"

card="$build/longtake-worker-emulated"
if [[ ! -x $card ]]; then
    echo "the host passes; no emulated card is built here"
    exit 0
fi
for part in ops copies; do
    CUEMU_PROTECT=1 CUEMU_LEAKS=1 timeout -s KILL 200 "$card" selftest --device cuda:0 --quick --part $part --json $part.json \
        >$part.out 2>$part.err || fail "$(cat $part.out)"
    [[ $(count $part.json '.verdict != "pass"') == 0 ]] || fail "$(cat $part.out)"
done
[[ $(count ops.json '.part == "op" and .bound > 0') == $((ops + 4)) ]] || fail "not every op ran on the card: $(cat ops.out)"

# A card that breaks half-way fails from there on, with its own exit code; so does an eval.
code=0
CUEMU_FAIL=launch:40 timeout -s KILL 100 "$card" selftest --device cuda:0 --quick --part ops --json broken.json \
    >broken.out 2>broken.err || code=$?
[[ $code == 9 && $(count broken.json '.verdict == "FAIL"') -gt 5 ]] || fail "exit code $code: $(cat broken.out broken.err)"
grep -q "illegal memory access\|cudaErrorIllegalAddress" broken.out || fail "it does not say why: $(cat broken.out)"
code=0
CUEMU_DEVICES=0 "$card" selftest --device cuda:0 >none.out 2>none.err || code=$?
[[ $code == 4 && $(wc -l <none.err) == 1 ]] || fail "no card: exit code $code, $(cat none.err)"
echo "host and emulated card pass; a broken card fails"
