/// Whole networks: the gradient of every kind of layer and wiring against finite differences, and what a network
/// promises.
#include "kd/nn/network.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include "kd/cpu/device.hpp"
#include "kd/models/light_nn.hpp"
#include "kd/models/resnet.hpp"
#include "kd/nn/layers.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"

namespace nn = kd::nn;
using device = kd::cpu::device;

namespace {

float noise(std::size_t i, std::uint32_t what) {
  const auto words = kd::random_at(99, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i / 4), what);
  return 2 * kd::uniform(words[i % 4]) - 1;
}

/// f(parameters) = sum of noise * logits, in training mode; and its derivative along a random direction, both by
/// backward() and by central differences.
template <class Model>
class functional {
 public:
  static constexpr std::size_t batch = 19;  // two blocks, the second one partly filled
  using network = kd::network<Model, device>;

  explicit functional(int threads = 2) : cpu_(threads), net_(cpu_, 5) {}

  double value() {
    fill_input();
    const float* logits = net_.forward_train(batch, random_);
    double sum = 0;
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t c = 0; c < network::classes; ++c)
        sum += static_cast<double>(logits[device::index(out, n, c)]) * static_cast<double>(noise(n * 97 + c, 1));
    return sum;
  }

  void gradient() {
    value();
    float* d = net_.logits_gradient(batch);
    std::memset(d, 0, kd::cpu::storage_size(out, batch) * sizeof(float));
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t c = 0; c < network::classes; ++c) d[device::index(out, n, c)] = noise(n * 97 + c, 1);
    net_.backward(batch, random_);
  }

  /// Compares along one direction per trainable tensor.
  void check_directions(double step, double tolerance) {
    std::fill(net_.gradients(), net_.gradients() + network::parameter_floats, 123.0f);  // must be overwritten
    gradient();
    const std::vector<float> g(net_.gradients(), net_.gradients() + network::parameter_floats);
    for (const nn::tensor_info& t : network::plan::tensors) {
      if (!t.spec.trainable) continue;
      double along = 0, norm = 0;
      for (std::size_t i = 0; i < t.spec.size(); ++i) {
        along += static_cast<double>(g[t.offset + i]) * static_cast<double>(noise(i, 2));
        norm += static_cast<double>(g[t.offset + i]) * static_cast<double>(g[t.offset + i]);
      }
      const std::vector<float> kept(net_.parameters() + t.offset, net_.parameters() + t.offset + t.spec.size());
      const auto moved = [&](double by) {
        for (std::size_t i = 0; i < kept.size(); ++i)
          net_.parameters()[t.offset + i] = kept[i] + static_cast<float>(by * static_cast<double>(noise(i, 2)));
        const double f = value();
        std::copy(kept.begin(), kept.end(), net_.parameters() + t.offset);
        return f;
      };
      const double numeric = (moved(step) - moved(-step)) / (2 * step);
      INFO(t.name.view());
      CHECK(kd_test::near(along, numeric,
                          {.absolute = tolerance * (0.1 * std::sqrt(norm) + 0.01), .relative = tolerance}));
    }
  }

  network& net() { return net_; }

 private:
  static constexpr kd::shape out = network::plan::output;
  void fill_input() {
    float* x = net_.input(batch, true);
    for (std::size_t n = 0; n < device::padded(batch); ++n)
      for (std::size_t c = 0; c < Model::input.channels; ++c)
        for (std::size_t y = 0; y < Model::input.height; ++y)
          for (std::size_t w = 0; w < Model::input.width; ++w)
            x[device::index(Model::input, n, c, y, w)] = n < batch ? noise(((n * 7 + c) * 31 + y) * 31 + w, 3) : 0.0f;
  }

  device cpu_;
  network net_;
  kd::step_random random_{3, 4};
};

/// Smooth, so that finite differences are exact to second order.
struct softplus : nn::layer_base {
  static constexpr bool needs_y(nn::fusion) { return false; }
  static constexpr kd::shape output(kd::shape in) { return in; }
  template <kd::shape In, nn::fusion, class Device>
  static void forward(Device&, const nn::forward_pass& p) {
    for (std::size_t i = 0; i < Device::padded(p.batch) * In.size(); ++i) p.y[i] = std::log1p(std::exp(p.x[i]));
  }
  template <kd::shape In, nn::fusion, class Device>
  static void backward(Device&, const nn::backward_pass& p) {
    for (std::size_t i = 0; i < Device::padded(p.batch) * In.size(); ++i) p.dx[i] = p.dy[i] / (1 + std::exp(-p.x[i]));
  }
};

