/// The number formats in which a device multiplies; weights, losses and statistics are float in all of them.
#pragma once

#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

enum class precision {
  fp32,  // float everywhere
  tf32,  // float in memory, products with 10 bits of fraction: tensor cores of compute capability 8.0 and later
  bf16,  // images and their gradients in bfloat16, products in bfloat16, sums in float: 8.0 and later
};

/// "fp32", "tf32" or "bf16".
inline std::string_view text_of(precision p) {
  switch (p) {
    case precision::fp32:
      return "fp32";
    case precision::tf32:
      return "tf32";
    case precision::bf16:
      return "bf16";
  }
  throw argument_error(text("kd::text_of(precision): unknown precision ", static_cast<int>(p)));
}

/// The precision of that name; argument_error otherwise.
inline precision precision_of(std::string_view name) {
  for (const precision p : {precision::fp32, precision::tf32, precision::bf16})
    if (text_of(p) == name) return p;
  reject_argument("kd::precision_of", "the precision must be fp32, tf32 or bf16", name, "fp32 is the default");
}

}  // namespace kd::inline KD_ABI
