#!/usr/bin/env bash
# docs/configuration.md ends with the options of every command, as --help tells them. If it told something else, scripts
# written from it would fail.
#   options.sh BUILD_DIR            checks
#   options.sh BUILD_DIR --write    writes the tables anew
set -euo pipefail
build=$1
page=$(dirname "$0")/../../docs/configuration.md
mark='## Options of every command'

table() { # PROGRAM COMMAND
    printf '\n### %s %s\n\n' "$1" "$2"
    "$build/$1" "$2" --help | awk '
        /^usage: / { sub(/^usage: /, ""); printf "`%s`\n\n| option | what it does |\n|---|---|\n", $0 }
        /^Options:/ { inside = 1; next }
        /^$/ { inside = 0 }
        inside && /^  --/ { sub(/^  /, ""); at = match($0, /  +/); name = substr($0, 1, at - 1)
                            text = substr($0, at + RLENGTH); gsub(/\|/, "\\|", text); printf "| `%s` | %s |\n", name, text }'
}

commands() { # PROGRAM
    "$build/$1" --help | awk '/^Commands:/ { inside = 1; next } /^$/ { inside = 0 } inside { print $1 }'
}

tables() {
    local program command
    for program in longtake longtake-worker; do
        for command in $(commands $program); do table $program "$command"; done
    done
}

if [[ ${2:-} == --write ]]; then
    { sed "/^$mark\$/q" "$page"; tables; } >"$page.new"
    mv "$page.new" "$page"
elif ! diff <(sed "1,/^$mark\$/d" "$page") <(tables); then
    echo "docs/configuration.md is not what --help says: tests/house/options.sh build --write"
    exit 1
fi
