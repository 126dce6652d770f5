#!/usr/bin/env bash
# README's first command. If it broke, nobody would type a second one.
set -euo pipefail
cd "$(dirname "$0")/../.."
./farm demo >build/demo.log 2>&1 || { tail -n 30 build/demo.log; exit 1; }
report=demo/report.json
jq -e '.frames == 161 and .windows >= 4 and (.workers | length) == 2 and .leases_lost == 0' $report >/dev/null ||
    { cat $report; exit 1; }
[[ -s demo/take.mp4 && -s demo/take.safetensors && ! -e demo/take.mp4.longtake ]] || { ls demo; exit 1; }
grep -q 'the weights are random' build/demo.log || { echo "it does not say what it shows"; exit 1; }
echo "ten seconds of video in $(jq .seconds $report) s of rendering"
