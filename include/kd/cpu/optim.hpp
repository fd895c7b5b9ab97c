/// The optimisers' updates on the CPU: one pass over flat buffers of weights, gradients and states.
///
/// Bytes moved per weight: Adam and AdamW 28 (w, g, m, v read; w, m, v written), SGD 20 with momentum, 12 without.
/// Every element goes through the same machine code wherever it lies, so that results are bit-equal for any number of
/// threads and any division into runs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/simd.hpp"
#include "kd/optim/factors.hpp"
#include "kd/optim/live_runs.hpp"

namespace kd::inline KD_ABI::cpu {

/// Step `step` (the first is 1) of the rule on the elements of `runs`; no other element of any buffer is read or
/// written. `learning_rate` replaces the rule's own. m and v are the rule's states, zero before the first step; sgd
/// uses m alone, and neither without momentum: an unused one may be null. Weights are skipped exactly where
/// rule.keeps_weights_without_gradient(). Throws argument_error on a rule that validate() rejects, a learning rate that
/// is negative or not finite, step 0, and a null pointer to what the rule reads.
template <class Rule>
void update(const parallel& par, const Rule& rule, double learning_rate, std::uint64_t step,
            std::span<const optim::live_runs> runs, float* w, const float* g, float* m, float* v = nullptr);

/// The same on all of n elements.
template <class Rule>
void update(const parallel& par, const Rule& rule, double learning_rate, std::uint64_t step, std::size_t n, float* w,
            const float* g, float* m, float* v) {
  const optim::live_runs all{0, n, n, 1};
  update(par, rule, learning_rate, step, std::span(&all, 1), w, g, m, v);
}

namespace detail {

/// x = sqrt(x), correctly rounded. By builtin: std::sqrt may set errno, and compilers do not vectorise it for that.
template <std::size_t Width>
inline void square_root(vector_of<Width>& x) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_elementwise_sqrt)
#define KD_ELEMENTWISE_SQRT
#endif
#endif
#if defined(KD_ELEMENTWISE_SQRT)
  x = __builtin_elementwise_sqrt(x);
#undef KD_ELEMENTWISE_SQRT
#else
  if constexpr (Width == 1) {
    x[0] = __builtin_sqrtf(x[0]);
#if defined(__AVX512F__)
  } else if constexpr (Width == 16) {
    x = __builtin_ia32_sqrtps512_mask(x, x, static_cast<short>(-1), 4);  // 4: round as the mode says
#endif
#if defined(__AVX__)
  } else if constexpr (Width == 8) {
    x = __builtin_ia32_sqrtps256(x);
#endif
#if defined(__SSE__)
  } else if constexpr (Width == 4) {
    x = __builtin_ia32_sqrtps(x);
#endif
  } else {
    for (std::size_t i = 0; i < Width; ++i) x[i] = __builtin_sqrtf(x[i]);
  }
#endif
}

/// The factors of a rule and the buffers they act on. The loops below stay one function each, never inlined: a second
/// copy could contract a product and a sum differently and round differently.
struct adam_pass {
  optim::adam_factors f;
  float* w;
  const float* g;
  float* m;
  float* v;

  template <std::size_t Width>
  __attribute__((noinline)) static void vectors(const optim::adam_factors& f, std::size_t count, float* w,
                                                const float* g, float* m, float* v) {
    for (std::size_t i = 0; i < count * Width; i += Width) {
      vector_of<Width> weight, gradient, first, second;
      load(weight, w + i);
      load(gradient, g + i);
      load(first, m + i);
      load(second, v + i);
      gradient += f.l2 * weight;
      first += f.rate1 * (gradient - first);
      second = f.beta2 * second + f.rate2 * gradient * gradient;
      vector_of<Width> root = second;
      square_root<Width>(root);
      weight = f.keep * weight - f.step * first / (f.root * root + f.epsilon);
      store(m + i, first);
      store(v + i, second);
      store(w + i, weight);
    }
  }

  template <std::size_t Width>
  void run(std::size_t begin, std::size_t count) const {
    const std::size_t whole = count / Width, done = begin + whole * Width, rest = count - whole * Width;
    vectors<Width>(f, whole, w + begin, g + begin, m + begin, v + begin);
    if (rest == 0) return;
    float tail[4][Width] = {};
    const std::size_t bytes = rest * sizeof(float);
    std::memcpy(tail[0], w + done, bytes);
    std::memcpy(tail[1], g + done, bytes);
    std::memcpy(tail[2], m + done, bytes);
    std::memcpy(tail[3], v + done, bytes);
    vectors<Width>(f, 1, tail[0], tail[1], tail[2], tail[3]);
    std::memcpy(w + done, tail[0], bytes);
    std::memcpy(m + done, tail[2], bytes);
    std::memcpy(v + done, tail[3], bytes);
  }
};

struct sgd_pass {
  optim::sgd_factors f;
  float* w;
  const float* g;
  float* buffer;

