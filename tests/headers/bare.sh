#!/bin/sh
# bare.sh COMPILER SCRATCH SOURCE_DIR FLAG-DIR -I...: everything with nothing but -std=c++20 and warnings, linked and run.
set -eu
compiler=$1 scratch=$2 sources=$3 generated=$4
shift 4
rm -rf "$scratch"
mkdir -p "$scratch"
for unit in two_units_main two_units_other; do
  "$compiler" -std=c++20 -DKD_NO_OPTIMISATION_NOTE -Wall -Wextra -Wpedantic -Werror "$@" -I"$generated" -c "$sources/$unit.cpp" -o "$scratch/$unit.o"
done
"$compiler" "$scratch"/*.o -o "$scratch/two_units"
"$scratch/two_units"
# The umbrella header and the first example need nothing else either.
example=$sources/../../examples/quickstart.cpp
if [ -e "$example" ]; then
  "$compiler" -std=c++20 -DKD_NO_OPTIMISATION_NOTE -Wall -Wextra -Wpedantic -Werror "$@" "$example" -o "$scratch/quickstart"
  echo "quickstart.cpp: compiled and linked"
fi
rm -rf "$scratch"
