/// The execution plan of a network, made at compile time: its layers in order, shapes, names, parameters, what is
/// fused, and where every activation and gradient lies.
///
/// A model is traced once into a flat array of nodes; the loops of network.hpp run over that array, so the depth of a
/// network is the length of an array and never the depth of a template.
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "kd/core/memory_plan.hpp"
#include "kd/core/type_list.hpp"
#include "kd/nn/activation.hpp"
#include "kd/nn/checks.hpp"
#include "kd/nn/layer.hpp"
#include "kd/nn/sequential.hpp"

namespace kd::inline KD_ABI::nn {

inline constexpr std::size_t no_value = static_cast<std::size_t>(-1);

/// One layer of a traced network. Values are numbered: 0 is the input, others are outputs of nodes.
struct node {
  short_name name;  // as in PyTorch, "layer1.0.conv1"
  layer_kind kind = layer_kind::other;
  shape in, out;                  // of this layer alone
  std::size_t input = no_value;   // value that is read
  std::size_t second = no_value;  // second operand of the sum, own or fused
  std::size_t output = no_value;  // value that is written, behind everything fused
  fusion fused = fusion::none;
  bool absorbed = false;     // done by an earlier node
  bool accumulates = false;  // its gradient by the input is added to what later nodes left there
  bool second_accumulates = false;
  bool needs_dx = true;
  std::size_t parameters = 0;  // where its trainable tensors begin in the flat buffer
  std::size_t trainable = 0;   // floats in them
  std::size_t state = 0;       // where its running statistics begin in the state
  std::size_t statistics = 0;  // floats in them
  std::size_t random_layer = 0;
  std::size_t tensors = 0;  // first of its tensors in the table of tensors
  std::size_t tensor_count = 0;
};

/// One tensor of a network: its PyTorch name, and where it lies in the parameters, or in the state: at a multiple of 16
/// bytes.
struct tensor_info {
  short_name name;
  parameter spec;
  std::size_t offset = 0;
};

namespace detail {

// ---- the leaves of a model, as one flat list of types -------------------------------------------------------------
template <class Item>
struct leaves {
  using type = type_list<leaf<Item>>;
};
template <class... Items>
using leaves_of = decltype((type_list<>{} + ... + typename leaves<Items>::type{}));
template <class Input, class... Items>
struct leaves<sequential<Input, Items...>> {
  using type = leaves_of<Items...>;
};
template <class... Items>
struct leaves<block<Items...>> {
  using type = leaves_of<Items...>;
};
template <fixed_string Name, class... Items>
struct leaves<named<Name, Items...>> {
  using type = leaves_of<Items...>;
};
template <fixed_string Name, class Item>
struct leaves<as<Name, Item>> {
  using type = leaves_of<Item>;
};
template <class... Main, class... Short>
struct leaves<residual<main_path<Main...>, shortcut<Short...>>> {
  // The shortcut comes first, so that the sum follows the last layer of the main path and can be fused with it.
  using type = leaves_of<Short..., Main..., add>;
};

// ---- the trace ----------------------------------------------------------------------------------------------------
/// A nested network whose declared input is not what comes in there.
struct input_conflict {
  short_name name;
  shape declared, incoming;
};

template <std::size_t Nodes>
struct tracer {
  std::array<node, Nodes> nodes{};
  std::size_t count = 0;
  std::size_t values = 1;
  std::size_t current = 0;
  shape current_shape;
  std::size_t parameters = 0, state = 0;      // floats of the flat buffers
  std::size_t trainable = 0, statistics = 0;  // floats in tensors
  std::size_t random_layers = 0, tensors = 0;
  bool sound = true;  // every shape is known, and shapes that must be equal are
  bool has_conflict = false;
  input_conflict conflict;

  /// Nothing after this place has a shape that could be checked.
  constexpr void give_up() {
    sound = false;
    current_shape = {};
  }

