#!/bin/sh
# raw_comparisons.sh FOLDER...: fails where C++ sources compare numbers by hand in a form that a NaN passes, or that does
# not print what was compared; support/compare.hpp has the forms that do. It reads statements, not lines.
set -eu
[ $# -gt 0 ] || {
  echo "usage: raw_comparisons.sh FOLDER..." >&2
  exit 2
}
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find "$@" -type f \( -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh' \) \
  ! -path '*/support/compare.hpp' ! -path '*/support/compare_test.cpp' | sort >"$list"
[ -s "$list" ] || {
  echo "no source under $*: nothing was searched" >&2
  exit 2
}

# Of every statement without comments and strings: the first of these forms that it has, and what to write instead.
tr '\n' '\0' <"$list" | xargs -0 awk '
  function report(why) {
    printf "%s:%d: %s\n    %s\n", file, first, why, statement
    found = 1
  }
  # if (!(error <= worst)) worst = error, whatever the names.
  function keeps_the_larger(  words) {
    if (!match(statement, /if \(!\([A-Za-z0-9_.]+ [<>]=? [A-Za-z0-9_.]+\)\) [A-Za-z0-9_.]+ = [A-Za-z0-9_.]+;/)) return 0
    split(substr(statement, RSTART, RLENGTH), words, /[^A-Za-z0-9_.]+/)
    return words[2] == words[5] && words[3] == words[4] || words[2] == words[4] && words[3] == words[5]
  }
  # An assertion goes on until its parentheses are closed, whatever lambdas are in it.
  function ends(  open, closed, rest) {
    if (statement !~ /[;{}:]$/) return 0
    if (statement !~ /^(REQUIRE|CHECK)/) return 1
    rest = statement
    open = gsub(/\(/, "", rest)
    closed = gsub(/\)/, "", rest)
    return open <= closed
  }
  function judge() {
    if (statement ~ /(REQUIRE|CHECK)[A-Z_]*\(!\(.* [<>]=? / || statement ~ /(REQUIRE|CHECK)_FALSE\(.* [<>]=? /)
      report("a NaN passes a negated comparison; write CHECK(near(got, want, {...}))")
    else if (statement ~ /(REQUIRE|CHECK)(_FALSE\(|\(!)(kd_test::)?(near|close)\(/)
      report("a NaN passes a negated comparison; write CHECK(near(got, other, {...}).differs())")
    else if (keeps_the_larger() || statement ~ /(worst|error|difference)[a-z_]* [<>]=? [A-Za-z0-9_.]+ \? / ||
             statement ~ /if \([a-z_]*(worst|error|difference)[a-z_]* [<>]=? [A-Za-z0-9_.]+\) [A-Za-z0-9_.]+ = / ||
             statement ~ /= std::f?max\(.*(abs\(|worst|error|difference)/ ||
             statement ~ /max_element\(.*(worst|error|difference)/)
      report("a NaN is lost on the way to the largest; write comparison::add(got, want, tolerance) or largest_magnitude()")
    else if (statement ~ /(REQUIRE|CHECK)[A-Z_]*\(.*abs\(.* [<>]=? / || statement ~ /abs\(.* - .* [<>]=? /)
      report("a comparison by hand does not say what it met; write near(got, want, {.absolute = ...})")
    else if (statement ~ /Approx\(|Within(Abs|Rel|ULP)/)
      report("a second way to compare; write near(got, want, {.relative = ...})")
  }
  FNR == 1 { file = FILENAME; statement = "" }
  {
    line = $0
    gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
    sub(/\/\/.*/, "", line)
    gsub(/^[ \t]+|[ \t]+$/, "", line)
    if (line == "") next
    if (statement == "") first = FNR
    statement = statement == "" ? line : statement " " line
    if (ends()) { judge(); statement = "" }
  }
  END { exit found }
' || {
  echo "use tests/support/compare.hpp, which keeps a NaN and prints got, want, index and tolerance" >&2
  exit 1
}
echo "$(wc -l <"$list") sources compare through tests/support/compare.hpp"
