/// An architecture of your own with layers of your own: an elementwise one, and one with parameters.
#include <kd/kd.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace nn = kd::nn;

/// x * clamp(x + 3, 0, 6) / 6. Howard et al. 2019, arXiv:1905.02244, section 5.2. An elementwise layer works on the
/// flat range of an activation and needs nothing else.
struct hard_swish : nn::layer_base {
  static constexpr std::string_view type_name = "hard_swish";
  static constexpr bool needs_y(nn::fusion) { return false; }
  static constexpr kd::shape output(kd::shape in) { return in; }

  template <kd::shape In, nn::fusion, class Device>
  static void forward(Device& device, const nn::forward_pass& p) {
    const std::size_t n = Device::padded(p.batch) * In.size();
    device.threads().for_each(n / 16, [&](std::size_t block) {
      for (std::size_t i = 16 * block; i < 16 * block + 16; ++i)
        p.y[i] = p.x[i] * std::clamp(p.x[i] + 3, 0.0f, 6.0f) / 6;
    });
  }
  template <kd::shape In, nn::fusion, class Device>
  static void backward(Device& device, const nn::backward_pass& p) {
    const std::size_t n = Device::padded(p.batch) * In.size();
    device.threads().for_each(n / 16, [&](std::size_t block) {
      for (std::size_t i = 16 * block; i < 16 * block + 16; ++i) {
        const float x = p.x[i];
        p.dx[i] = p.dy[i] * (x <= -3 ? 0.0f : x >= 3 ? 1.0f : (2 * x + 3) / 6);
      }
    });
  }
};

/// y = scale[c] * x: a factor for every channel, which is learnt. Positions come from Device::index.
struct channel_scale : nn::layer_base {
  static constexpr std::string_view type_name = "channel_scale";
  static constexpr bool needs_y(nn::fusion) { return false; }
  static constexpr kd::shape output(kd::shape in) { return in; }
  static constexpr auto parameters(kd::shape in) {
    return std::array{nn::parameter{
        .name = kd::short_name("scale"), .dims = {in.channels, 1, 1, 1}, .rank = 1, .start = nn::initial::ones}};
  }
  static constexpr std::size_t flops(kd::shape in) { return in.size(); }
  static constexpr std::size_t useful_flops(kd::shape in) { return in.size(); }

  template <kd::shape In, nn::fusion, class Device>
  static void forward(Device& device, const nn::forward_pass& p) {
    each_channel<In>(device, p.batch, [&](std::size_t c, std::size_t at) { p.y[at] = p.parameters[c] * p.x[at]; });
  }
  template <kd::shape In, nn::fusion, class Device>
  static void backward(Device& device, const nn::backward_pass& p) {
    std::fill(p.gradients, p.gradients + In.channels, 0.0f);
    each_channel<In>(device, p.batch, [&](std::size_t c, std::size_t at) {
      p.gradients[c] += p.dy[at] * p.x[at];  // one thread owns a channel
      p.dx[at] = p.dy[at] * p.parameters[c];
    });
  }

 private:
  template <kd::shape In, class Device, class Body>
  static void each_channel(Device& device, std::size_t batch, const Body& body) {
    device.threads().for_each(In.channels, [&](std::size_t c) {
      for (std::size_t sample = 0; sample < Device::padded(batch); ++sample)
        for (std::size_t y = 0; y < In.height; ++y)
          for (std::size_t x = 0; x < In.width; ++x) body(c, Device::index(In, sample, c, y, x));
    });
  }
};

using Student = nn::sequential<
    kd::image<3, 32, 32>,
    nn::named<"stem", nn::conv2d<16, 3, nn::conv_options{.stride = 2, .padding = 1, .bias = false}>, nn::batch_norm2d<>,
              hard_swish>,  // [N,16,16,16]
    nn::named<"body",
              nn::residual<nn::main_path<nn::conv2d<16, 3, nn::conv_options{.padding = 1, .bias = false}>,
                                         nn::batch_norm2d<>, channel_scale>>,
              nn::relu, nn::max_pool2d<2>>,                               // [N,16,8,8]
    nn::global_avg_pool2d, nn::flatten, nn::as<"head", nn::linear<10>>>;  // [N,10]

int main() try {
  kd::cpu::device device;
  const kd::data::dataset set = kd::data::open({.synthetic = {.train = 2048, .test = 500}});
  std::printf("%s", nn::summary<Student>().c_str());

  kd::network<kd::models::LightNN, kd::cpu::device> teacher(device, 1);
  kd::train::fit(teacher, set, kd::optim::adam{}, {.epochs = 2, .name = "teacher", .show = stderr});
  kd::network<Student, kd::cpu::device> student(device, 2);
  const auto history =
      kd::train::distil(student, teacher, set, {.temperature = 4, .kd_weight = 0.5f, .ce_weight = 0.5f},
                        kd::optim::adamw{.learning_rate = 2e-3}, {.epochs = 4, .name = "student", .show = stderr});
  std::printf("loss %.3f after the first epoch, %.3f after the last; %.1f %% of the test images\n",
              history.front().loss, history.back().loss, kd::train::evaluate(student, set.test).top1_percent());
  return history.back().loss < history.front().loss ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "custom_student: %s\n", e.what());
  return 1;
}