  template <class Layer>
  constexpr node& append(const short_name& name) {
    node& n = nodes[count++];
    n.name = name;
    n.kind = kind_of<Layer>;
    n.in = current_shape;
    n.out = n.in.channels == 0 ? shape{} : Layer::output(n.in);
    n.input = current;
    n.output = values++;
    n.parameters = parameters;
    n.state = state;
    n.tensors = tensors;
    if (n.out.size() > 0) {
      for (const parameter& p : Layer::parameters(n.in)) {
        (p.trainable ? n.trainable : n.statistics) += p.size();
        (p.trainable ? parameters : state) += aligned_floats(p.size());
        ++n.tensor_count;
      }
    }
    trainable += n.trainable;
    statistics += n.statistics;
    tensors += n.tensor_count;
    if constexpr (Layer::draws_random) n.random_layer = random_layers++;
    current = n.output;
    current_shape = n.out;
    if (n.out.size() == 0) give_up();
    return n;
  }
};

constexpr short_name child(short_name prefix, std::string_view name) {
  if (name.empty()) return prefix;
  if (prefix.size > 0) prefix.append(".");
  return prefix.append(name);
}
constexpr short_name child(short_name prefix, std::size_t position) {
  if (prefix.size > 0) prefix.append(".");
  return prefix.append_number(position);
}

template <class Item>
struct tracing {
  template <class Tracer>
  static constexpr void trace(Tracer& t, const short_name& name) {
    t.template append<leaf<Item>>(name);
  }
};

// A child that carries a name of its own ignores its position.
template <class Item>
struct child_name {
  static constexpr short_name under(const short_name& prefix, std::size_t position) { return child(prefix, position); }
};
template <fixed_string Name, class... Items>
struct child_name<named<Name, Items...>> {
  static constexpr short_name under(const short_name& prefix, std::size_t) { return child(prefix, Name.view()); }
};
template <fixed_string Name, class Item>
struct child_name<as<Name, Item>> {
  static constexpr short_name under(const short_name& prefix, std::size_t) { return child(prefix, Name.view()); }
};

template <class... Items, class Tracer>
constexpr void trace_children(Tracer& t, const short_name& prefix) {
  [[maybe_unused]] std::size_t position = 0;
  (tracing<Items>::trace(t, child_name<Items>::under(prefix, position++)), ...);
}

template <class Input, class... Items>
struct tracing<sequential<Input, Items...>> {
  template <class Tracer>
  static constexpr void trace(Tracer& t, const short_name& name) {
    constexpr shape declared = sequential<Input, Items...>::input;
    if (t.current_shape.size() == 0) {
      t.give_up();
    } else if (!(declared == t.current_shape)) {
      t.has_conflict = true;
      t.conflict = {name, declared, t.current_shape};
      t.give_up();
    }
    trace_children<Items...>(t, name);
  }
};
template <class... Items>
struct tracing<block<Items...>> {
  template <class Tracer>
  static constexpr void trace(Tracer& t, const short_name& name) {
    trace_children<Items...>(t, name);
  }
};
template <fixed_string Name, class... Items>
struct tracing<named<Name, Items...>> {
  template <class Tracer>
  static constexpr void trace(Tracer& t, const short_name& name) {
    trace_children<Items...>(t, name);
  }
};
template <fixed_string Name, class Item>
struct tracing<as<Name, Item>> {
  template <class Tracer>
  static constexpr void trace(Tracer& t, const short_name& name) {
    tracing<Item>::trace(t, name);
  }
};
template <class... Main, class... Short>
struct tracing<residual<main_path<Main...>, shortcut<Short...>>> {
  template <class Tracer>
  static constexpr void trace(Tracer& t, const short_name& name) {
    const std::size_t entry = t.current;
    const shape entry_shape = t.current_shape;
    trace_children<Short...>(t, child(name, "downsample"));
    const std::size_t side = t.current;
    const shape side_shape = t.current_shape;
    t.current = entry;
    t.current_shape = entry_shape;
    trace_children<Main...>(t, name);
    node& sum = t.template append<add>(child(name, "add"));
    sum.second = side;
    // Shapes that differ are reported by check_layer; the sum keeps the shape of the shortcut for that.
    if (!(side_shape == sum.in)) {
      sum.out = side_shape;
      t.give_up();
    }
  }
};

template <class Model>
constexpr auto trace_of() {
  tracer<leaves<Model>::type::size> t;
  t.current_shape = input_of<Model>();
  tracing<Model>::trace(t, short_name{});
  return t;
}
/// The trace of a model that has an error, which is reported: as if it had no layers.
template <class Model>
constexpr auto empty_trace() {
  tracer<0> t;
  t.current_shape = input_of<Model>();
  return t;
}

// ---- fusion -------------------------------------------------------------------------------------------------------
/// Merges what follows a layer into it: conv+relu(+2x2 max pool), linear+relu, batch norm(+add)(+relu).
template <std::size_t N>
constexpr void fuse(std::array<node, N>& nodes, const std::array<bool, N>& pools_2x2) {
  std::array<std::size_t, N + 1> readers{};
  for (const node& n : nodes) {
    if (n.input != no_value) ++readers[n.input];
    if (n.second != no_value) ++readers[n.second];
  }
  const auto follows = [&](std::size_t i, std::size_t head, layer_kind kind) {
    return i < N && nodes[i].kind == kind && nodes[i].input == nodes[head].output && readers[nodes[head].output] == 1;
  };
  const auto absorb = [&](std::size_t i, std::size_t head, fusion f) {
    nodes[head].output = nodes[i].output;
    nodes[head].fused = f;
    nodes[i].absorbed = true;
  };
  for (std::size_t i = 0; i < N; ++i) {
    const layer_kind kind = nodes[i].kind;
    if (kind == layer_kind::conv2d || kind == layer_kind::linear) {
      if (!follows(i + 1, i, layer_kind::relu)) continue;
      absorb(i + 1, i, fusion::relu);
      if (kind == layer_kind::conv2d && follows(i + 2, i, layer_kind::max_pool2d) && pools_2x2[i + 2])
        absorb(i + 2, i, fusion::relu_pool);
    } else if (kind == layer_kind::batch_norm2d) {
      std::size_t next = i + 1;
      if (follows(next, i, layer_kind::add)) {
        nodes[i].second = nodes[next].second;
        absorb(next++, i, fusion::add);
      }
      if (follows(next, i, layer_kind::relu))
        absorb(next, i, nodes[i].fused == fusion::add ? fusion::add_relu : fusion::relu);
    }
  }
}

/// Finds the gradients that have more than one source, and the layers in front of which nothing learns.
template <std::size_t N>
constexpr void order_gradients(std::array<node, N>& nodes) {
  std::array<bool, N + 1> written{}, wanted{};
  for (const node& n : nodes) {
    if (n.absorbed) continue;
    const auto known = [&](std::size_t value) { return value != no_value && wanted[value]; };
    wanted[n.output] = n.trainable > 0 || known(n.input) || known(n.second);
  }
  for (std::size_t i = N; i-- > 0;) {
    node& n = nodes[i];
    if (n.absorbed) continue;
    if (n.second != no_value) {
      n.second_accumulates = written[n.second];
      written[n.second] = true;
    }
    n.needs_dx = wanted[n.input];
    n.accumulates = written[n.input];
    written[n.input] = written[n.input] || n.needs_dx;
  }
}

}  // namespace detail

/// Everything that is known of `Model` at compile time. Using it checks every shape of the model.
template <class Model>
struct plan_of {
 private:
  static constexpr auto as_written = detail::trace_of<Model>();
  /// Instantiates every check of the model: an error of it is a static_assert that fails here.
  template <std::size_t... I>
  static constexpr bool checked(std::index_sequence<I...>) {
    detail::check_network<Model>();
    (check_node<I>(), ...);
    if constexpr (as_written.has_conflict) {
      constexpr detail::input_conflict c = as_written.conflict;
      detail::check_nested_input<printed_name<c.name.size>(c.name), c.declared, c.incoming>();
    }
    return as_written.sound;
  }
  template <std::size_t I>
  static constexpr void check_node() {
    constexpr node n = as_written.nodes[I];
    if constexpr (n.in.size() > 0)
      detail::check_layer<printed_name<n.name.size>(n.name), type_at<I, typename detail::leaves<Model>::type>, n.in,
                          n.out>();
  }
  static constexpr bool sound = checked(std::make_index_sequence<detail::leaves<Model>::type::size>{});

