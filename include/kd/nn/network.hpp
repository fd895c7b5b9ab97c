/// A network on a device: the buffers of a model, and its forward and backward pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "kd/backend/device.hpp"
#include "kd/core/image_view.hpp"
#include "kd/core/one_thread.hpp"
#include "kd/core/random.hpp"
#include "kd/core/sizes.hpp"
#include "kd/nn/activation_memory.hpp"
#include "kd/nn/canonical.hpp"
#include "kd/nn/plan.hpp"

namespace kd::inline KD_ABI {

/// Owns the parameters, gradients and running statistics of `Model`, one flat buffer each (plan::tensors says where a
/// tensor lies in them), and its activations; knows how the pixels of its images are normalised, since its weights are
/// right for that alone.
///
/// Buffers grow to the largest batch seen and are then kept: a training step allocates nothing. Move-only. One thread
/// at a time may use a network, since its activations are in it: while a pass runs or `use` is held, a call from
/// another thread throws argument_error.
template <class Model, backend::device Device>
class network {
 public:
  using model = Model;
  using device_type = Device;
  using plan = nn::plan_of<Model>;
  /// Trainable floats, and running statistics; and the floats of the buffers that hold them, padding included.
  static constexpr std::size_t parameter_count = plan::parameter_count, parameter_floats = plan::parameter_floats;
  static constexpr std::size_t state_count = plan::state_count, state_floats = plan::state_floats;
  static constexpr std::size_t classes = plan::output.channels;

  /// A network with the initial weights of `seed`: equal seeds give equal weights on every device. Its images are
  /// normalised by `pixels`; where nothing is given, by ImageNet's constants or those of the file that is loaded.
  /// Throws argument_error where a standard deviation is not positive.
  network(Device& device, std::uint64_t seed, std::optional<normalisation> pixels = {})
      : device_(&device),
        pixels_given_(pixels.has_value()),
        parameters_(device.template allocate<float>(parameter_floats)),
        gradients_(device.template allocate<float>(parameter_floats)),
        state_(device.template allocate<float>(state_floats)),
        fixed_(device.template allocate<float>(fixed_size)) {
    for (const nn::node& n : plan::nodes)
      if (n.kind == nn::layer_kind::other && !device.images_are_float())
        reject_argument("kd::network", "layers of your own work on floats, so the precision must be fp32 or tf32",
                        "bf16", "choose another precision for this network");
    set_pixels(pixels.value_or(imagenet_normalisation));
    initialise(seed);
  }

  Device& device() const { return *device_; }
  float* parameters() { return parameters_.data(); }
  const float* parameters() const { return parameters_.data(); }
  float* gradients() { return gradients_.data(); }
  const float* gradients() const { return gradients_.data(); }
  /// Running means and variances.
  float* state() { return state_.data(); }
  const float* state() const { return state_.data(); }
  /// Training batches that the running statistics have seen: PyTorch's num_batches_tracked.
  std::int64_t batches_tracked = 0;

  /// How the pixels of its images become its input; entries beyond its channels have mean 0 and std 1.
  const normalisation& pixels() const { return pixels_; }
  /// Whether the constructor was told them: a file that says otherwise is then an error.
  bool pixels_given() const { return pixels_given_; }
  /// Takes over the normalisation that the weights were trained with, as load_weights does.
  void set_pixels(const normalisation& pixels) {
    const auto mine = use();
    check_normalisation("kd::network", pixels, plan::input.channels);
    normalisation used{{0, 0, 0}, {1, 1, 1}};
    for (std::size_t c = 0; c < normalisation::used(plan::input.channels); ++c) {
      used.mean[c] = pixels.mean[c];
      used.std[c] = pixels.std[c];
    }
    if (used == pixels_) return;
    pixels_ = used;
    ++layout_;
  }

  /// Keeps other threads out until what it returns goes: for a loop of your own, from input() until the results are
  /// read. predict, evaluate and training take it themselves.
  one_thread::use use() const { return user_.take("kd::network"); }

