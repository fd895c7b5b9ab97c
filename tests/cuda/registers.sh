#!/bin/sh
# registers.sh [--must-fail] NVCC "ARCHITECTURE..." AT_LEAST SOURCE FLAG...: compiles the kernels that a source uses and
# prints what ptxas says of each; fails where one spills registers or needs a stack, and where there are fewer kernels
# than AT_LEAST for one architecture. --must-fail: exit code 0 means that a fault was found.
set -eu
must_fail=no
if [ "$1" = --must-fail ]; then
  must_fail=yes
  shift
fi
nvcc=$1 architectures=$2 at_least=$3 source=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

faults=0
for architecture in $architectures; do
  if ! "$nvcc" -x cu -std=c++20 -arch="sm_$architecture" "$@" -cubin -Xptxas -v "$source" -o "$work/out.cubin" \
    >"$work/log" 2>&1; then
    cat "$work/log"
    echo "$source does not compile for sm_$architecture"
    exit 1
  fi
  { c++filt <"$work/log" 2>/dev/null || cat "$work/log"; } | awk -v architecture="$architecture" -v at_least="$at_least" '
    function number(before) { return match($0, "[0-9]+ bytes " before) ? substr($0, RSTART) + 0 : 0 }
    /Compiling entry function/ {
      name = $0
      sub(/^.*Compiling entry function ./, "", name)
      sub(/. for .sm_[0-9a-z]*.$/, "", name)
      sub(/^void /, "", name)
      gsub(/kd::kernel::sm_[0-9a-z_]*::/, "", name)
      next
    }
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
      name = ""
    }
    END {
      printf "sm_%s: %d kernels\n", architecture, kernels
      if (kernels > 0) print "registers  stack  spill  shared  kernel"
      for (i = 1; i <= kernels; i++) print line[i]
      if (kernels < at_least) { printf "at least %d kernels were expected\n", at_least; faults++ }
      exit faults > 0
    }' || faults=$((faults + 1))
done
if [ $must_fail = yes ]; then
  [ $faults -gt 0 ] && exit 0
  echo "this source spills registers, and it was not noticed"
  exit 1
fi
[ $faults -eq 0 ]
