#!/bin/sh
# no_common_symbols.sh NM OBJECT...: fails when two objects define the same weak symbol of kd, of which the linker would
# keep one copy for both instruction sets.
set -eu
nm=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0
for object in "$@"; do
  count=$((count + 1))
  "$nm" --defined-only "$object" | awk '$2 ~ /^[WVu]$/ && $3 ~ /2kd/ { print $3 }' | sort -u >"$work/$count"
  printf '%6d weak symbols of kd in %s\n' "$(wc -l <"$work/$count")" "$object"
  if ! [ -s "$work/$count" ]; then
    echo "no weak symbol of kd at all: nothing was compared" >&2
    exit 1
  fi
done
if [ "$count" -lt 2 ]; then
  echo "usage: no_common_symbols.sh NM OBJECT OBJECT..." >&2
  exit 2
fi
cat "$work"/* | sort | uniq -d >"$work/common"
if [ -s "$work/common" ]; then
  echo "defined for more than one instruction set under one name:" >&2
  if command -v c++filt >/dev/null; then c++filt <"$work/common" >&2; else cat "$work/common" >&2; fi
  exit 1
fi
echo "no weak symbol of kd is in two objects"