  /// Takes memory for batches of up to `batch` samples. Throws argument_error where no address reaches as far, and
  /// device_error where the memory is not there.
  void reserve(std::size_t batch, bool training) {
    const auto mine = use();
    const std::size_t floats = training ? train_memory::size : infer_memory::size;
    (void)product_of("kd::network::reserve", {std::max<std::size_t>(floats, 1), batch, sizeof(float)},
                     "use a smaller batch_size");
    grow(arena_, floats * Device::padded(batch));
    grow(scratch_, scratch_size(batch, std::make_index_sequence<plan::node_count>{}));
  }

  /// Changes whenever a buffer has moved or the normalisation is another: a step that was recorded before is void then.
  std::uint32_t layout() const { return layout_; }

  /// Where the input of the next forward pass goes, in the device's layout. A pass is refused (argument_error) unless
  /// it is of the batch and the mode that were given here last.
  float* input(std::size_t batch, bool training) {
    const auto mine = use();
    if (batch == 0) reject_argument("kd::network::input", "batch must be at least 1", batch, "pass a sample or more");
    reserve(batch, training);
    batch_ = batch;
    training_ = training;
    return arena_.data() + (training ? train_memory::value(0) : infer_memory::value(0)) * Device::padded(batch);
  }

  /// Runs the network on what lies in input(); returns the logits in the device's layout. Evaluation uses the running
  /// statistics and no dropout.
  const float* forward_infer(std::size_t batch) {
    const auto mine = use();
    require_input("kd::network::forward_infer", batch, false);
    forward<false>(batch, {}, std::make_index_sequence<plan::node_count>{});
    return arena_.data() + infer_memory::value(plan::output_value) * Device::padded(batch);
  }
  const float* forward_train(std::size_t batch, step_random random) {
    const auto mine = use();
    require_input("kd::network::forward_train", batch, true);
    forward<true>(batch, random, std::make_index_sequence<plan::node_count>{});
    ++batches_tracked;
    return arena_.data() + train_memory::value(plan::output_value) * Device::padded(batch);
  }

  /// Where the gradient of the logits goes before backward(), in the device's layout.
  float* logits_gradient(std::size_t batch) {
    require_input("kd::network::logits_gradient", batch, true);
    return arena_.data() + train_memory::gradient(plan::output_value) * Device::padded(batch);
  }
  /// Fills gradients() from the gradient of the logits and the activations of the last forward_train().
  void backward(std::size_t batch, step_random random) {
    const auto mine = use();
    require_input("kd::network::backward", batch, true);
    backward(batch, random, std::make_index_sequence<plan::node_count>{});
  }

  /// Sets initial weights, and running statistics to those of a fresh network.
  void initialise(std::uint64_t seed) {
    std::vector<float> weights(parameter_floats), state(state_floats), tensor;
    std::uint32_t ordinal = 0;
    for (const nn::tensor_info& info : plan::tensors) {
      tensor.resize(info.spec.size());
      fill_initial(info.spec, seed, ordinal, tensor);
      ordinal += info.spec.trainable ? 1 : 0;
      nn::from_canonical(info.spec, tensor.data(), (info.spec.trainable ? weights : state).data() + info.offset);
    }
    const auto mine = use();
    device_->upload(weights.data(), parameter_floats, parameters_.data());
    device_->upload(state.data(), state_floats, state_.data());
    batches_tracked = 0;
  }

  /// One tensor of plan::tensors in PyTorch's order, on the host.
  std::vector<float> read(const nn::tensor_info& info) const {
    return read(info, info.spec.trainable ? parameters() : state());
  }
  /// The gradient of one trainable tensor, likewise.
  std::vector<float> read_gradient(const nn::tensor_info& info) const { return read(info, gradients()); }
  /// The same tensor in another buffer of the device that has the layout of the parameters: an optimiser's state.
  std::vector<float> read(const nn::tensor_info& info, const float* buffer) const {
    const auto mine = use();
    require_tensor("kd::network::read", info, buffer);
    std::vector<float> stored(info.spec.size()), canonical(info.spec.size());
    device_->download(buffer + info.offset, stored.size(), stored.data());
    nn::to_canonical(info.spec, stored.data(), canonical.data());
    return canonical;
  }
  /// Takes info.spec.size() floats.
  void write(const nn::tensor_info& info, const float* canonical) {
    write(info, canonical, info.spec.trainable ? parameters() : state());
  }
  void write(const nn::tensor_info& info, const float* canonical, float* buffer) {
    const auto mine = use();
    require_tensor("kd::network::write", info, buffer);
    std::vector<float> stored(info.spec.size());
    nn::from_canonical(info.spec, canonical, stored.data());
    device_->upload(stored.data(), stored.size(), buffer + info.offset);
  }

