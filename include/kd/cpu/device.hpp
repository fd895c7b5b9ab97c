/// The CPU device: the concepts of backend/device.hpp, answered by the kernels of this folder.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kd/backend/device.hpp"
#include "kd/core/error.hpp"
#include "kd/core/image_view.hpp"
#include "kd/core/precision.hpp"
#include "kd/cpu/activation.hpp"
#include "kd/cpu/buffer.hpp"
#include "kd/cpu/conv2d.hpp"
#include "kd/cpu/images.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/cpu/norm.hpp"
#include "kd/cpu/optim.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/pool.hpp"
#include "kd/cpu/rows.hpp"
#include "kd/cpu/simd.hpp"
#include "kd/loss/loss_meter.hpp"

namespace kd::inline KD_ABI::cpu {

/// Runs everything on `threads` threads of this processor; results do not depend on their number. Holds nothing but
/// that number: threads of the program may share one object, each with networks of its own.
class device {
 public:
  template <class T>
  using buffer = cpu::buffer<T>;

  /// Uses the threads that are worth having; or as many as given, 1 to parallel::most_threads, else argument_error.
  device() : device(parallel::available()) {}
  explicit device(int threads) : par_(threads) {}

  static constexpr const char* name = "cpu";
  /// "cpu (avx512), 2 threads"; says where it could be many times faster: "cpu (sse2: baseline instruction set), 2
  /// threads, not optimised".
  std::string description() const {
    constexpr bool baseline = native_width == 4 && !has_fma;
    return text("cpu (", instruction_set, baseline ? ": baseline instruction set" : "", "), ", par_.threads, " threads",
                KD_OPTIMISED ? "" : ", not optimised");
  }
  /// Whether images lie as floats, which layers of your own rely on.
  static constexpr bool images_are_float() { return true; }
  const parallel& threads() const { return par_; }
  static constexpr kd::precision precision() { return kd::precision::fp32; }

  // ---- memory
  static constexpr std::size_t padded(std::size_t batch) { return blocks_of(batch) * lanes; }
  template <class T>
  buffer<T> allocate(std::size_t n) const {
    return buffer<T>(n);
  }
  template <class T>
  void upload(const T* from, std::size_t n, T* to) const {
    if (n > 0) std::memcpy(to, from, n * sizeof(T));
  }
  template <class T>
  void download(const T* from, std::size_t n, T* to) const {
    if (n > 0) std::memcpy(to, from, n * sizeof(T));
  }
  /// Calls function(i) for every i of [0, n), in any order and at the same time: for layers of your own. On every
  /// device the function is a struct of numbers and pointers with KD_HOST_DEVICE void operator()(std::size_t) const.
  template <class Function>
  void for_each(std::size_t n, const Function& function) const {
    par_.for_each(n, function);
  }
  /// Position of an element in an activation of shape `s`: for layers that are not elementwise.
  KD_HOST_DEVICE static constexpr std::size_t index(const shape& s, std::size_t sample, std::size_t channel,
                                                    std::size_t y = 0, std::size_t x = 0) {
    return (((sample / lanes * s.height + y) * s.width + x) * s.channels + channel) * lanes + sample % lanes;
  }

  // ---- products
  static constexpr std::size_t conv2d_scratch(const conv2d_geometry& g, std::size_t batch) {
    return cpu::conv2d_scratch(g, batch);
  }
  void conv2d_forward(const conv2d_geometry& g, std::size_t batch, const float* x, const float* w, const float* bias,
                      bool relu, float* y) const {
    cpu::conv2d_forward(par_, g, batch, x, w, {.bias = bias, .relu = relu}, y);
  }
  void conv2d_backward_data(const conv2d_geometry& g, std::size_t batch, const float* dy, const float* w,
                            bool accumulate, float* dx, float* scratch) const {
    cpu::conv2d_backward_data(par_, g, batch, dy, w, accumulate, dx, scratch);
  }
  void conv2d_backward_weight(const conv2d_geometry& g, std::size_t batch, const float* x, const float* dy, float* dw,
                              float* db, float* scratch) const {
    cpu::conv2d_backward_weight(par_, g, batch, x, dy, dw, db, scratch);
  }
  void conv2d_relu_pool_forward(const conv2d_geometry& g, std::size_t batch, const float* x, const float* w,
                                const float* bias, float* y, float* winners) const {
    cpu::conv2d_relu_pool_forward(par_, g, batch, x, w, bias, y, bytes(winners));
  }
  void conv2d_relu_pool_backward_data(const conv2d_geometry& g, std::size_t batch, const float* dy,
                                      const float* winners, const float* w, bool accumulate, float* dx,
                                      float* scratch) const {
    cpu::conv2d_relu_pool_backward_data(par_, g, batch, dy, bytes(winners), w, accumulate, dx, scratch);
  }
  void conv2d_relu_pool_backward_weight(const conv2d_geometry& g, std::size_t batch, const float* x, const float* dy,
                                        const float* winners, float* dw, float* db, float* scratch) const {
    cpu::conv2d_relu_pool_backward_weight(par_, g, batch, x, dy, bytes(winners), dw, db, scratch);
  }

