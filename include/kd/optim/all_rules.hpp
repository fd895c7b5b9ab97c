/// The optimisers: their formulas (kd/formula/rule.hpp says what a new one takes) by the names that programs use.
#pragma once

#include "kd/core/type_list.hpp"
#include "kd/formula/adam.hpp"
#include "kd/formula/lion.hpp"
#include "kd/formula/sgd.hpp"

namespace kd::inline KD_ABI::optim {

using formula::adam;
using formula::adamw;
using formula::lion;
using formula::sgd;

/// What the tests and benchmarks of every device run over.
using all_rules = type_list<adam, adamw, sgd, lion>;

}  // namespace kd::inline KD_ABI::optim