/// Made from one of the library's layers: it must run as itself, and not be merged into the layer before it as a relu.
struct soft_relu : nn::relu {
  static constexpr bool needs_x(nn::fusion) { return true; }
  template <kd::shape In, nn::fusion Fused, class Device>
  static void forward(Device& device, const nn::forward_pass& p) {
    softplus::forward<In, Fused>(device, p);
  }
  template <kd::shape In, nn::fusion Fused, class Device>
  static void backward(Device& device, const nn::backward_pass& p) {
    softplus::backward<In, Fused>(device, p);
  }
};

template <std::size_t C, std::size_t K, std::size_t S = 1>
using conv = nn::conv2d<C, K, nn::conv_options{.stride = S, .padding = K / 2}>;

}  // namespace

// Single precision and a step of 1e-2 leave about 1e-3 in the difference quotient; a wrong wiring is off by tens of
// percent.
TEST_CASE("network: gradient of linear layers and dropout", "[nn][network]") {
  using model = nn::sequential<kd::row<12>, nn::linear<20>, softplus, nn::dropout<0.3f>, nn::linear<7>>;
  functional<model>().check_directions(1e-2, 0.02);
}
TEST_CASE("network: gradient of convolutions, pooling and flatten", "[nn][network]") {
  using model = nn::sequential<kd::image<3, 8, 8>, conv<8, 3>, softplus, nn::max_pool2d<2>, conv<16, 3, 2>, softplus,
                               nn::flatten, nn::linear<5>>;
  functional<model>().check_directions(3e-3, 0.2);
}
TEST_CASE("network: gradient of fused convolution, relu and pooling", "[nn][network]") {
  using model = nn::sequential<kd::image<3, 8, 8>, conv<8, 3>, nn::relu, nn::max_pool2d<2>, conv<8, 3>, nn::relu,
                               nn::flatten, nn::linear<6>, nn::relu, nn::linear<5>>;
  functional<model>().check_directions(1e-3, 0.2);
}
TEST_CASE("network: a layer derived from one of the library's runs its own code", "[nn][network]") {
  using own = nn::sequential<kd::row<12>, nn::linear<20>, soft_relu, nn::linear<7>>;
  using same = nn::sequential<kd::row<12>, nn::linear<20>, softplus, nn::linear<7>>;
  CHECK(functional<own>().value() == functional<same>().value());
  functional<own>().check_directions(1e-2, 0.02);
}
TEST_CASE("network: gradient of a residual block with identity and projection", "[nn][network]") {
  using model = nn::sequential<
      kd::image<3, 8, 8>, conv<8, 3>, softplus,
      nn::residual<nn::main_path<conv<8, 3>, nn::batch_norm2d<>, softplus, conv<8, 3>, nn::batch_norm2d<>>>, softplus,
      nn::residual<nn::main_path<conv<16, 3, 2>, nn::batch_norm2d<>>, nn::shortcut<conv<16, 1, 2>, nn::batch_norm2d<>>>,
      softplus, nn::global_avg_pool2d, nn::flatten, nn::linear<4>>;
  functional<model>().check_directions(3e-3, 0.02);
}
TEST_CASE("network: gradient where a layer that only overwrites opens a residual block", "[nn][network]") {
  using model = nn::sequential<
      kd::image<4, 4, 4>, conv<8, 1>,
      nn::residual<
          nn::main_path<nn::batch_norm2d<>, softplus, conv<8, 3>, nn::residual<nn::main_path<softplus, conv<8, 1>>>>>,
      nn::residual<nn::main_path<nn::residual<nn::main_path<softplus, conv<8, 1>, nn::batch_norm2d<>>>, softplus>>,
      nn::global_avg_pool2d, nn::flatten, nn::linear<4>>;
  functional<model>().check_directions(3e-3, 0.02);
}