  static constexpr std::size_t linear_scratch(std::size_t in, std::size_t out, std::size_t batch) {
    return cpu::conv2d_scratch(on_one_pixel(in, out), batch);
  }
  void linear_forward(std::size_t in, std::size_t out, std::size_t batch, const float* x, const float* w,
                      const float* bias, bool relu, float* y) const {
    conv2d_forward(on_one_pixel(in, out), batch, x, w, bias, relu, y);
  }
  void linear_backward_data(std::size_t in, std::size_t out, std::size_t batch, const float* dy, const float* w,
                            bool accumulate, float* dx, float* scratch) const {
    conv2d_backward_data(on_one_pixel(in, out), batch, dy, w, accumulate, dx, scratch);
  }
  void linear_backward_weight(std::size_t in, std::size_t out, std::size_t batch, const float* x, const float* dy,
                              float* dw, float* db, float* scratch) const {
    conv2d_backward_weight(on_one_pixel(in, out), batch, x, dy, dw, db, scratch);
  }

  // ---- batch normalisation
  static constexpr std::size_t batch_norm2d_scratch(const shape&, std::size_t) { return 0; }
  void batch_norm2d_forward_train(const shape& s, std::size_t batch, const float* x, const float* gamma,
                                  const float* beta, float epsilon, float momentum, const float* residual, bool relu,
                                  float* y, float* saved_mean, float* saved_inv_std, float* running_mean,
                                  float* running_var, float*) const {
    cpu::batch_norm2d_forward_train(par_, s, batch, x, gamma, beta, {.epsilon = epsilon, .momentum = momentum},
                                    residual, relu, y, saved_mean, saved_inv_std, running_mean, running_var);
  }
  void batch_norm2d_forward_infer(const shape& s, std::size_t batch, const float* x, const float* gamma,
                                  const float* beta, const float* running_mean, const float* running_var, float epsilon,
                                  const float* residual, bool relu, float* y) const {
    cpu::batch_norm2d_forward_infer(par_, s, batch, x, gamma, beta, running_mean, running_var, {.epsilon = epsilon},
                                    residual, relu, y);
  }
  void batch_norm2d_backward(const shape& s, std::size_t batch, const float* x, const float* y, const float* dy,
                             const float* gamma, const float* saved_mean, const float* saved_inv_std, bool relu,
                             float* d_residual, float* dx, float* d_gamma, float* d_beta, float*) const {
    cpu::batch_norm2d_backward(par_, s, batch, x, y, dy, gamma, saved_mean, saved_inv_std, relu, d_residual, dx,
                               d_gamma, d_beta);
  }

  // ---- elementwise operations, pooling, layout
  void relu_forward(const shape& s, std::size_t batch, const float* x, float* y) const {
    cpu::relu_forward(par_, storage_size(s, batch), x, y);
  }
  void relu_backward(const shape& s, std::size_t batch, const float* y, const float* dy, float* dx) const {
    cpu::relu_backward(par_, storage_size(s, batch), y, dy, dx);
  }
  void dropout(const shape& s, std::size_t batch, float p, const step_random& random, std::uint32_t layer,
               const float* x, float* y) const {
    cpu::dropout(par_, s, batch, p, random.seed, number_of(random), layer, x, y);
  }
  void flatten_forward(const shape& in, std::size_t batch, const float* x, float* y) const {
    cpu::flatten_forward(par_, in, batch, x, y);
  }
  void flatten_backward(const shape& in, std::size_t batch, const float* dy, float* dx) const {
    cpu::flatten_backward(par_, in, batch, dy, dx);
  }
  void add(const shape& s, std::size_t batch, const float* a, const float* b, float* y) const {
    cpu::add(par_, storage_size(s, batch), a, b, y);
  }
  void copy(const shape& s, std::size_t batch, const float* x, float* y) const {
    std::memcpy(y, x, storage_size(s, batch) * sizeof(float));
  }
  void max_pool2d_forward(const pool2d_geometry& g, std::size_t batch, const float* x, float* y, float* winners) const {
    cpu::max_pool2d_forward(par_, g, batch, x, y, bytes(winners));
  }
  void max_pool2d_backward(const pool2d_geometry& g, std::size_t batch, const float* dy, const float* winners,
                           float* dx) const {
    cpu::max_pool2d_backward(par_, g, batch, dy, bytes(winners), dx);
  }
  void global_avg_pool2d_forward(const shape& in, std::size_t batch, const float* x, float* y) const {
    cpu::avg_pool2d_global_forward(par_, in, batch, x, y);
  }
  void global_avg_pool2d_backward(const shape& in, std::size_t batch, const float* dy, float* dx) const {
    cpu::avg_pool2d_global_backward(par_, in, batch, dy, dx);
  }

