/// A printed summary of any network: layers, shapes, parameters, FLOPs, memory, and what is fused.
#pragma once

#include <string>
#include <string_view>

#include "kd/nn/activation_memory.hpp"
#include "kd/nn/plan.hpp"

namespace kd::inline KD_ABI::nn {

namespace detail {

inline std::string_view name_of(fusion f) {
  switch (f) {
    case fusion::none:
      return "";
    case fusion::relu:
      return "+ relu";
    case fusion::relu_pool:
      return "+ relu + max pool";
    case fusion::add:
      return "+ add";
    case fusion::add_relu:
      return "+ add + relu";
  }
  throw argument_error(text("kd::nn::summary: unknown fusion ", static_cast<int>(f)));
}

/// 1234567 as "1,234,567".
inline std::string grouped(std::size_t number) {
  std::string digits = text(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

inline void put(std::string& line, std::string_view cell, std::size_t width, bool right = false) {
  const std::string padding(cell.size() < width ? width - cell.size() : 0, ' ');
  line += right ? padding : std::string();
  line += cell;
  line += right ? std::string() : padding;
  line += "  ";
}

template <class Model, std::size_t I>
void summarise_layer(std::string& out) {
  using plan = plan_of<Model>;
  using layer = typename plan::template layer<I>;
  constexpr node n = plan::nodes[I];
  std::string line;
  put(line, n.name.view(), 24);
  put(line, layer::type_name, 17);
  put(line, text_of(n.out), 14);
  put(line, grouped(n.trainable), 11, true);
  put(line, grouped(layer::flops(n.in)), 13, true);
  put(line, n.absorbed ? "0" : grouped(plan::value_shape(n.output).size() * sizeof(float)), 10, true);
  line += n.absorbed ? "(fused above)" : name_of(n.fused);
  while (line.ends_with(' ')) line.pop_back();
  out += line + "\n";
}

}  // namespace detail

/// One line per layer (FLOPs and bytes are per sample), and the totals.
template <class Model>
std::string summary() {
  using plan = plan_of<Model>;
  std::string out;
  std::string head;
  detail::put(head, "layer", 24);
  detail::put(head, "type", 17);
  detail::put(head, "output", 14);
  detail::put(head, "parameters", 11, true);
  detail::put(head, "FLOP", 13, true);
  detail::put(head, "bytes", 10, true);
  out += head + "fused\n";
  [&]<std::size_t... I>(std::index_sequence<I...>) { (detail::summarise_layer<Model, I>(out), ...); }
  (std::make_index_sequence<plan::node_count>{});
  out += text("input ", text_of(plan::input), ", output ", text_of(plan::output), "\n");
  out += text("parameters ", detail::grouped(plan::parameter_count), ", running statistics ",
              detail::grouped(plan::state_count), "\n");
  out += text("FLOP per sample, forward: ", detail::grouped(plan::flops), ", of which useful (no padding) ",
              detail::grouped(plan::useful_flops), "\n");
  out += text("activation memory per sample: training ", detail::grouped(activation_memory<Model, true>::size * 4),
              " bytes, evaluation ", detail::grouped(activation_memory<Model, false>::size * 4), " bytes\n");
  return out;
}

}  // namespace kd::inline KD_ABI::nn