  template <std::size_t Width>
  __attribute__((noinline)) static void vectors(const optim::sgd_factors& f, std::size_t count, float* w,
                                                const float* g, float* buffer) {
    for (std::size_t i = 0; i < count * Width; i += Width) {
      vector_of<Width> weight, change;
      load(weight, w + i);
      load(change, g + i);
      change += f.l2 * weight;
      if (f.buffered) {
        vector_of<Width> mean;
        load(mean, buffer + i);
        mean = f.carry * mean + f.take * change;
        store(buffer + i, mean);
        change = f.own * change + f.through * mean;
      }
      weight -= f.rate * change;
      store(w + i, weight);
    }
  }

  template <std::size_t Width>
  void run(std::size_t begin, std::size_t count) const {
    float* const b = f.buffered ? buffer : w;  // w: an address that is valid and unused
    const std::size_t whole = count / Width, done = begin + whole * Width, rest = count - whole * Width;
    vectors<Width>(f, whole, w + begin, g + begin, b + begin);
    if (rest == 0) return;
    float tail[3][Width] = {};
    const std::size_t bytes = rest * sizeof(float);
    std::memcpy(tail[0], w + done, bytes);
    std::memcpy(tail[1], g + done, bytes);
    std::memcpy(tail[2], b + done, bytes);
    vectors<Width>(f, 1, tail[0], tail[1], tail[2]);
    std::memcpy(w + done, tail[0], bytes);
    if (f.buffered) std::memcpy(b + done, tail[2], bytes);
  }
};

/// pass.run(begin, count) over the elements of all runs, shared out evenly among the threads in units of 16.
template <std::size_t Width, class Pass>
void over_runs(const parallel& par, std::span<const optim::live_runs> runs, const Pass& pass) {
  constexpr std::size_t unit = 16;
  std::size_t total = 0;
  for (const optim::live_runs& r : runs) total += r.size();
  par.split((total + unit - 1) / unit, [&](std::size_t first_unit, std::size_t last_unit, std::size_t) {
    std::size_t at = first_unit * unit;  // position in the runs laid end to end
    const std::size_t end = std::min(last_unit * unit, total);
    std::size_t base = 0;
    for (const optim::live_runs& r : runs) {
      while (at < end && at - base < r.size()) {
        const std::size_t which = (at - base) / r.run, offset = (at - base) % r.run;
        const std::size_t count = std::min(r.run - offset, end - at);
        pass.template run<Width>(r.begin + which * r.stride + offset, count);
        at += count;
      }
      base += r.size();
      if (at >= end) return;
    }
  });
}

/// How many arrays of states a step of the rule reads.
template <class Rule>
constexpr int states_read(const Rule&) {
  return Rule::states;
}
constexpr int states_read(const optim::sgd& rule) { return rule.momentum == 0 ? 0 : 1; }

template <class Rule>
void check_step(const Rule& rule, double learning_rate, std::uint64_t step, std::span<const optim::live_runs> runs,
                const float* w, const float* g, const float* m, const float* v) {
  rule.validate();
  if (!(learning_rate >= 0 && std::isfinite(learning_rate)))
    reject_argument("kd::cpu::update", "learning_rate must be finite and at least 0", learning_rate,
                    "check the schedule");
  if (step == 0) reject_argument("kd::cpu::update", "steps count from 1", step, "pass the steps done so far plus 1");
  const auto empty = [](const optim::live_runs& r) { return r.size() == 0; };
  if (std::all_of(runs.begin(), runs.end(), empty)) return;
  const int states = states_read(rule);
  if (w == nullptr || g == nullptr || (states > 0 && m == nullptr) || (states > 1 && v == nullptr))
    reject_argument("kd::cpu::update", text(Rule::name, " reads weights, gradients and ", states, " arrays of states"),
                    "a null pointer", "pass arrays of zeros before the first step");
}

}  // namespace detail

/// The same with the step's factors worked out before.
inline void update(const parallel& par, const optim::adam_factors& factors, std::span<const optim::live_runs> runs,
                   float* w, const float* g, float* m, float* v) {
  detail::over_runs<native_width>(par, runs, detail::adam_pass{factors, w, g, m, v});
}
inline void update(const parallel& par, const optim::sgd_factors& factors, std::span<const optim::live_runs> runs,
                   float* w, const float* g, float* m, float*) {
  detail::over_runs<native_width>(par, runs, detail::sgd_pass{factors, w, g, m});
}

template <class Rule>
void update(const parallel& par, const Rule& rule, double learning_rate, std::uint64_t step,
            std::span<const optim::live_runs> runs, float* w, const float* g, float* m, float* v) {
  static_assert(optim::known_rule<Rule>,
                "kd::cpu::update: the optimiser must be adam, adamw or sgd: there is no update for another");
  detail::check_step(rule, learning_rate, step, runs, w, g, m, v);
  update(par, optim::factors(rule, learning_rate, step), runs, w, g, m, v);
}

}  // namespace kd::inline KD_ABI::cpu
