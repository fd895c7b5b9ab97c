/// A distillation whose divergence a program chooses while it runs: from a command line, or one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/formula/losses.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI {

namespace detail {
template <class Divergences>
struct distillations;
template <class... Divergence>
struct distillations<formula::list<Divergence...>> {
  using one_of = std::variant<distillation_with<Divergence>...>;
};
}  // namespace detail

/// One of distillation_with<D>, D in formula::divergences. A trainer takes it as it takes any of them, gives the same
/// bits, and is compiled once for all; the engines of all divergences are compiled where `accumulate` is instantiated.
class any_distillation {
 public:
  using variant = detail::distillations<formula::divergences>::one_of;
  /// Any of their formulas, byte for byte.
  struct any_formula {
    alignas(16) std::byte bytes[64];
  };

  static constexpr bool needs_teacher = true;
  std::string_view name;  ///< as the chosen one's

  template <class Divergence>
  any_distillation(const distillation_with<Divergence>& loss) : name(loss.name), loss_(loss) {}  // NOLINT(*-explicit-*)
  any_distillation() : any_distillation(distillation{}) {}

  /// By the divergence's name, "forward_kl", with the options that it has by default. Throws argument_error where there
  /// is none of that name.
  static any_distillation with(std::string_view divergence) {
    any_distillation found;
    bool known = false;
    std::string names;
    formula::divergences::each([&]<class Divergence>(const Divergence&) {
      names += text(names.empty() ? "" : ", ", Divergence::name);
      if (divergence == Divergence::name) found = distillation_with<Divergence>{}, known = true;
    });
    if (!known)
      reject_argument("kd::any_distillation", text("the divergence must be one of ", names), divergence, "choose one");
    return found;
  }

  const variant& chosen() const { return loss_; }
  /// The same divergence with its default options.
  any_distillation defaults() const {
    return std::visit([]<class Loss>(const Loss&) { return any_distillation(Loss{}); }, loss_);
  }
  void validate() const {
    std::visit([](const auto& loss) { loss.validate(); }, loss_);
  }
  any_formula formula() const {
    any_formula made{};
    std::visit(
        [&](const auto& loss) {
          const auto formula = loss.formula();
          static_assert(sizeof formula <= sizeof made && std::is_trivially_copyable_v<decltype(formula)>);
          std::memcpy(&made, &formula, sizeof formula);
        },
        loss_);
    return made;
  }
  /// The names of what it reports.
  std::span<const std::string_view> value_names() const {
    return std::visit(
        []<class Loss>(const Loss&) { return std::span<const std::string_view>(kd::value_names<formula_of<Loss>>); },
        loss_);
  }
  /// See each_option.
  void each_part(const auto& visit) {
    std::visit([&](auto& loss) { visit("", loss), loss.each_part(visit); }, loss_);
  }
  void each_part(const auto& visit) const {
    std::visit([&](const auto& loss) { visit("", loss), loss.each_part(visit); }, loss_);
  }

  /// device.accumulate_loss with the chosen loss; `now` is what formula() gave, in the device's memory.
  template <class Device>
  void accumulate(Device& device, const any_formula* now, std::size_t rows, std::size_t classes, const float* student,
                  const float* teacher, const std::int32_t* labels, float* d_student,
                  typename Device::template buffer<std::byte>& scratch, loss_meter* meter) const;

 private:
  variant loss_;
};

template <class Device>
void any_distillation::accumulate(Device& device, const any_formula* now, std::size_t rows, std::size_t classes,
                                  const float* student, const float* teacher, const std::int32_t* labels,
                                  float* d_student, typename Device::template buffer<std::byte>& scratch,
                                  loss_meter* meter) const {
  std::visit(
      [&]<class Loss>(const Loss& loss) {
        device.accumulate_loss(loss, reinterpret_cast<const formula_of<Loss>*>(now), rows, classes, student, teacher,
                               labels, d_student, scratch, meter);
      },
      loss_);
}

}  // namespace kd::inline KD_ABI