 private:
  using train_memory = nn::activation_memory<Model, true>;
  using infer_memory = nn::activation_memory<Model, false>;
  template <class T>
  using buffer = typename Device::template buffer<T>;

  static constexpr auto fixed_offset = []<std::size_t... I>(std::index_sequence<I...>) {
    std::array<std::size_t, plan::node_count + 1> at{};
    ((at[I + 1] = at[I] + (plan::nodes[I].absorbed ? 0
                                                   : nn::aligned_floats(plan::template layer<I>::saved_fixed(
                                                         plan::nodes[I].in, plan::nodes[I].fused)))),
     ...);
    return at;
  }
  (std::make_index_sequence<plan::node_count>{});
  static constexpr std::size_t fixed_size = fixed_offset[plan::node_count];

  template <std::size_t... I>
  static std::size_t scratch_size(std::size_t batch, std::index_sequence<I...>) {
    return std::max({std::size_t{0}, plan::template layer<I>::template scratch<Device>(
                                         plan::nodes[I].in, plan::nodes[I].fused, batch)...});
  }

  void grow(buffer<float>& b, std::size_t floats) {
    if (b.size() >= floats) return;
    batch_ = 0;  // what lay in input() is gone
    b = device_->template allocate<float>(floats);
    ++layout_;
  }

  void require_input(std::string_view function, std::size_t batch, bool training) const {
    if (batch != 0 && batch == batch_ && training == training_) return;
    const auto mode = [](std::size_t samples, bool trains) {
      return text("batch ", samples, trains ? " in training" : " in evaluation");
    };
    reject_argument(function, text("the pass must be that of the last input(): ", mode(batch_, training_)),
                    mode(batch, training), "call input() with this batch and mode, and fill it, before each pass");
  }
  /// `buffer` is the state, or has the layout of the parameters.
  void require_tensor(std::string_view function, const nn::tensor_info& info, const float* buffer) const {
    const bool trainable = buffer != state();
    if (info.spec.trainable == trainable)
      for (const nn::tensor_info& own : plan::tensors)
        if (own.name.view() == info.name.view() && own.offset == info.offset && own.spec.size() == info.spec.size())
          return;
    reject_argument(function,
                    trainable ? "the tensor must be a trainable one of plan::tensors"
                              : "the tensor must be a running statistic of plan::tensors",
                    info.name.view(), "loop over the tensors of this network's own plan");
  }

  static void fill_initial(const nn::parameter& p, std::uint64_t seed, std::uint32_t ordinal, std::vector<float>& out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (p.start == nn::initial::zeros || p.start == nn::initial::ones) {
        out[i] = p.start == nn::initial::ones ? 1.0f : 0.0f;
        continue;
      }
      if (p.start != nn::initial::uniform && p.start != nn::initial::normal)
        reject_argument("kd::network", text("the start of parameter ", p.name.view(), " must be one of nn::initial"),
                        static_cast<int>(p.start), "use zeros, ones, uniform or normal");
      const random_words words =
          random_at(seed, random_stream::initial_weights, static_cast<std::uint32_t>(i / 4), 0, ordinal);
      if (p.start == nn::initial::uniform) {
        out[i] = (2 * uniform(words[i % 4]) - 1) * p.scale;
      } else {
        // Box and Muller 1958: two words give two normal numbers.
        const std::size_t pair = i % 4 / 2 * 2;
        const double radius = std::sqrt(-2 * std::log(1.0 - static_cast<double>(uniform(words[pair]))));
        const double angle = 6.283185307179586 * static_cast<double>(uniform(words[pair + 1]));
        out[i] = static_cast<float>(p.scale * radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
      }
    }
  }

