/// An architecture of your own with layers of your own: an elementwise one, and one with parameters.
#include <kd/kd.hpp>

#include <cstdio>

namespace nn = kd::nn;

/// x * clamp(x + 3, 0, 6) / 6. Howard et al. 2019, arXiv:1905.02244, section 5.2. An elementwise layer works on the
/// flat range of an activation: what is done to element i is a struct that every device can call.
struct hard_swish : nn::layer_base {
  static constexpr std::string_view type_name = "hard_swish";
  static constexpr bool needs_y(nn::fusion) { return false; }
  static constexpr kd::shape output(kd::shape in) { return in; }

  struct value {
    const float* x;
    float* y;
    KD_HOST_DEVICE void operator()(std::size_t i) const {
      const float up = x[i] + 3;
      y[i] = x[i] * (up <= 0 ? 0.0f : up >= 6 ? 6.0f : up) / 6;
    }
  };
  struct gradient {
    const float *x, *dy;
    float* dx;
    KD_HOST_DEVICE void operator()(std::size_t i) const {
      dx[i] = dy[i] * (x[i] <= -3 ? 0.0f : x[i] >= 3 ? 1.0f : (2 * x[i] + 3) / 6);
    }
  };

  template <kd::shape In, nn::fusion, class Device>
  static void forward(Device& device, const nn::forward_pass& p) {
    device.for_each(Device::padded(p.batch) * In.size(), value{p.x, p.y});
  }
  template <kd::shape In, nn::fusion, class Device>
  static void backward(Device& device, const nn::backward_pass& p) {
    device.for_each(Device::padded(p.batch) * In.size(), gradient{p.x, p.dy, p.dx});
  }
};

/// y = scale[c] * x: a factor for every channel, which is learnt. Positions come from Device::index; one call owns a
/// channel, so that its sum has one order.
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

  template <class Device>
  struct value {
    kd::shape in;
    std::size_t samples;
    const float *x, *scale;
    float* y;
    KD_HOST_DEVICE void operator()(std::size_t c) const {
      for (std::size_t n = 0; n < samples; ++n)
        for (std::size_t at = 0; at < in.height * in.width; ++at) {
          const std::size_t i = Device::index(in, n, c, at / in.width, at % in.width);
          y[i] = scale[c] * x[i];
        }
    }
  };
  template <class Device>
  struct gradient {
    kd::shape in;
    std::size_t samples;
    const float *x, *dy, *scale;
    float *dx, *d_scale;
    KD_HOST_DEVICE void operator()(std::size_t c) const {
      float sum = 0;
      for (std::size_t n = 0; n < samples; ++n)
        for (std::size_t at = 0; at < in.height * in.width; ++at) {
          const std::size_t i = Device::index(in, n, c, at / in.width, at % in.width);
          sum += dy[i] * x[i];
          dx[i] = dy[i] * scale[c];
        }
      d_scale[c] = sum;
    }
  };

  template <kd::shape In, nn::fusion, class Device>
  static void forward(Device& device, const nn::forward_pass& p) {
    device.for_each(In.channels, value<Device>{In, Device::padded(p.batch), p.x, p.parameters, p.y});
  }
  template <kd::shape In, nn::fusion, class Device>
  static void backward(Device& device, const nn::backward_pass& p) {
    device.for_each(In.channels,
                    gradient<Device>{In, Device::padded(p.batch), p.x, p.dy, p.parameters, p.dx, p.gradients});
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

int main(int argc, char** argv) try {
  const kd::data::dataset set = kd::data::open({.synthetic = {.train = 2048, .test = 500}});
  std::printf("%s", nn::summary<Student>().c_str());

  bool learnt = false;
  kd::with_device({.device = argc > 1 ? argv[1] : "auto"}, [&]<class Device>(Device& device) {
    kd::network<kd::models::LightNN, Device> teacher(device, 1);
    kd::train::fit(teacher, set, kd::optim::adam{}, {.epochs = 2, .name = "teacher", .show = stderr});
    kd::network<Student, Device> student(device, 2);
    const auto history =
        kd::train::distil(student, teacher, set, {.temperature = 4, .kd_weight = 0.5f, .ce_weight = 0.5f},
                          kd::optim::adamw{.learning_rate = 2e-3}, {.epochs = 4, .name = "student", .show = stderr});
    std::printf("loss %.3f after the first epoch, %.3f after the last; %.1f %% of the test images\n",
                history.front().loss, history.back().loss, kd::train::evaluate(student, set.test).top1_percent());
    learnt = history.back().loss < history.front().loss;
  });
  return learnt ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "custom_student: %s\n", e.what());
  return 1;
}
