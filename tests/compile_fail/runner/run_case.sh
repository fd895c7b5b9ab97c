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
case $("$compiler" --version) in
  *clang*) kind=clang ;;
  *) kind=gcc ;;
esac
said() {  # said WORD: what the case says after "// WORD:" or, for this compiler alone, "// WORD-gcc:"
  sed -nE "s%^ *// $1(-$kind)?: *(.*[^ ]) *$%\\2%p" "$source"
}
# shellcheck disable=SC2046 # flags are words
output=$(LC_ALL=C "$compiler" -std=c++20 -fsyntax-only -DKD_NO_OPTIMISATION_NOTE "$@" $(said flags) "$source" 2>&1)
code=$?

case $(basename "$source") in
  control_*)
    if [ $code = 0 ]; then finish 0 "$source: accepted, as it must be"; fi
    echo "$output"
    finish 1 "$source: the control case must compile, but $compiler rejects it"
    ;;
esac

expected=$(said expect)
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
most=$(said errors)
count=$(printf '%s\n' "$output" | grep -cE '(^|[ :])error: ')
if [ -n "$most" ] && [ "$count" -gt "$most" ]; then
  printf '%s\n' "$output"
  finish 3 "$source: rejected with $count errors, at most $most expected"
fi
finish 0 "$source: rejected with the messages it names"