  template <bool Training, std::size_t... I>
  void forward(std::size_t batch, step_random random, std::index_sequence<I...>) {
    (forward_node<Training, I>(batch, random), ...);
  }
  template <bool Training, std::size_t I>
  void forward_node(std::size_t batch, step_random random) {
    constexpr nn::node n = plan::nodes[I];
    static_assert(plan::template layer<I>::fuses(n.fused),
                  "kd::network: the plan merges into this layer what its forward and backward do not do");
    if constexpr (!n.absorbed) {
      using memory = nn::activation_memory<Model, Training>;
      const std::size_t padded = Device::padded(batch);
      float* arena = arena_.data();
      const nn::forward_pass pass{
          .batch = batch,
          .training = Training,
          .x = arena + memory::value(n.input) * padded,
          .residual = n.second == nn::no_value ? nullptr : arena + memory::value(n.second) * padded,
          .y = arena + memory::value(n.output) * padded,
          .parameters = parameters_.data() + n.parameters,
          .state = state_.data() + n.state,
          .saved = arena + memory::saved(I) * padded,
          .saved_fixed = fixed_.data() + fixed_offset[I],
          .scratch = scratch_.data(),
          .random = random,
          .random_layer = static_cast<std::uint32_t>(n.random_layer),
      };
      plan::template layer<I>::template forward<n.in, n.fused>(*device_, pass);
    }
  }

  template <std::size_t... I>
  void backward(std::size_t batch, step_random random, std::index_sequence<I...>) {
    (backward_node<plan::node_count - 1 - I>(batch, random), ...);
  }
  template <std::size_t I>
  void backward_node(std::size_t batch, step_random random) {
    constexpr nn::node n = plan::nodes[I];
    if constexpr (!n.absorbed && (n.trainable > 0 || n.needs_dx)) {
      using memory = train_memory;
      using layer = typename plan::template layer<I>;
      constexpr bool add_dx = n.needs_dx && n.accumulates && !layer::accumulates;
      const std::size_t padded = Device::padded(batch);
      float* arena = arena_.data();
      float* dx = n.needs_dx ? arena + memory::gradient(n.input) * padded : nullptr;
      float* addend = arena + memory::addend(I) * padded;
      float* second = n.second == nn::no_value ? nullptr : arena + memory::gradient(n.second) * padded;
      float* second_addend = arena + memory::second_addend(I) * padded;
      const nn::backward_pass pass{
          .batch = batch,
          .x = arena + memory::value(n.input) * padded,
          .y = arena + memory::value(n.output) * padded,
          .dy = arena + memory::gradient(n.output) * padded,
          .dx = add_dx ? addend : dx,
          .d_residual = n.second_accumulates ? second_addend : second,
          .parameters = parameters_.data() + n.parameters,
          .gradients = gradients_.data() + n.parameters,
          .saved = arena + memory::saved(I) * padded,
          .saved_fixed = fixed_.data() + fixed_offset[I],
          .scratch = scratch_.data(),
          .accumulate = n.accumulates && layer::accumulates,
          .random = random,
          .random_layer = static_cast<std::uint32_t>(n.random_layer),
      };
      layer::template backward<n.in, n.fused>(*device_, pass);
      if constexpr (add_dx) device_->add(n.in, batch, dx, addend, dx);
      if constexpr (n.second_accumulates) {
        constexpr shape out = plan::value_shape(n.second);
        device_->add(out, batch, second, second_addend, second);
      }
    }
  }

  Device* device_;
  bool pixels_given_;
  normalisation pixels_{};
  mutable one_thread user_;
  std::size_t batch_ = 0;  // of the last input(); 0: none
  bool training_ = false;
  std::uint32_t layout_ = 0;
  buffer<float> parameters_, gradients_, state_, fixed_, arena_, scratch_;
};

}  // namespace kd::inline KD_ABI
