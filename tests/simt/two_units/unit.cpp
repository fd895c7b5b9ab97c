/// Every header of kernels/ and of kd/cuda/. Compiled twice, with KD_UNIT as `first` and as `second`, and linked into
/// one program: what a header defines without `inline` or a template would be defined twice. The kernels are ordinary
/// functions here, not static ones as in the other programs of the emulation, since that is what nvcc makes of them.
#undef KD_KERNEL
#define KD_KERNEL __attribute__((unused))
#include "every_cuda_header.hpp"

const void* KD_UNIT() { return reinterpret_cast<const void*>(kd::kernel::gather_images<float, 1>); }
