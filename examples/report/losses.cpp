#include "losses.hpp"

template void kd::any_distillation::accumulate(kd::cpu::device&, const any_formula*, std::size_t, std::size_t,
                                               const float*, const float*, const std::int32_t*, float*,
                                               kd::cpu::buffer<std::byte>&, kd::loss_meter*) const;
#if defined(KD_CUDA)
template void kd::any_distillation::accumulate(kd::cuda::device&, const any_formula*, std::size_t, std::size_t,
                                               const float*, const float*, const std::int32_t*, float*,
                                               kd::cuda::buffer<std::byte>&, kd::loss_meter*) const;
#endif
