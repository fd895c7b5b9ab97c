#!/bin/sh
# raw_comparisons_test.sh: raw_comparisons.sh finds every planted form, names its line, and leaves good ones alone.
set -eu
check=$(dirname "$0")/raw_comparisons.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
  echo "$1" >&2
  failures=$((failures + 1))
}

# Each line is one file with one fault; \n stands for an end of line.
while IFS= read -r bad; do
  rm -rf "$work/bad"
  mkdir "$work/bad"
  { echo "int before = 1;" && printf '%b\n' "$bad" && echo "int after = 1;"; } >"$work/bad/bad_test.cpp"
  if sh "$check" "$work/bad" >"$work/log" 2>&1; then
    fail "not found: $bad"
  elif ! grep -q "bad_test.cpp:2: .*; write " "$work/log"; then
    fail "found without line 2 and a remedy: $bad
$(cat "$work/log")"
  fi
done <<'LINES'
  REQUIRE(!(worst > tolerance));
  CHECK(!(relative_error(got, want) > 1e-6));
  CHECK(!(relative_error(got, numeric([&] {\n          return value; })) >\n          tolerance));
  REQUIRE(!(!(worst <= 1)));
  CHECK_FALSE(error > tolerance);
  CHECK_FALSE(near(got, other, {.of_largest = 0.1}));
  CHECK(!kd_test::close(got, other, 0.1));
  if (!(error <= worst)) worst = error;
  if (!(d < m)) m = d;
  worst = error <= worst ? worst : error;
  if (error > worst) worst = error;
  worst = std::max(worst, std::abs(got[i] - want[i]));
  most = std::fmax(most, error);
  const double largest = *std::max_element(errors.begin(), errors.end());
  CHECK(std::abs(a - b) < 1e-6);
  CHECK(std::abs(got.loss -\n        want.loss) <= 1e-3 * want.loss);
  CHECK(std::fabs(mean) <= 5 * deviation);
  wrong += !(std::abs(got[i] - want[i]) <= 5e-7f);
  if (!(std::abs(got - want) <= 1e-4 * want)) return false;
  for (std::size_t i = 0; i < n; ++i) CHECK(std::abs(x[i] - y[i]) <= 1e-5f);
  REQUIRE(got == Approx(want).epsilon(0.005));
  CHECK_THAT(got, Catch::WithinAbs(want, 1e-6));
LINES

mkdir -p "$work/good/support"
cat >"$work/good/good_test.cpp" <<'GOOD'
// CHECK(std::abs(a - b) < 1e-6) is what not to write; so is REQUIRE(!(worst > tolerance)).
  CHECK(near(got, want, {.of_largest = 1e-6}));
  CHECK(near(got, other, {.of_largest = 0.1}).differs());
  comparison gradient("if (!(error <= worst)) worst = error;");
  for (std::size_t i = 0; i < n; ++i) gradient.add(got[i], want[i], 2.5e-7 * std::max(std::abs(want[i]), 0x1p-4));
  CHECK(gradient);
  const double scale = kd_test::largest_magnitude(want);
  for (std::size_t c = 0; c < classes; ++c) largest = std::max(largest, double{x[c]});
  CHECK(history.back().loss < 0.5 * history.front().loss);
  CHECK_FALSE(run(early_return<false>, 1, 64).error.has_value());
  for (std::size_t i = 0; i < n; ++i) size += std::abs(x[i]);
  CHECK(largest <= bound * 1.000001);
  all[i] = relu ? std::max(sum, 0.0) : sum;
  CHECK(!schedule::cosine(9).counts_steps());
GOOD
# What compare.hpp itself is written with.
echo "  if (!(error <= worst)) worst = error;" >"$work/good/support/compare.hpp"
sh "$check" "$work/good" >"$work/log" 2>&1 || fail "good forms were rejected:
$(cat "$work/log")"

mkdir "$work/empty"
if sh "$check" "$work/empty" >/dev/null 2>&1; then fail "searching nothing passed"; fi

[ "$failures" -eq 0 ] || exit 1
echo "every planted form was found"