 public:
  /// The layers in order; none where the model has an error, so that nothing else is reported.
  using layers = std::conditional_t<sound, typename detail::leaves<Model>::type, type_list<>>;
  static constexpr std::size_t node_count = layers::size;

 private:
  static constexpr auto traced = [] {
    if constexpr (sound)
      return as_written;
    else
      return detail::empty_trace<Model>();
  }();
  static constexpr auto pools_2x2 = []<class... Layers>(type_list<Layers...>) {
    std::array<bool, node_count> small{};
    std::size_t i = 0;
    const auto look = [&]<class Layer>(std::type_identity<Layer>) {
      if constexpr (kind_of<Layer> == layer_kind::max_pool2d) {
        const shape in = traced.nodes[i].in;
        small[i] =
            Layer::kernel == 2 && Layer::stride == 2 && Layer::padding == 0 && in.height % 2 == 0 && in.width % 2 == 0;
      }
      ++i;
    };
    (look(std::type_identity<Layers>{}), ...);
    return small;
  }(layers{});

 public:
  template <std::size_t I>
  using layer = type_at<I, layers>;

  /// The layers in order, with everything that is fused.
  static constexpr std::array<node, node_count> nodes = [] {
    auto all = traced.nodes;
    detail::fuse(all, pools_2x2);
    detail::order_gradients(all);
    return all;
  }();
  static constexpr std::size_t value_count = node_count + 1;
  static constexpr shape input = detail::input_of<Model>();
  static constexpr shape output = traced.current_shape;
  static constexpr std::size_t output_value = traced.current;
  /// The shape of a value (0: the input).
  static constexpr shape value_shape(std::size_t value) {
    for (const node& n : traced.nodes)
      if (n.output == value) return n.out;
    return input;
  }

