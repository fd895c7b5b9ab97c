/// From a loss as people set it to what an engine computes.
#pragma once

#include <utility>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// The formula::logit_loss of a loss.
template <class Loss>
using formula_of = decltype(std::declval<const Loss&>().formula());

}  // namespace kd::inline KD_ABI
