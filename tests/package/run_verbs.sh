#!/bin/sh
# run_verbs.sh RUN SCRATCH: what ./run says to wrong input, and to a machine that lacks what a verb needs; where it is called
# from, and with which compiler. Nothing is built.
set -u
run=$1 scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch/bin" "$scratch/full" "$scratch/empty"
: >"$scratch/full/somebody's file"
faults=0

# refuses CODE TEXT ARGUMENT...: ./run ARGUMENT... must end with this exit code and say this.
refuses() {
  wanted=$1 text=$2
  shift 2
  said=$(KD_INSTALL_MISSING=${install:-0} "$run" "$@" 2>&1)
  code=$?
  case $said in
    *"$text"*) ;;
    *) code="$code without saying so" ;;
  esac
  if [ "$code" = "$wanted" ]; then
    echo "run $*: refused"
  else
    echo "run $*: exit code $code; wanted $wanted and: $text"
    echo "$said"
    faults=$((faults + 1))
  fi
}
stand_in() {  # stand_in NAME LINE...: a program of this name on the path
  program=$scratch/bin/$1
  shift
  printf '%s\n' '#!/bin/sh' "$@" >"$program"
  chmod +x "$program"
}
nvidia_smi() {  # nvidia_smi CODE TEXT: stands in for the driver's tool
  printf '#!/bin/sh\necho "%s"\nexit %d\n' "$2" "$1" >"$scratch/bin/nvidia-smi"
  chmod +x "$scratch/bin/nvidia-smi"
}

refuses 2 "usage: ./run VERB"
refuses 2 "unknown verb 'gpus'" gpus
refuses 2 "unknown option '--chek'" format --chek
refuses 2 "unknown option '--dat'" gpu --dat
refuses 2 "--data needs a folder" gpu --data
refuses 1 "there is no folder $scratch/nowhere" gpu --data "$scratch/nowhere"
refuses 2 "unknown option '--help-me'" gpu-bundle --help-me
refuses 2 "usage: ./run gpu-bundle" gpu-bundle one two
refuses 1 "there is no folder $scratch/nowhere" gpu-bundle "$scratch/nowhere"

# No GPU, a driver that finds none, and results of somebody else where ours would go. Any program stands for nvcc: none of
# these cases gets as far as a compilation.
PATH=$scratch/bin:$PATH
CUDACXX=/bin/false
export PATH CUDACXX
nvidia_smi 9 "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
refuses 1 "no GPU can be used: NVIDIA-SMI has failed" gpu "$scratch/empty"
nvidia_smi 0 "GPU 0: a stand-in"
refuses 1 "is not empty and holds no results of ./run gpu" gpu "$scratch/full"
[ -e "$scratch/full/somebody's file" ] || {
  echo "run gpu removed a file that was not its own"
  faults=$((faults + 1))
}
KD_BUILD=$scratch/build
export KD_BUILD
refuses 1 "the configuration failed" gpu "$scratch/empty"

# Called through links, and from the folder above with a CDPATH that holds a folder of the same name.
real_run=$run
ln -s "$real_run" "$scratch/bin/kd-run"
ln -s bin/kd-run "$scratch/kd-run-again"
run=$scratch/kd-run-again
refuses 1 "there is no folder $scratch/nowhere" gpu --data "$scratch/nowhere"
root=$(dirname "$real_run")
mkdir -p "$scratch/cdpath/$(basename "$root")"
CDPATH=$scratch/cdpath
export CDPATH
cd "$root/.." || exit 1
run=$(basename "$root")/run
refuses 1 "there is no folder $scratch/nowhere" gpu --data "$scratch/nowhere"
unset CDPATH
cd "$scratch" || exit 1
run=$real_run

# The compiler, its launcher and its flags, as CMake gets them. The stand-in finds each header that it is asked for.
# shellcheck disable=SC2016
stand_in cmake 'echo "compiler $CXX, flags ${CXXFLAGS:-none}, launcher ${CMAKE_CXX_COMPILER_LAUNCHER:-none}"' 'exit 3'
stand_in cxx "grep '^<'"
stand_in gnuplot
stand_in ninja
mkdir "$scratch/bin/of mine"
cp "$scratch/bin/cxx" "$scratch/bin/of mine/cxx"
unset CXXFLAGS CMAKE_CXX_COMPILER_LAUNCHER
CXX=cxx
export CXX
refuses 3 "compiler cxx, flags none, launcher none" report
CXX="cxx -m64 -g"
refuses 3 "compiler cxx, flags -m64 -g, launcher none" report
CXX="ccache cxx -m64"
refuses 3 "compiler cxx, flags -m64, launcher ccache" report
CXX="$scratch/bin/of mine/cxx"
refuses 3 "compiler $scratch/bin/of mine/cxx, flags none, launcher none" report
CXX="cxx -m64"
CXXFLAGS=-g
export CXXFLAGS
refuses 3 "compiler cxx, flags -m64 -g, launcher none" report
CXX="no-such-compiler -m64"
refuses 1 "missing: g++" report

# What apt says is shown when it fails, and only then.
stand_in sudo 'exec "$@"'
# shellcheck disable=SC2016
stand_in apt-get 'echo "chatter of apt-get"' '[ "$1" = update ] || exit 5'
install=1
refuses 1 "chatter of apt-get" report
refuses 1 "could not install: g++" report
stand_in apt-get 'echo "chatter of apt-get"'
refuses 3 "installing with apt: g++" report
case $said in
  *chatter*)
    echo "run: shows what apt says although it did not fail: $said"
    faults=$((faults + 1))
    ;;
esac
cd /
[ $faults -eq 0 ] && rm -rf "$scratch"
exit $faults
