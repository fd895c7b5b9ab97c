#!/bin/bash
# Stands for every program that ./run gpu starts, on a machine without a GPU: links to this file, one for each name, lie
# first in PATH (gpu_dry_run.sh). Nothing is built or run, and no time passes: $KD_DRY/clock holds milliseconds, and each
# stand-in moves it on by what its original is taken to need with 16 threads and an H100. KD_DRY_SLOW names what takes
# ten times as long, KD_DRY_FAILING what fails; with KD_DRY_FEW=1 there are only a few programs.
set -u
name=$(basename "$0")
clock=$KD_DRY/clock

original() { PATH=${PATH#"$KD_DRY/bin:"} exec "$name" "$@"; }  # the next program of this name in PATH
is_in() { [[ " $2 " == *" $1 "* ]]; }
milliseconds() { cat "$clock"; }
# duration WHAT MILLISECONDS
duration() { if is_in "$1" "${KD_DRY_SLOW:-}"; then echo $((10 * $2)); else echo "$2"; fi; }
outcome() {  # outcome WHAT: whether it succeeds
  is_in "$1" "${KD_DRY_FAILING:-}" || return 0
  echo "$1 fails"
  return 1
}
takes() {  # takes WHAT MILLISECONDS
  echo $(($(milliseconds) + $(duration "$1" "$2"))) >"$clock"
  outcome "$1"
}
make_program() {
  mkdir -p "$(dirname "$1")"
  ln -f "$KD_DRY/stand_in" "$1"  # no symbolic link: ./run gpu looks for files
}
# What the build offers: the tests and benchmarks that are there.
targets() {
  if [ "${KD_DRY_FEW:-0}" = 1 ]; then
    printf '%s\n' gpu.cuda.{cast,error,norm,optim,pool}_test bench.cuda.{cast,norm,optim}_bench bench.train.step_serve
  else
    (cd "$KD_DRY_ROOT/tests" && find cuda -name '*_test.cpp') | sed -E 's%(.*)/(.*)\.cpp%gpu.\1.\2%'
    (cd "$KD_DRY_ROOT/bench" && find cuda train -name '*.cpp') | sed -E 's%(.*)/(.*)\.cpp%bench.\1.\2%'
  fi
}

case $name in
  date) if [ "$*" = +%s ]; then echo $(($(milliseconds) / 1000)); else original "$@"; fi ;;
  timeout)  # timeout --kill-after=N SECONDS COMMAND...
    if [[ $1 == --kill-after=* ]]; then shift; fi
    begin=$(milliseconds) limit=$(($1 * 1000))
    shift
    "$@"
    code=$?
    if [ $(($(milliseconds) - begin)) -le $limit ]; then exit $code; fi
    echo $((begin + limit)) >"$clock"
    exit 124
    ;;
  tail)  # --pid=N: waits for the report
    if [[ $1 != --pid=* ]]; then original "$@"; fi
    until [ -e "$KD_DRY/report_at" ]; do sleep 0.01; done
    if [ "$(cat "$KD_DRY/report_at")" -gt "$(milliseconds)" ]; then cp "$KD_DRY/report_at" "$clock"; fi
    ;;
  nvidia-smi) if [ "${1:-}" = -L ]; then echo "GPU 0: a stand-in"; fi ;;
  nvcc) echo "a stand-in for nvcc" ;;
  cmake)
    case "$*" in
      *" -B "*/report\ *)  # beside the other configuration
        outcome configure-report
        ;;
      *" -B "*) takes configure 7000 ;;
      *"--target help") targets ;;
      --build\ */report\ *)  # beside the build: it is finished then and there
        outcome build-report && make_program "$2/examples/report"
        code=$?
        echo $(($(milliseconds) + $(duration build-report 115000))) >"$KD_DRY/report_at"
        exit $code
        ;;
      --build\ *)
        folder=$2
        # The report's build was begun before: its stand-in looks at the clock first.
        until [ -e "$KD_DRY/report_at" ]; do sleep 0.01; done
        for target in "$@"; do
          case $target in
            gpu.*) make_program "$folder/tests/cuda/$target" ;;
            bench.*) make_program "$folder/bench/${target#bench.}" ;;
          esac
        done
        takes build 110000
        ;;
      *)
        echo "no such call of cmake is expected: $*"
        exit 1
        ;;
    esac
    ;;
  ctest)
    part=tests-gpu ms=45000
    if [[ $* == *"-R parity"* ]]; then part=parity ms=15000; fi
    takes $part $ms && echo "100% tests passed, 0 tests failed"
    ;;
  compute-sanitizer)  # --tool TOOL ... PROGRAM: 24 of them take 18 s, side by side on the machine, in turn here
    takes "$2" 750 || exit 9
    if [[ $* != *"--report-api-errors no"* ]]; then
      echo "a failed call of the API, which the libraries expect, is counted"
      exit 9
    fi
    case $(basename "${!#}") in
      *.parity_test | *.training_test | *.golden_step_test | *.device_test | *.error_test | *.graph_test | *.losses_*_test)
        echo "no test of a kernel: takes too long here, or provokes errors"
        exit 9
        ;;
    esac
    ;;
  python3)
    if [ "${1:-}" = -c ]; then exit "${KD_DRY_WITHOUT_TORCH:-0}"; fi
    takes peer 27000
    ;;
  report) takes report 30000 ;;
  *_bench) takes bench 4500 ;;
  *)
    echo "$name was not to be run"
    exit 1
    ;;
esac
