#!/bin/bash
# gpu_dry_run.sh ROOT SCRATCH: runs ROOT/.ci/gpu, which is ./run gpu, with a stand-in for each program that needs a GPU or
# time (gpu_stand_in.sh): with the estimated times every part finds its own and the run ends green; what fails makes it red;
# what finds no time is "not run" and does not.
set -u
root=$1 scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch/data"
faults=0
parts="configure build tests-gpu parity build-report memcheck racecheck initcheck synccheck report peer bench"

fault() {
  echo "FAULT: $*"
  faults=$((faults + 1))
}
# dry_run CODE NAME=VALUE...: a whole run with these variables must end with this exit code; its results are in $out.
dry_run() {
  local wanted=$1 code link
  shift
  run="dry run $*"
  rm -rf "$scratch/dry" "$scratch/build" "$scratch/out"
  mkdir -p "$scratch/dry/bin"
  cp "$root/tests/package/gpu_stand_in.sh" "$scratch/dry/stand_in"
  chmod +x "$scratch/dry/stand_in"
  for link in date timeout tail nvidia-smi nvcc cmake ctest compute-sanitizer python3; do
    ln -s "$scratch/dry/stand_in" "$scratch/dry/bin/$link"
  done
  echo 1000000 >"$scratch/dry/clock"
  out=$scratch/out
  env -u CUDACXX -u KD_GPU_SECONDS -u KD_CMAKE_ARGS PATH="$scratch/dry/bin:$PATH" KD_DRY="$scratch/dry" KD_DRY_ROOT="$root" \
    KD_BUILD="$scratch/build" KD_JOBS=1 "$@" "${gpu:-$root/.ci/gpu}" "$out" --data "$scratch/data" >"$scratch/said" 2>&1
  code=$?
  echo "$run: exit code $code, $(sed -nE 's/^kd on a GPU, //p' "$out/summary.txt" 2>/dev/null)"
  if [ $code != "$wanted" ]; then
    fault "$run: exit code $code, wanted $wanted"
    cat "$scratch/said"
  fi
}
verdict_of() { sed -nE 's/.*"verdict": "([^"]*)".*/\1/p' "$out/parts/$1.json" 2>/dev/null; }
expect() {  # expect VERDICT PART...
  local verdict=$1 part
  shift
  for part in "$@"; do
    [ "$(verdict_of "$part")" = "$verdict" ] || fault "$run: $part is '$(verdict_of "$part")', wanted '$verdict'"
  done
}

# ---- green, within its time, with every part and every program run
dry_run 0
# shellcheck disable=SC2086
expect passed $parts
[ "$(find "$out/parts" -name '*.json' | wc -l)" = "$(wc -w <<<"$parts")" ] || fault "other parts were run than: $parts"
seconds=$(sed -nE 's/^\{"seconds": ([0-9]+).*/\1/p' "$out/summary.json")
[ "${seconds:-9999}" -le 465 ] || fault "the run took $seconds s, more than 465"
for log in memcheck racecheck initcheck synccheck bench; do
  if grep -q '^not run' "$out/$log.log"; then fault "$log left out: $(grep '^not run' "$out/$log.log")"; fi
done
for tool in memcheck racecheck initcheck synccheck; do
  [ "$(grep -c '^clean' "$out/$tool.log")" -ge 15 ] || fault "$tool looked at $(grep -c '^clean' "$out/$tool.log") programs"
done
python=$(PATH=${PATH#"$scratch/dry/bin:"} command -v python3)
if [ -n "$python" ]; then "$python" -m json.tool "$out/summary.json" >/dev/null || fault "summary.json is no JSON"; fi

# ---- red: what fails alone, what fails together, and what takes ten times as long where that is a failure
dry_run 1 KD_DRY_FEW=1 KD_DRY_FAILING=configure-report
expect FAILED configure
for part in parity memcheck report bench; do
  dry_run 1 KD_DRY_FEW=1 KD_DRY_FAILING=$part
  expect FAILED $part
done
dry_run 1 KD_DRY_FEW=1 KD_DRY_FAILING="build tests-gpu build-report synccheck peer"
expect FAILED build tests-gpu build-report synccheck peer
expect passed parity bench
expect "not run" report
dry_run 1 KD_DRY_FEW=1 KD_DRY_SLOW="tests-gpu build-report peer"
expect "TOO LONG" tests-gpu build-report peer

# ---- green: what a machine lacks, and what there is no time for
dry_run 0 KD_DRY_FEW=1 KD_DRY_WITHOUT_TORCH=1
expect "not run" peer
dry_run 0 KD_DRY_FEW=1 KD_DRY_SLOW="racecheck bench" KD_GPU_SECONDS=362  # programs are left out, and named
expect passed racecheck bench
grep -q '^not run .*_test$' "$out/racecheck.log" || fault "racecheck does not name what it left out"
grep -q '^not run: cuda\..*_bench' "$out/bench.log" || fault "bench does not name what it left out"
dry_run 0 KD_DRY_FEW=1 KD_GPU_SECONDS=192
expect passed configure build tests-gpu parity
expect "not run" report peer bench
grep -q 'not run: peer: no time was left' "$out/summary.txt" || fault "the summary does not say why peer was not run"
# Without the tests nothing was shown.
dry_run 1 KD_DRY_FEW=1 KD_GPU_SECONDS=112
expect "not run" tests-gpu

# ---- limits that do not add up
mkdir -p "$scratch/copy/.ci"
sed -E 's/\[parity\]=25/[parity]=60/' "$root/.ci/gpu" >"$scratch/copy/.ci/gpu"
chmod +x "$scratch/copy/.ci/gpu"
gpu=$scratch/copy/.ci/gpu
dry_run 1 KD_DRY_FEW=1
grep -q 'the limits of the parts add up to' "$scratch/said" || fault "limits that do not add up are taken"

[ $faults -eq 0 ] && rm -rf "$scratch"
exit $((faults > 0))
