/// The optimisers' updates: one launch over the flat buffers of weights, gradients and states.
///
///   adam, adamw  g += l2 w;  m += rate1 (g - m);  v = beta2 v + rate2 g g;  w = keep w - step m / (root sqrt(v) + eps)
///   sgd          g += l2 w;  b = carry b + take g;  w -= rate (own g + through b);  without a buffer w -= rate g
/// with the factors of kd/optim/adam.hpp (Kingma, Ba: Adam, algorithm 1; Loshchilov, Hutter: AdamW, algorithm 2) and
/// sgd.hpp (Sutskever et al. 2013), read from device memory, so that a recorded launch follows schedules.
/// Every product with a sum is an explicit fmaf and nothing else can be contracted: the results are the same bits on
/// any GPU and on a host. The CPU's update leaves contraction to its compiler: equal to rounding.
/// Bytes per weight: adam 28 (w, g, m, v read; w, m, v written), sgd 20 with momentum, 12 without.
/// Launch: 256 threads, a thread per item of four weights, or of one where a run is not aligned to four. Groups of runs
/// are numbered item by item, so that the work is even however the weights are cut; starts[b] says in which group block
/// b begins. No shared memory. Every weight belongs to one thread. Limits: w, g and states aligned to 16 bytes.
/// Checked in tests/cuda/optim_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"

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

/// Where the factors of a rule lie in the row that the kernel reads.
namespace adam_factor {
enum : unsigned { l2, keep, rate1, beta2, rate2, step, root, epsilon };
}
namespace sgd_factor {
enum : unsigned { l2, carry, take, own, through, rate, buffered };
}

struct adam_of {
  const float* factors;  // by adam_factor
  float* w;
  const float* g;
  float *m, *v;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    const float l2 = factors[adam_factor::l2], keep = factors[adam_factor::keep];
    const float rate1 = factors[adam_factor::rate1], beta2 = factors[adam_factor::beta2];
    const float rate2 = factors[adam_factor::rate2], step = factors[adam_factor::step];
    const float root = factors[adam_factor::root], epsilon = factors[adam_factor::epsilon];
    float weight[Width], gradient[Width], first[Width], second[Width];
    load_floats<Width>(w + i, weight);
    load_floats<Width>(g + i, gradient);
    load_floats<Width>(m + i, first);
    load_floats<Width>(v + i, second);
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) {
      gradient[j] = fmaf(l2, weight[j], gradient[j]);
      first[j] = fmaf(rate1, gradient[j] - first[j], first[j]);
      second[j] = fmaf(rate2 * gradient[j], gradient[j], beta2 * second[j]);
      const float change = step * first[j] / fmaf(root, sqrtf(second[j]), epsilon);
      weight[j] = fmaf(keep, weight[j], -change);
    }
    store_floats<Width>(first, m + i);
    store_floats<Width>(second, v + i);
    store_floats<Width>(weight, w + i);
  }
};

struct sgd_of {
  const float* factors;  // by sgd_factor
  float* w;
  const float* g;
  float* b;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    const float l2 = factors[sgd_factor::l2], rate = factors[sgd_factor::rate];
    float weight[Width], change[Width];
    load_floats<Width>(w + i, weight);
    load_floats<Width>(g + i, change);
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) change[j] = fmaf(l2, weight[j], change[j]);
    if (factors[sgd_factor::buffered] != 0.0f) {
      const float carry = factors[sgd_factor::carry], take = factors[sgd_factor::take];
      const float own = factors[sgd_factor::own], through = factors[sgd_factor::through];
      float mean[Width];
      load_floats<Width>(b + i, mean);
#pragma unroll
      for (unsigned j = 0; j < Width; ++j) {
        mean[j] = fmaf(carry, mean[j], take * change[j]);
        change[j] = fmaf(through, mean[j], own * change[j]);
      }
      store_floats<Width>(mean, b + i);
    }
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) weight[j] = fmaf(-rate, change[j], weight[j]);
    store_floats<Width>(weight, w + i);
  }
};

/// @param stop not null and not 0: nothing is touched
template <class Rule>
KD_KERNEL void __launch_bounds__(elementwise_threads)
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
