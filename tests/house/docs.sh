#!/usr/bin/env bash
# What the pages tell people to type, typed. If a command of the README or a job of a page were refused, the first thing
# that a reader tried would fail.
#   docs.sh BUILD_DIR
# A fence that begins ```sh run is run, page by page, in an empty folder where build/ and examples/ are at hand; every
# ```json fence with a "model" goes to `longtake plan`.
set -euo pipefail
build=$(realpath "$1")
tree=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$build" "$work/build"
ln -s "$tree/examples" "$work/examples"
cd "$work"

fences() { # PAGE OPENING PREFIX: its blocks as PREFIX.1, PREFIX.2, …
    awk -v opening="\`\`\`$2" -v prefix="$3" '
        inside && /^```$/ { inside = 0; close(file) }
        inside { print >file }
        $0 == opening { inside = 1; file = prefix "." ++count; printf "" >file }' "$1"
}

runs=0 jobs=0 links=0
for page in "$tree"/README.md "$tree"/examples/README.md "$tree"/docs/*.md; do
    name=${page#"$tree"/}
    rm -f block.*
    fences "$page" "sh run" block.run
    fences "$page" json block.json
    for block in block.run.*; do
        [[ -e $block ]] || continue
        timeout -s KILL 120 bash -euo pipefail "$block" >out 2>&1 || { echo "$name: refused:"; cat "$block" out; exit 1; }
        runs=$((runs + 1))
    done
    for block in block.json.*; do
        [[ -e $block ]] && grep -q '"model"' "$block" || continue
        "$build/longtake" plan "$block" >out 2>&1 || { echo "$name: not a job:"; cat "$block" out; exit 1; }
        jobs=$((jobs + 1))
    done
    while read -r target; do
        [[ -e $(dirname "$page")/$target ]] || { echo "$name: a link to $target, which is not there"; exit 1; }
        links=$((links + 1))
    done < <(grep -oE '\]\([^)#: ]+' "$page" | sed 's/^](//')
done
((runs >= 5 && jobs >= 6 && links >= 20)) || { echo "only $runs commands, $jobs jobs, $links links found"; exit 1; }
echo "$runs blocks of commands run, $jobs jobs planned, $links links followed"
