#!/bin/sh
# run_case.sh CASE CMAKE SOURCE BUILD SCRATCH COMPILER GENERATOR [NVCC]: takes kd into a project in one way, builds and
# runs it.
set -eu
case=$1 cmake=$2 source=$3 build=$4 scratch=$5 compiler=$6 generator=$7 nvcc=${8:-}
here=$source/tests/package
rm -rf "$scratch"
mkdir -p "$scratch"

fail() {
  echo "package.$case: $1" >&2
  exit 1
}

configure() {  # configure SOURCE ARGUMENT...
  from=$1
  shift
  "$cmake" -G "$generator" -S "$from" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "$@" >"$scratch/configure.log" 2>&1 || {
    cat "$scratch/configure.log"
    return 1
  }
}

build_and_run() {  # build_and_run [native]: native where the project asks for kd::native
  "$cmake" --build "$scratch/build" --target downstream >"$scratch/build.log" 2>&1 || {
    cat "$scratch/build.log"
    fail "does not build"
  }
  said=$("$scratch/build/downstream") || fail "the program failed"
  echo "$said"
  case $said in
    "kd "*) ;;
    *) fail "the program did not print kd's version" ;;
  esac
  # kd's own flags must not reach the projects of others; kd::native brings the one that it is for.
  if grep -E -e '-Werror|-fsanitize|-ffast-math' "$scratch/build/compile_commands.json"; then
    fail "kd::kd brought the flags above"
  fi
  if [ "${1:-}" = native ] && [ "$native_works" = yes ]; then
    grep -q -e '-march=native' "$scratch/build/compile_commands.json" || fail "kd::native did not bring -march=native"
  elif grep -e '-march=' "$scratch/build/compile_commands.json"; then
    fail "kd::kd brought the flag above"
  elif "$compiler" -dM -E -x c++ /dev/null | grep -q __SSE2__ && ! "$compiler" -dM -E -x c++ /dev/null | grep -q __AVX2__; then
    case $said in *"baseline instruction set"*) ;; *) fail "the device does not say that it uses the baseline" ;; esac
  fi
  # Who compiles without optimisation is told, once a file and by the program itself.
  if grep -q 'CMAKE_BUILD_TYPE:[A-Z]*=Debug' "$scratch/build/CMakeCache.txt"; then
    # clang++ keeps a message of an installed header, a system's to it, to itself.
    if ! { "$compiler" --version | grep -q clang && grep -q -e '-isystem' "$scratch/build/compile_commands.json"; }; then
      grep -q 'kd is compiled without optimisation' "$scratch/build.log" || fail "no word of the missing optimisation"
    fi
    case $said in *"not optimised"*) ;; *) fail "the device does not say that it is not optimised" ;; esac
  else
    grep 'without optimisation' "$scratch/build.log" && fail "the message above was given with optimisation"
    case $said in *"not optimised"*) fail "the device says that it is not optimised" ;; esac
  fi
}
native_works=no
if : | "$compiler" -march=native -fsyntax-only -x c++ - 2>/dev/null; then native_works=yes; fi

