#!/bin/sh
# Cases for one engine and arrangement, one a line: run.sh ENGINE ARRANGEMENT DIR LOADED CASE...
# A case with a number of its own is written CASE=N.
set -eu
engine=$1 arrangement=$2 dir=$3 loaded=$4
shift 4
bench=${CARGO_TARGET_DIR:-target}/release/store-bench
for case; do
    n=$loaded
    case $case in *=*) n=${case#*=} ;; esac
    [ "${case%%=*}" != load ] || rm -rf "$dir"
    printf '%s %s %s: ' "$engine" "$arrangement" "$loaded"
    "$bench" "$engine" "$arrangement" "${case%%=*}" "$dir" "$n" 2>&1 | tr '\n' ';'
    echo
done
rm -rf "$dir"
