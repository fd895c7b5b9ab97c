#!/bin/sh
# compile_cost_test.sh COMPILE_COST COMPILER SCRATCH: the launcher of the compilations, on units of one line.
set -u
compile_cost=$1 compiler=$2 scratch=$3
rm -rf "$scratch"
mkdir -p "$scratch/CMakeFiles/one.dir/a b"
cd "$scratch" || exit 1
objects="CMakeFiles/one.dir/a b"
faults=0

# says CODE TEXT COMMAND...: the command must end with this exit code and say this.
says() {
  wanted=$1 text=$2
  shift 2
  said=$("$@" 2>&1)
  code=$?
  case $said in
    *"$text"*) ;;
    *) code="$code without saying so" ;;
  esac
  [ "$code" = "$wanted" ] && return
  echo "$*: exit code $code; wanted $wanted and: $text"
  echo "$said"
  faults=$((faults + 1))
}
there() { [ -e "$1" ] || { echo "$1 was not written"; faults=$((faults + 1)); }; }
not_there() { [ ! -e "$1" ] || { echo "$1 was left"; faults=$((faults + 1)); }; }

echo 'int one() { return 1; }' >one.cpp
echo 'int two() { return }' >two.cpp
says 0 "" "$compile_cost" run --memory=2147483648 -- "$compiler" -c one.cpp -o "$objects/one.cpp.o"
there "$objects/one.cpp.o.cost"
says 0 "one: a b/one.cpp" "$compile_cost" table .
says 0 "1 translation units, 0 faults" "$compile_cost" check . b/one.cpp b/one.cpp=100
says 1 "OVER THE LIMIT OF 0 TIMES b/one.cpp" "$compile_cost" check . b/one.cpp b/one.cpp=0
says 1 "b/three.cpp=1: no such translation unit" "$compile_cost" check . b/one.cpp b/three.cpp=1
says 1 "b/three.cpp: no such translation unit" "$compile_cost" check . b/three.cpp

# The compiler's exit code and messages come through, and nothing is left to be believed.
says 1 "error" "$compile_cost" run -- "$compiler" -c two.cpp -o "$objects/one.cpp.o"
not_there "$objects/one.cpp.o.cost"
says 127 "no-such-compiler" "$compile_cost" run -- ./no-such-compiler -c one.cpp -o "$objects/one.cpp.o"
# shellcheck disable=SC2016
says 3 "limit: 1048576" "$compile_cost" run --memory=1073741824 -- sh -c 'echo "limit: $(ulimit -v)"; exit 3' sh -o one.o

# More than 2 GiB, and a record whose object is gone.
says 0 "" "$compile_cost" run -- "$compiler" -c one.cpp -o "$objects/one.cpp.o"
printf '1.00 3000 c++\n.\0true\0' >"$objects/big.cpp.o.cost"
says 0 "0 faults" "$compile_cost" check . b/one.cpp
: >"$objects/big.cpp.o"
says 1 "OVER 2 GiB" "$compile_cost" check . b/one.cpp
printf '1.00 3000 cuda\n.\0true\0' >"$objects/big.cpp.o.cost"
says 0 "0 faults" "$compile_cost" check . b/one.cpp

# What ptxas says is kept apart; what else the compiler says is not.
cat >nvcc <<'END'
#!/bin/sh
echo "ptxas info    : Used 8 registers"
echo "    0 bytes stack frame, 0 bytes spill stores"
echo "one.cu: warning" >&2
: >"$4"
END
chmod +x nvcc
said=$("$compile_cost" run --cuda -- ./nvcc -c one.cu -o "$objects/kernel.cu.o" 2>&1)
[ "$said" = "one.cu: warning" ] || { echo "nvcc's output: $said"; faults=$((faults + 1)); }
[ "$(grep -c . "$objects/kernel.cu.o.ptxas")" = 2 ] || { echo "ptxas's output was not kept"; faults=$((faults + 1)); }

[ $faults -eq 0 ] && cd / && rm -rf "$scratch"
exit $faults
