/// The losses there are: tests, benchmarks and programs walk over these lists. To add one, see logit_loss.hpp.
#pragma once

#include "kd/formula/alpha_divergence.hpp"
#include "kd/formula/cross_entropy.hpp"
#include "kd/formula/dist.hpp"
#include "kd/formula/dkd.hpp"
#include "kd/formula/forward_kl.hpp"
#include "kd/formula/jeffreys.hpp"
#include "kd/formula/jensen_shannon.hpp"
#include "kd/formula/logit_mse.hpp"
#include "kd/formula/partial_kl.hpp"
#include "kd/formula/reverse_kl.hpp"
#include "kd/formula/skewed_kl.hpp"
#include "kd/formula/smoothed_cross_entropy.hpp"
#include "kd/formula/soft_cross_entropy.hpp"
#include "kd/formula/standardised_kd.hpp"
#include "kd/formula/total_variation.hpp"
#include "kd/formula/z_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

template <class... Terms>
struct list {
  static constexpr std::size_t size = sizeof...(Terms);
  /// Calls function(Terms{}) for each.
  static constexpr void each(auto&& function) { (function(Terms{}), ...); }
};

/// What compares the student with the teacher. Each is offered alone and with cross entropy. partial_kl, whose teacher
/// has no logits, is not among them.
using divergences = list<forward_kl, reverse_kl, jeffreys, jensen_shannon, total_variation, alpha_divergence, skewed_kl,
                         skewed_reverse_kl, soft_cross_entropy, logit_mse, dkd, dist, standardised_kd>;

/// What needs no teacher.
using hard_terms = list<cross_entropy, smoothed_cross_entropy, z_loss>;

/// Sums that people use: the terms of one launch.
using mixtures = list<list<forward_kl, smoothed_cross_entropy>,
                      list<forward_kl, cross_entropy, z_loss>,      // as language models are trained
                      list<forward_kl, reverse_kl, cross_entropy>,  // a Jeffreys divergence with weights
                      list<forward_kl, logit_mse, cross_entropy>>;

}  // namespace kd::formula::inline KD_FORMULA_ABI
