#!/bin/sh
# run_case.sh [--must-fail] SOURCE COMPILER FLAGS...: one compile-fail case; see ../CMakeLists.txt for what a case says.
# --must-fail: the case itself is wrong, and exit code 0 means that this was noticed.
set -u
must_fail=no
if [ "$1" = --must-fail ]; then
  must_fail=yes
  shift
fi
source=$1 compiler=$2
shift 2

finish() {  # finish CODE TEXT
  echo "$2"
  if [ $must_fail = no ]; then exit "$1"; fi
  if [ "$1" = 3 ]; then exit 0; fi
  echo "this case was to be found wrong"
  exit 1
}

if ! [ -r "$source" ]; then
  echo "$source: cannot be read"
  exit 2
fi
output=$(LC_ALL=C "$compiler" -std=c++20 -fsyntax-only "$@" "$source" 2>&1)
code=$?

case $(basename "$source") in
  control_*)
    if [ $code = 0 ]; then finish 0 "$source: accepted, as it must be"; fi
    echo "$output"
    finish 1 "$source: the control case must compile, but $compiler rejects it"
    ;;
esac

case $("$compiler" --version) in
  *clang*) kind=clang ;;
  *) kind=gcc ;;
esac
expected=$(sed -nE "s%^ *// expect(-$kind)?: *(.*[^ ]) *$%\\2%p" "$source")
if [ -z "$expected" ]; then finish 3 "$source: names no message for $kind; add '// expect: REGEX'"; fi
if [ $code = 0 ]; then finish 3 "$source: must not compile, but $compiler accepts it"; fi
printf '%s\n' "$expected" | {
  missing=0
  while IFS= read -r regex; do
    if printf '%s\n' "$output" | grep -qE -e "$regex"; then continue; fi
    echo "$source: $compiler's message lacks: $regex"
    missing=3
  done
  exit $missing
}
missing=$?
if [ $missing != 0 ]; then
  printf '%s\n' "$output"
  finish 3 "$source: rejected with another message than it names"
fi
finish 0 "$source: rejected with the messages it names"