  /// Trainable floats, and running statistics.
  static constexpr std::size_t parameter_count = as_written.trainable;
  static constexpr std::size_t state_count = traced.statistics;
  /// Floats of the flat buffers that hold them. Every tensor begins at a multiple of 16 bytes; the floats between two
  /// tensors are 0 and stay so.
  static constexpr std::size_t parameter_floats = traced.parameters;
  static constexpr std::size_t state_floats = traced.state;

  /// Every tensor in PyTorch's order: layer by layer, trainable ones and running statistics as the layer lists them.
  static constexpr auto tensors = []<class... Layers>(type_list<Layers...>) {
    std::array<tensor_info, traced.tensors> all{};
    std::size_t i = 0, at = 0;
    const auto list = [&]<class Layer>(std::type_identity<Layer>) {
      const node& n = traced.nodes[i++];
      if (n.in.channels == 0) return;
      std::size_t parameters = n.parameters, state = n.state;
      for (const parameter& p : Layer::parameters(n.in)) {
        std::size_t& offset = p.trainable ? parameters : state;
        all[at++] = {detail::child(n.name, p.name.view()), p, offset};
        offset += aligned_floats(p.size());
      }
    };
    (list(std::type_identity<Layers>{}), ...);
    return all;
  }(layers{});

  /// Floating-point operations of one sample's forward pass; `useful` leaves out taps that only meet padding.
  static constexpr std::size_t flops = []<std::size_t... I>(std::index_sequence<I...>) {
    return (std::size_t{0} + ... + layer<I>::flops(nodes[I].in));
  }
  (std::make_index_sequence<node_count>{});
  static constexpr std::size_t useful_flops = []<std::size_t... I>(std::index_sequence<I...>) {
    return (std::size_t{0} + ... + layer<I>::useful_flops(nodes[I].in));
  }
  (std::make_index_sequence<node_count>{});
};

}  // namespace kd::inline KD_ABI::nn
