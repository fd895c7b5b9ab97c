#!/bin/sh
# flag_sets.sh COMPILER -I...: what kd makes of sets of compiler flags: name, floats in a vector, FMA. Each must be
# what the table says, and one name must mean one width and one FMA.
set -eu
compiler=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/table" <<'TABLE'
sse2      4 0  -march=x86-64
avx       4 0  -mavx
avx2      8 0  -mavx2
avx2_fma  8 1  -mavx2 -mfma
avx512f  16 1  -mavx512f
avx512f  16 1  -mavx512f -mavx2 -mfma
avx       4 0  -march=sandybridge
avx512f  16 1  -march=knl
sse4_2    4 0  -march=x86-64-v2
avx2_fma  8 1  -march=x86-64-v3
avx512   16 1  -march=x86-64-v4
avx_fma   4 1  -mavx -mfma
ssse3     4 0  -march=core2
TABLE

cat >"$work/probe.cpp" <<'SOURCE'
#include <string_view>

#include "kd/cpu/exponential.hpp"

static_assert(kd::instruction_set == std::string_view(NAME), "the name");
static_assert(kd::cpu::native_width == WIDTH, "the floats in a vector");
static_assert(kd::cpu::has_fma == FMA, "the FMA");
SOURCE

failures=0
while read -r name width fma flags; do
  # shellcheck disable=SC2086 # flags are words
  if ! "$compiler" -fsyntax-only $flags -x c++ /dev/null 2>/dev/null; then
    echo "$flags: not known to this compiler"
    continue
  fi
  # shellcheck disable=SC2086
  if "$compiler" -std=c++20 -fsyntax-only -Werror -DKD_NO_OPTIMISATION_NOTE $flags -DNAME="\"$name\"" -DWIDTH="$width" -DFMA="$fma" "$@" \
    "$work/probe.cpp"; then
    echo "$flags: $name, $width floats, FMA $fma"
  else
    echo "$flags: is not $name, $width floats, FMA $fma" >&2
    failures=$((failures + 1))
  fi
done <"$work/table"
awk '{ print $1 }' "$work/table" | sort -u | wc -l >"$work/names"
awk '{ print $1, $2, $3 }' "$work/table" | sort -u | wc -l >"$work/meanings"
if ! cmp -s "$work/names" "$work/meanings"; then
  echo "the table gives one name two widths or two FMAs" >&2
  failures=$((failures + 1))
fi
[ "$failures" = 0 ]
