#!/bin/sh
# hidden_symbols.sh NM LIBRARY...: fails where a shared library shows a kernel, or anything of kd::cuda, to others: the
# loader would then give one library's to the other, which may be compiled for another GPU.
set -eu
nm=$1
shift
# The mangled names of what lies in kd::cuda (behind the namespace of the version) and in kd::kernel.
own='_Z[A-Z]*N[A-Z]*2kd([0-9]+v[0-9]+_[a-z0-9_]+4cuda|6kernel)'
for library in "$@"; do
  all=$("$nm" --defined-only "$library" | grep -cE "$own" || true)
  if [ "$all" -eq 0 ]; then
    echo "$library has no symbol of kd::kernel or kd::cuda at all: nothing was checked" >&2
    exit 1
  fi
  shown=$("$nm" -D --defined-only "$library" | grep -E "$own" || true)
  if [ -n "$shown" ]; then
    { c++filt 2>/dev/null || cat; } <<END
$shown
END
    echo "$library shows the symbols above" >&2
    exit 1
  fi
  echo "$library: $all symbols of kd::kernel and kd::cuda, none of them visible"
done
