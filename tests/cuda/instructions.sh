#!/bin/sh
# instructions.sh OBJECT COMPILER BOUNDS: prints how many instructions the loss kernels of an object have, as ptxas made
# them: per class, the difference of the kernels with 32 and 16 classes in the registers of each thread, and of the longest
# kernel for any number of classes. Fails where one has more than BOUNDS says, a file with a first line "COMPILER version"
# and lines "architecture loss batch per-class by-block"; another version than COMPILER is not held to them. The object must
# be compiled with -no-compress. Since sm_70 an instruction has 16 bytes, and code is filled up to 128.
set -eu
object=$1 compiler=$2 bounds=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
objcopy -O binary --only-section=.nv_fatbin "$object" "$work/fatbin"
LC_ALL=C grep -obUaP '\x7fELF' "$work/fatbin" | cut -d: -f1 >"$work/offsets" || true
if ! [ -s "$work/offsets" ]; then
  echo "no code for a GPU was found in $object: compile it with -no-compress" >&2
  exit 2
fi
while read -r offset; do
  tail -c +$((offset + 1)) "$work/fatbin" >"$work/elf"
  flags=$(readelf -h "$work/elf" 2>/dev/null | sed -n 's/^ *Flags: *\(0x[0-9a-f]*\).*/\1/p')
  # The architecture is the second byte; before version 8 of the format it was the first.
  architecture=$((flags >> 8 & 0xff))
  version=$(readelf -h "$work/elf" 2>/dev/null | sed -n 's/^ *ABI Version: *\([0-9]*\).*/\1/p')
  [ "$version" -ge 8 ] || architecture=$((flags & 0xff))
  readelf -SW "$work/elf" 2>/dev/null |
    sed -n 's/^ *\[ *[0-9]*\] \.text\.\([^ ]*\) *PROGBITS *[0-9a-f]* [0-9a-f]* \([0-9a-f]*\) .*/\2 \1/p' |
    c++filt | sed -n 's/kd::kernel::sm_[0-9_]*:://g; s/kd::formula::[a-z0-9_]*:://g; /logit_loss_/p' |
    while read -r size name; do echo "sm_$architecture $((0x$size / 16)) $name"; done
done <"$work/offsets" >"$work/kernels"

awk -v compiler="$compiler" -v bounds="$bounds" '
  # "void logit_loss_in_registers<32u, 32u, false, logit_loss<forward_kl, cross_entropy>, dense_batch<float> >(...": loss
  # and batch without blanks.
  function template_of(name, which,   at, depth, i, c, text) {
    at = index(name, which "<")
    depth = 0
    text = ""
    for (i = at + length(which); i <= length(name); i++) {
      c = substr(name, i, 1)
      if (c == "<") depth++
      if (c == ">") depth--
      if (c != " ") text = text c
      if (depth == 0) break
    }
    return substr(text, 2, length(text) - 2)
  }
  function key_of(name) {
    return (index(name, "dense_batch<") ? "dense_batch<" template_of(name, "dense_batch") ">" \
                                        : "logit_batch<" template_of(name, "logit_batch") ">")
  }
  {
    size = $2
    key = $1 " " template_of($0, " logit_loss") " " key_of($0)
    if (index($0, "logit_loss_by_block<")) {
      if (!(key in block)) keys[++count] = key
      if (!(key in block) || size > block[key]) block[key] = size
    }
    if (index($0, "in_registers<32u, 32u, ")) wide[key] = size
    if (index($0, "in_registers<32u, 16u, ")) narrow[key] = size
  }
  END {
    holds = 0
    while ((getline line < bounds) > 0) {
      n = split(line, field, " ")
      if (field[1] == "COMPILER") holds = field[2] == compiler
      if (n == 5) { most[field[1] " " field[2] " " field[3]] = field[4]; most_block[field[1] " " field[2] " " field[3]] = field[5] }
    }
    print "COMPILER " compiler
    for (i = 1; i <= count; i++) {
      key = keys[i]
      if (!(key in wide) || !(key in narrow)) continue
      found++
      per_class = (wide[key] - narrow[key]) / 16
      fault = ""
      if (holds && !(key in most)) fault = "  IS NOT BOUNDED"
      if (holds && (key in most) && (per_class > most[key] || block[key] > most_block[key]))
        fault = "  MORE THAN " most[key] " " most_block[key]
      if (fault != "") faults++
      printf "%s %g %d%s\n", key, per_class, block[key], fault
    }
    if (!holds) print "the bounds are those of another compiler: nothing was checked"
    if (found == 0) { print "no loss kernel was found"; faults++ }
    exit faults > 0
  }' "$work/kernels"
