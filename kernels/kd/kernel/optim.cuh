/// The optimisers' updates: one launch over the flat buffers of weights, gradients and states.
///
/// The formulas are those of kd/formula/, with their factors read from device memory, so that a recorded launch follows
/// schedules. Every product with a sum is an explicit fmaf (kd/kernel/scalar_math.cuh) and nothing else can be
/// contracted: the results are the same bits on any GPU and on a host. The CPU's update leaves contraction to its
/// compiler: equal to rounding.
/// Bytes per weight: 12 (w, g read; w written) and 8 for each state that is used: adam 28, sgd 20 with momentum, 12
/// without, lion 20.
/// Launch: 256 threads, a thread per item of four weights, or of one where a run is not aligned to four. Groups of runs
/// are numbered item by item, so that the work is even however the weights are cut; starts[b] says in which group block
/// b begins. No shared memory. Every weight belongs to one thread. Limits: w, g and states aligned to 16 bytes.
/// Checked in tests/cuda/optim_test.cpp.
#pragma once

#include "kd/formula/rule.hpp"
#include "kd/kernel/elementwise.cuh"
#include "kd/kernel/scalar_math.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Runs of `items` items, one every `stride` elements from `begin` on.
struct update_group {
  std::size_t first;  // number of the first item
  std::size_t begin, stride, items;
  std::uint32_t width;  // elements of an item: 4, with begin and stride multiples of it, or 1
};

/// Where one thread works.
struct update_place {
  std::size_t element;
  std::uint32_t width;
};

/// @param groups in order of `first`; the group behind the last one begins at the number of all items
__device__ inline update_place place_of(const update_group* groups, const std::uint32_t* starts, std::size_t item) {
  const update_group* group = groups + starts[blockIdx.x];
  while (item >= group[1].first) ++group;
  std::size_t offset = item - group->first, run = 0;
  const std::size_t items = group->items;
  if (offset >= items) {  // items then fits in 32 bits where offset does
    run = offset >> 32 == 0 ? static_cast<std::uint32_t>(offset) / static_cast<std::uint32_t>(items) : offset / items;
    offset -= run * items;
  }
  return {group->begin + run * group->stride + offset * group->width, group->width};
}

/// Where states are not used there are none here.
template <class Rule, bool UsesStates>
struct rule_of {
  static constexpr int states = UsesStates ? Rule::states : 0;
  static constexpr int at_least_one = states == 0 ? 1 : states;  // there are no empty arrays

  const formula::factors_of<Rule>* factors;  // in device memory
  float* w;
  const float* g;
  float* state[at_least_one];

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    const formula::factors_of<Rule> f = *factors;
    float weight[Width], gradient[Width], each[at_least_one][Width];
    load_floats<Width>(w + i, weight);
    load_floats<Width>(g + i, gradient);
#pragma unroll
    for (int s = 0; s < states; ++s) load_floats<Width>(state[s] + i, each[s]);
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) {
      float own[at_least_one];
#pragma unroll
      for (int s = 0; s < states; ++s) own[s] = each[s][j];
      Rule::template step<scalar_math>(weight[j], gradient[j], states == 0 ? nullptr : own, f);
#pragma unroll
      for (int s = 0; s < states; ++s) each[s][j] = own[s];
    }
#pragma unroll
    for (int s = 0; s < states; ++s) store_floats<Width>(each[s], state[s] + i);
    store_floats<Width>(weight, w + i);
  }
};

/// @param stop not null and not 0: nothing is touched
template <class Rule, class Visibility>
__global__ void __launch_bounds__(elementwise_threads)
    update(const update_group* groups, const std::uint32_t* starts, std::size_t items, const std::uint32_t* stop,
           const Rule rule) {
  if (stop != nullptr && *stop != 0) return;
  const std::size_t item = thread_in_grid();
  if (item >= items) return;
  const update_place place = place_of(groups, starts, item);
  if (place.width == 4)
    rule.template run<4>(place.element);
  else
    rule.template run<1>(place.element);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