TEST_CASE("network: equal seeds give equal weights, others do not", "[nn][network]") {
  device cpu(1);
  const kd::network<kd::models::LightNN, device> a(cpu, 1), b(cpu, 1), c(cpu, 2);
  CHECK(std::memcmp(a.parameters(), b.parameters(), a.parameter_floats * sizeof(float)) == 0);
  CHECK(std::memcmp(a.parameters(), c.parameters(), a.parameter_floats * sizeof(float)) != 0);
}

TEST_CASE("network: initial weights have PyTorch's distributions", "[nn][network]") {
  device cpu(1);
  const kd::network<kd::models::ResNet18, device> teacher(cpu, 1);
  const kd::network<kd::models::LightNN, device> student(cpu, 1);
  const auto moments = [](const std::vector<float>& v) {
    double sum = 0, squares = 0;
    for (const float x : v) {
      const auto d = static_cast<double>(x);
      sum += d;
      squares += d * d;
    }
    const auto n = static_cast<double>(v.size());
    return std::array{sum / n, std::sqrt(squares / n), kd_test::largest_magnitude(v)};
  };
  for (const nn::tensor_info& t : kd::nn::plan_of<kd::models::ResNet18>::tensors) {
    INFO(t.name.view());
    const auto [mean, deviation, largest] = moments(teacher.read(t));
    if (t.spec.rank == 4) {  // He et al., fan out
      const double want = std::sqrt(2.0 / static_cast<double>(t.spec.dims[0] * t.spec.dims[2] * t.spec.dims[3]));
      const auto n = static_cast<double>(t.spec.size());
      CHECK(kd_test::near(deviation, want, {.relative = 4 / std::sqrt(2 * n)}));
      CHECK(kd_test::near(mean, 0, {.absolute = 5 * want / std::sqrt(n)}));
    } else if (t.name.view().ends_with("bias") && t.name.view() != "fc.bias") {
      CHECK(largest == 0);
    }
  }
  for (const nn::tensor_info& t : kd::nn::plan_of<kd::models::LightNN>::tensors) {
    INFO(t.name.view());
    const std::size_t fan_in = t.name.view().starts_with("features.0")     ? 27
                               : t.name.view().starts_with("features.3")   ? 144
                               : t.name.view().starts_with("classifier.0") ? 1024
                                                                           : 256;
    const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
    const double largest = moments(student.read(t))[2];
    CHECK(largest <= bound * 1.000001);
    if (t.spec.size() > 100) CHECK(largest >= 0.95 * bound);
  }
}

TEST_CASE("network: results do not depend on the number of threads", "[nn][network]") {
  using model = kd::models::LightNN;
  functional<model> one(1), three(3);
  one.gradient();
  three.gradient();
  CHECK(std::memcmp(one.net().gradients(), three.net().gradients(), one.net().parameter_floats * sizeof(float)) == 0);
}

TEST_CASE("network: evaluation of a sample does not depend on its batch", "[nn][network]") {
  device cpu(1);
  kd::network<kd::models::LightNN, device> net(cpu, 1);
  const auto logits_of_first = [&](std::size_t batch) {
    float* x = net.input(batch, false);
    for (std::size_t n = 0; n < device::padded(batch); ++n)
      for (std::size_t i = 0; i < 3072; ++i)
        x[device::index(kd::image_shape(3, 32, 32), n, i / 1024, i / 32 % 32, i % 32)] = noise(n * 3072 + i, 8);
    const float* y = net.forward_infer(batch);
    std::vector<float> out(10);
    for (std::size_t c = 0; c < 10; ++c) out[c] = y[device::index(kd::row_shape(10), 0, c)];
    return out;
  };
  const auto alone = logits_of_first(1);
  CHECK(kd_test::near(logits_of_first(33), alone, {.of_largest = 1e-5}));
  CHECK(kd_test::near(logits_of_first(128), alone, {.of_largest = 1e-5}));
}

TEST_CASE("device: at least one thread", "[cpu][device]") {
  const std::string message = kd_test::message_of<kd::argument_error>([] { device none(0); });
  INFO(message);
  CHECK(kd_test::holds(message, "threads must be at least 1, received 0", "--threads"));
}