  // ---- data, loss, optimiser
  /// Host data where kernels can read it: on this device, the host's own memory.
  template <class T>
  using resident_array = std::span<const T>;
  template <class T>
  std::span<const T> resident(std::span<const T> host) const {
    return host;
  }
  template <class T>
  std::span<const T> resident(const std::vector<T>& host) const {
    return host;
  }
  /// Takes up the next step: *current = table[(*position)++], and the batch of `count` samples that it begins: their
  /// indices, labels and, where there is a table of a teacher's logits [N,classes], its rows.
  void begin_step(const step_scalars* table, std::uint32_t* position, step_scalars* current, const std::uint32_t* order,
                  const std::int32_t* labels, const float* teacher, std::size_t classes, std::size_t count,
                  std::uint32_t* batch_indices, std::int32_t* batch_labels, float* teacher_rows) const {
    *current = table[(*position)++];
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t sample = order[current->first + i];
      batch_indices[i] = sample;
      batch_labels[i] = labels[sample];
      if (teacher != nullptr)
        std::memcpy(teacher_rows + i * classes, teacher + sample * classes, classes * sizeof(float));
    }
  }
  /// The batch's images, normalised and augmented with the random numbers of (seed, epoch).
  void gather_images(const image_batch& batch, const normalisation& pixels, const augmentation& augment,
                     const step_random& epoch, float* out) const {
    cpu::gather_images(par_, batch, pixels, augment, epoch.seed, number_of(epoch), out);
  }
  /// Logits between the device's layout and rows [N,C].
  void to_rows(const shape& row, std::size_t batch, const float* x, float* rows) const {
    cpu::to_rows(par_, row, batch, x, rows);
  }
  void from_rows(const shape& row, std::size_t batch, const float* rows, float* x) const {
    cpu::from_rows(par_, row, batch, rows, x);
  }
  std::size_t loss_scratch(std::size_t rows, std::size_t classes) const {
    return logit_loss_scratch(par_, rows, classes);
  }
  template <class Loss>
  loss_result loss(const Loss& loss, std::size_t rows, std::size_t classes, const float* student, const float* teacher,
                   const std::int32_t* labels, float* d_student, buffer<std::byte>& scratch) const {
    return logit_loss_forward_backward(par_, loss_batch(rows, classes, student, teacher, labels, d_student), loss,
                                       {scratch.data(), scratch.size()});
  }
  /// The same into a meter, with the weights, temperatures and options of this step: `now` is what loss.formula() gave.
  template <class Loss>
  void accumulate_loss(const Loss&, const decltype(std::declval<Loss>().formula())* now, std::size_t rows,
                       std::size_t classes, const float* student, const float* teacher, const std::int32_t* labels,
                       float* d_student, buffer<std::byte>& scratch, loss_meter* meter) const {
    meter->add(detail::fused_loss<native_width>(Loss::name, par_,
                                                loss_batch(rows, classes, student, teacher, labels, d_student), *now,
                                                {scratch.data(), scratch.size()}));
  }
  /// The places of the flat buffers that can ever move, ready for update.
  std::span<const optim::live_runs> plan_update(std::span<const optim::live_runs> places) const { return places; }
  /// One step of an optimiser's rule with these factors, unless the meter has a fault.
  template <class Rule>
  void update(const Rule& rule, std::span<const optim::live_runs> places, const optim::factors_of<Rule>* factors,
              float* w, const float* g, const optim::state_buffers<Rule>& states, const loss_meter* meter) const {
    if (meter->fault_kind == loss_fault_kind::none) cpu::update(par_, rule, *factors, places, w, g, states);
  }
  /// Does a step: on this device nothing is recorded.
  struct recordings {};
  template <class Step>
  void replay(recordings&, const std::array<std::uint64_t, 3>& /*key*/, const Step& step) const {
    step();
  }
  static constexpr bool rows_in_place = false;
  static constexpr bool runs_at_once = true;
  void synchronize() const {}

 private:
  static constexpr conv2d_geometry on_one_pixel(std::size_t in, std::size_t out) {
    return {.in_channels = in, .in_height = 1, .in_width = 1, .out_channels = out};
  }
  static formula::logit_batch<float> loss_batch(std::size_t rows, std::size_t classes, const float* student,
                                                const float* teacher, const std::int32_t* labels, float* d_student) {
    return {.rows = rows,
            .classes = classes,
            .student = {student},
            .teacher = {teacher},
            .labels = {labels},
            .gradient = {d_student}};
  }
  static std::uint32_t number_of(const step_random& random) {
    return random.step + (random.counter == nullptr ? 0 : *random.counter);
  }
  static std::uint8_t* bytes(float* p) { return reinterpret_cast<std::uint8_t*>(p); }
  static const std::uint8_t* bytes(const float* p) { return reinterpret_cast<const std::uint8_t*>(p); }

  parallel par_;
};

static_assert(backend::device<device>);

}  // namespace kd::inline KD_ABI::cpu
