#!/bin/sh
# run_verbs.sh RUN SCRATCH: what ./run says to wrong input, and to a machine that lacks what a verb needs. Nothing is built.
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
  said=$(KD_INSTALL_MISSING=0 "$run" "$@" 2>&1)
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
[ $faults -eq 0 ] && rm -rf "$scratch"
exit $faults
