/// The losses that Python can name, for one type of logits: what module.cpp calls and losses_*.cpp instantiate.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kd/kd.hpp>

namespace kd_python {

/// Terms with their weights, and options by name, as Python gave them.
struct request {
  std::vector<std::pair<std::string, double>> terms, options;
  bool rows = false;  // the terms of each row too
  int threads = 0;    // 0: as many as are worth having
};
struct outcome {
  kd::loss_terms terms;
  std::vector<double> rows;  // [rows, terms + 1], the last is the weighted sum
};

template <class Logit>
using batch = kd::logit_batch<Logit, Logit, std::int64_t, Logit>;

/// Throws kd::argument_error for terms that are not offered together, options that none of them has, and what
/// kd::forward_backward throws.
template <class Logit>
outcome forward_backward(const request& asked, batch<Logit> arrays);
extern template outcome forward_backward(const request&, batch<float>);
extern template outcome forward_backward(const request&, batch<kd::bfloat16>);
extern template outcome forward_backward(const request&, batch<kd::float16>);

namespace detail {

constexpr const char* where = "kd.forward_backward";

/// Sets the option `name` of every term that has it; throws where none has.
template <class Loss>
void set_option(Loss& loss, const std::string& name, double value) {
  std::string known;
  bool found = false;
  kd::each_option(loss, [&]<class Value>(const std::string& full, Value& member, const auto& option) {
    const bool is_weight = full.ends_with(".weight");  // given with the term
    if (!is_weight) known += (known.empty() ? "" : ", ") + std::string(option.name);
    if (is_weight || name != option.name) return;
    member = static_cast<Value>(value);
    found = true;
  });
  if (!found) kd::reject_argument(where, "an option must be one of " + known, name, "see kd.losses()");
}

/// Computes the sum of these terms if it is the one that is asked for.
template <class Logit, class... Terms>
bool run_if_asked(const request& asked, const batch<Logit>& arrays, outcome& result) {
  constexpr std::string_view names[] = {Terms::name...};
  const auto weight_of = [&](std::string_view name) {
    return std::find_if(asked.terms.begin(), asked.terms.end(), [&](const auto& term) { return term.first == name; });
  };
  if (asked.terms.size() != sizeof...(Terms)) return false;
  for (const std::string_view name : names)
    if (weight_of(name) == asked.terms.end()) return false;

  kd::weighted_sum loss{kd::softening{},
                        kd::weighted_term<Terms>{static_cast<float>(weight_of(Terms::name)->second), {}}...};
  for (const auto& [name, value] : asked.options) set_option(loss, name, value);
  batch<Logit> mine = arrays;
  if (asked.rows) {
    result.rows.resize(arrays.rows * (kd::formula_of<decltype(loss)>::values + 1));
    mine.row_values = result.rows.data();
  }
  result.terms =
      kd::forward_backward(loss, mine, asked.threads == 0 ? kd::cpu::device() : kd::cpu::device(asked.threads));
  return true;
}

/// Calls function.operator()<Terms...>() for every sum that is offered: each divergence alone and with cross entropy,
/// each term that needs no teacher, and the mixtures of kd/formula/losses.hpp.
template <class Function>
void each_sum(const Function& function) {
  using namespace kd::formula;
  divergences::each([&]<class Divergence>(const Divergence&) {
    function.template operator()<Divergence>();
    function.template operator()<Divergence, cross_entropy>();
  });
  hard_terms::each([&]<class Term>(const Term&) { function.template operator()<Term>(); });
  mixtures::each([&]<class... Terms>(const list<Terms...>&) { function.template operator()<Terms...>(); });
}

}  // namespace detail

template <class Logit>
outcome forward_backward(const request& asked, batch<Logit> arrays) {
  outcome result;
  bool done = false;
  detail::each_sum([&]<class... Terms>() {
    if (!done) done = detail::run_if_asked<Logit, Terms...>(asked, arrays, result);
  });
  if (done) return result;
  std::string names;
  for (const auto& [name, weight] : asked.terms) names += (names.empty() ? "" : " + ") + name;
  kd::reject_argument(detail::where, "the terms must be a divergence, one with cross_entropy, or another offered sum",
                      names.empty() ? "none" : names, "kd.losses() lists them");
}

}  // namespace kd_python