# The one source of the version.
version=$(sed -nE 's/^#define KD_VERSION_(MAJOR|MINOR|PATCH) ([0-9]+)$/\2/p' "$source/include/kd/core/abi.hpp" | paste -sd .)
major=${version%%.*}
minor=${version#*.}
minor=${minor%.*}

configure_cuda() {  # configure_cuda ARGUMENT...
  [ -n "$nvcc" ] || fail "this case needs nvcc"
  configure "$here/cuda" -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_HOST_COMPILER="$compiler" \
    -DCMAKE_CUDA_ARCHITECTURES=90-real "$@"
}

components() {  # components WANTED OPTIONAL ARGUMENT...: find_package(kd WANTED REQUIRED OPTIONAL_COMPONENTS OPTIONAL)
  wanted=$1 optional=$2
  shift 2
  rm -rf "$scratch/build"
  "$cmake" -G "$generator" -S "$here/version" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$compiler" \
    -DCMAKE_PREFIX_PATH="$scratch/prefix" -DWANTED="$wanted" -DWANTED_IF_POSSIBLE="$optional" "$@" \
    >"$scratch/configure.log" 2>&1
}
says() {  # says TEXT: in the last configuration
  tr -s ' \n' '  ' <"$scratch/configure.log" | grep -qF -- "$1" || { cat "$scratch/configure.log"; fail "not said: $1"; }
}

rejected() {  # rejected VERSION: find_package must fail and say both versions
  if "$cmake" -G "$generator" -S "$here/version" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$compiler" \
    -DCMAKE_PREFIX_PATH="$scratch/prefix" -DWANTED="$1" >"$scratch/configure.log" 2>&1; then
    fail "find_package(kd $1) accepted version $version"
  fi
  grep -q "requested version \"$1\"" "$scratch/configure.log" || { cat "$scratch/configure.log"; fail "wrong message"; }
  grep -q "version: $version" "$scratch/configure.log" || { cat "$scratch/configure.log"; fail "wrong message"; }
  echo "find_package(kd $1): rejected, version $version is named"
  rm -rf "$scratch/build"
}

case $case in
  install)
    "$cmake" --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
    configure "$source/examples/downstream" -DCMAKE_PREFIX_PATH="$scratch/prefix"
    build_and_run native
    grep -rn -e "$source" -e "$build" "$scratch/prefix" && fail "the files above name the machine that installed them"
    [ -s "$scratch/prefix/share/licenses/kd/LICENSE" ] || fail "the licence is not installed"
    # Every header, and nothing but headers.
    for root in include kernels; do
      [ -d "$source/$root" ] || continue
      (cd "$source/$root" && find . -name '*.hpp' -o -name '*.cuh')
    done | sort >"$scratch/wanted"
    (cd "$scratch/prefix/include" && find . -type f) | sort >"$scratch/installed"
    diff "$scratch/wanted" "$scratch/installed" || fail "the installed headers differ from the sources'"
    ;;
  install_moved)
    "$cmake" --install "$build" --prefix "$scratch/first" >"$scratch/install.log"
    mv "$scratch/first" "$scratch/moved"
    configure "$source/examples/downstream" -DCMAKE_PREFIX_PATH="$scratch/moved"
    build_and_run native
    ;;
  destdir)
    DESTDIR="$scratch/stage" "$cmake" --install "$build" --prefix /opt/kd >"$scratch/install.log"
    # Without a build type the example takes Release, here with less optimisation: it compiles sooner.
    configure "$source/examples/downstream" -DCMAKE_PREFIX_PATH="$scratch/stage/opt/kd" -DCMAKE_BUILD_TYPE= \
      -DCMAKE_CXX_FLAGS_RELEASE=-O1
    grep -q 'CMAKE_BUILD_TYPE:[A-Z]*=Release' "$scratch/build/CMakeCache.txt" || fail "the default build type is not Release"
    build_and_run native
    ;;
  add_subdirectory | fetch_content)
    configure "$here/$case" -DKD_SOURCE="$source"
    if [ "$case" = fetch_content ]; then build_and_run native; else build_and_run; fi
    # A subproject installs nothing and builds nothing of its own.
    "$cmake" --install "$scratch/build" --prefix "$scratch/prefix" >"$scratch/install.log" 2>&1 || true
    [ -z "$(find "$scratch/prefix" -name '*.hpp' 2>/dev/null)" ] || fail "kd as a subproject installed its headers"
    [ "$(grep -c '"file"' "$scratch/build/compile_commands.json")" = 1 ] || fail "kd as a subproject builds its own programs"
    ;;
  build_tree)
    configure "$source/examples/downstream" -Dkd_DIR="$build"
    build_and_run native
    ;;
  version_rejected)
    "$cmake" --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
    rejected 99
    rejected "$major.$((minor + 1))"
    # The control: what is installed is accepted.
    "$cmake" -G "$generator" -S "$here/version" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$compiler" \
      -DCMAKE_PREFIX_PATH="$scratch/prefix" -DWANTED="$version" >"$scratch/configure.log" 2>&1 ||
      { cat "$scratch/configure.log"; fail "find_package(kd $version) was rejected"; }
    ;;
  components)
    "$cmake" --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
    if components 'COMPONENTS;hip' ''; then fail "find_package(kd COMPONENTS hip) was accepted"; fi
    says "kd has no component 'hip'"
    no_toolkit=-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON
    if components 'COMPONENTS;cuda' '' $no_toolkit; then fail "the component cuda was found without a toolkit"; fi
    says "the component cuda needs the CUDA toolkit"
    # Who does not need the GPU goes on without it, and who does not ask never looks for it.
    components "$version" 'cuda' $no_toolkit || { cat "$scratch/configure.log"; fail "the optional component was required"; }
    says "component cuda: FALSE"
    components "$version" '' || { cat "$scratch/configure.log"; fail "find_package(kd) failed"; }
    ! grep -q CUDAToolkit "$scratch/build/CMakeCache.txt" || fail "CUDA was looked for without being asked for"
    ;;
  cuda_install)
    "$cmake" --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
    configure_cuda -DCMAKE_PREFIX_PATH="$scratch/prefix"
    build_and_run
    ;;
  cuda_examples)
    # Without a GPU the examples are compiled for the CPU, unless CUDA is asked for; with one, for CUDA.
    with_gpu() {  # with_gpu CODE WANTED ARGUMENT...: the driver's tool answers with CODE; nvcc compiles WANTED report.cpp
      printf '#!/bin/sh\necho 9.0\nexit %d\n' "$1" >"$scratch/nvidia-smi"
      chmod +x "$scratch/nvidia-smi"
      wanted=$2
      shift 2
      rm -rf "$scratch/build"
      configure "$source" -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_HOST_COMPILER="$compiler" -DKD_BUILD_EXAMPLES=ON \
        -DKD_BUILD_TESTS=OFF -DKD_BUILD_BENCH=OFF -DKD_NVIDIA_SMI="$scratch/nvidia-smi" "$@"
      found=$(grep '"command": .*/examples/report\.cpp' "$scratch/build/compile_commands.json" | grep -c -- ' -x cu ') || true
      [ "$found" = "$wanted" ] || fail "nvcc compiles report.cpp $found times instead of $wanted; arguments: $*"
    }
    with_gpu 9 0
    with_gpu 9 1 -DKD_CUDA=ON
    with_gpu 0 1
    with_gpu 9 0 -DKD_CUDA=ON -DKD_CUDA_EXAMPLES=quickstart
    ;;
  cuda_add_subdirectory)
    configure_cuda -DKD_SOURCE="$source"
    build_and_run
    ;;
  *)
    fail "unknown case"
    ;;
esac
rm -rf "$scratch"
