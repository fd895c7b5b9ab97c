#!/bin/sh
# registers.sh [--must-fail] [--every FOLDER] "ARCHITECTURE..." AT_LEAST OBJECT: prints what ptxas said of the kernels of an
# object when it was compiled (OBJECT.ptxas); fails where one spills registers or needs a stack, and where there are fewer
# kernels than AT_LEAST for one architecture. --every: each kernel that FOLDER defines must be among them, for each
# architecture. --must-fail: exit code 0 means that a fault was found.
set -eu
must_fail=no every=
if [ "$1" = --must-fail ]; then
  must_fail=yes
  shift
fi
if [ "$1" = --every ]; then
  every=$2
  shift 2
fi
architectures=$1 at_least=$2 log=$3.ptxas
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! [ -e "$log" ]; then
  echo "$log is missing: it is written when the object is compiled" >&2
  exit 2
fi
{ c++filt <"$log" 2>/dev/null || cat "$log"; } >"$work/log"

faults=0
for architecture in $architectures; do
  : >"$work/names"
  awk -v architecture="$architecture" -v at_least="$at_least" -v names="$work/names" '
    function number(before) { return match($0, "[0-9]+ bytes " before) ? substr($0, RSTART) + 0 : 0 }
    /Compiling entry function/ {
      here = $0 ~ ("for .sm_" architecture ".$")
      name = $0
      sub(/^.*Compiling entry function ./, "", name)
      sub(/. for .sm_[0-9a-z]*.$/, "", name)
      sub(/^void /, "", name)
      gsub(/kd::kernel::sm_[0-9a-z_]*::/, "", name)
      next
    }
    !here { next }
    /Function properties for/ { if (name == "") name = "a function that is called: " $NF; next }
    /bytes stack frame/ {
      stack = number("stack")
      spilled = number("spill stores") + number("spill loads")
      if (name ~ /^a function/) { if (spilled > 0) { print "SPILLS: " name; faults++ } name = "" }
      next
    }
    /Used [0-9]+ registers/ {
      match($0, /Used [0-9]+/)
      registers = substr($0, RSTART + 5, RLENGTH - 5) + 0
      shared = number("smem")
      if (name == "") next
      kernels++
      fault = ""
      if (spilled > 0) fault = "  SPILLS"
      if (stack > 0) fault = fault "  STACK"
      if (fault != "") faults++
      line[kernels] = sprintf("%9d %6d %6d %7d  %s%s", registers, stack, spilled, shared, substr(name, 1, 160), fault)
      sub(/[<(].*$/, "", name)
      print name >names
      name = ""
    }
    END {
      printf "sm_%s: %d kernels\n", architecture, kernels
      if (kernels > 0) print "registers  stack  spill  shared  kernel"
      for (i = 1; i <= kernels; i++) print line[i]
      if (kernels < at_least) { printf "at least %d kernels were expected\n", at_least; faults++ }
      exit faults > 0
    }' "$work/log" || faults=$((faults + 1))
  [ -n "$every" ] || continue
  # KD_KERNEL void __launch_bounds__(...) name(...), over one line or two.
  find "$every" -name '*.cuh' -exec awk '
    /^(KD_KERNEL|__global__) / { text = ""; open = 1 }
    open {
      text = text " " $0
      gsub(/__launch_bounds__\([^()]*\)/, "", text)
      # Not __launch_bounds__, whose arguments may go on in the next line.
      if (match(text, /void +[a-z][a-z0-9_]*\(/)) { print substr(text, RSTART + 5, RLENGTH - 6); open = 0 }
    }' {} + | tr -d ' ' | sort -u >"$work/wanted"
  if ! [ -s "$work/wanted" ]; then
    echo "no kernel was found in $every"
    faults=$((faults + 1))
  fi
  sort -u "$work/names" | comm -23 "$work/wanted" - >"$work/missing"
  if [ -s "$work/missing" ]; then
    echo "sm_$architecture: these kernels were not compiled; tests/cuda/every_kernel.cu must use them:"
    cat "$work/missing"
    faults=$((faults + 1))
  fi
done
if [ $must_fail = yes ]; then
  [ $faults -gt 0 ] && exit 0
  echo "this source spills registers, and it was not noticed"
  exit 1
fi
[ $faults -eq 0 ]
