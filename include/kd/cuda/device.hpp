/// The CUDA device: the concepts of backend/device.hpp, answered by the launchers of this folder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kd/backend/device.hpp"
#include "kd/core/precision.hpp"
#include "kd/core/type_list.hpp"
#include "kd/cuda/activation.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/conv2d.hpp"
#include "kd/cuda/dropout.hpp"
#include "kd/cuda/for_each.hpp"
#include "kd/cuda/graph.hpp"
#include "kd/cuda/images.hpp"
#include "kd/cuda/layouts.hpp"
#include "kd/cuda/linear.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "kd/cuda/norm.hpp"
#include "kd/cuda/optim.hpp"
#include "kd/cuda/pool.hpp"
#include "kd/cuda/select_device.hpp"
#include "kd/cuda/step.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

struct device_options {
  int index = 0;  // as CUDA numbers the GPUs that CUDA_VISIBLE_DEVICES leaves
  kd::precision precision = kd::precision::fp32;
};

/// One NVIDIA GPU, with a stream, and the libraries' handles and workspaces of its own: objects on the same GPU run
/// side by side. Everything is asynchronous but download and synchronize; errors of the GPU are thrown there. Images
/// lie as [sample][height][width][channel], as floats or, in bf16, as bfloat16 at the beginning of the same room; rows
/// of features are floats in every precision. Throws device_error where the GPU cannot be used.
class KD_HIDDEN device {
 public:
  template <class T>
  using buffer = cuda::buffer<T>;
  template <class T>
  using resident_array = cuda::buffer<T>;

  explicit device(const device_options& options = {})
      : information_(select_device(options.index, options.precision)),
        precision_(options.precision),
        cublaslt_(options.precision),
        cudnn_(stream_, options.precision) {}

  static constexpr bool built = true;
  static constexpr const char* name = "cuda";
  /// Empty where the GPU of this index can be used; otherwise why not.
  static std::string unusable_because(int index = 0) {
    try {
      select_device(index, kd::precision::fp32);
    } catch (const device_error& e) {
      return e.what();
    }
    return {};
  }
  /// "NVIDIA H200 (compute capability 9.0, CUDA 13.0), fp32".
  std::string description() const { return text(information_.description, ", ", text_of(precision_)); }
  const cuda::stream& stream() const { return stream_; }
  kd::precision precision() const { return precision_; }
  bool images_are_float() const { return precision_ != kd::precision::bf16; }

  // ---- memory
  static constexpr std::size_t padded(std::size_t batch) { return batch; }
  template <class T>
  buffer<T> allocate(std::size_t n) const {
    buffer<T> memory(n);
    fill_zero(stream_, memory.data(), n);
    return memory;
  }
  template <class T>
  void upload(const T* from, std::size_t n, T* to) const {
    cuda::upload(stream_, from, n, to);
  }
  template <class T>
  void download(const T* from, std::size_t n, T* to) const {
    cuda::download(stream_, from, n, to);
  }
  void synchronize() const { stream_.synchronize(); }
  /// A copy of host data in the GPU's memory.
  template <class T>
  buffer<T> resident(std::span<const T> host) const {
    buffer<T> memory(host.size());
    cuda::upload(stream_, host.data(), host.size(), memory.data());
    return memory;
  }
  /// Position of an element in an activation of shape `s`: for layers that are not elementwise.
  KD_HOST_DEVICE static constexpr std::size_t index(const shape& s, std::size_t sample, std::size_t channel,
                                                    std::size_t y = 0, std::size_t x = 0) {
    return ((sample * s.height + y) * s.width + x) * s.channels + channel;
  }
  /// Calls function(i) on the GPU for every i of [0, n): see cuda/for_each.hpp.
  template <class Function>
  void for_each(std::size_t n, const Function& function) const {
    cuda::for_each(stream_, n, function);
  }

  // ---- products
  static constexpr std::size_t conv2d_scratch(const conv2d_geometry& g, std::size_t batch) {
    return cuda::conv2d_scratch(g, batch);
  }
  void conv2d_forward(const conv2d_geometry& g, std::size_t batch, const float* x, const float* w, const float* bias,
                      bool relu, float* y) {
    on_images([&]<class T>(T) { cuda::conv2d_forward(stream_, cudnn_, g, batch, as<T>(x), w, bias, relu, as<T>(y)); });
  }
  void conv2d_backward_data(const conv2d_geometry& g, std::size_t batch, const float* dy, const float* w,
                            bool accumulate, float* dx, float* scratch) {
    on_images([&]<class T>(T) {
      cuda::conv2d_backward_data(stream_, cudnn_, g, batch, as<T>(dy), w, accumulate, as<T>(dx), scratch);
    });
  }
  void conv2d_backward_weight(const conv2d_geometry& g, std::size_t batch, const float* x, const float* dy, float* dw,
                              float* db, float* scratch) {
    on_images([&]<class T>(T) {
      cuda::conv2d_backward_weight(stream_, cudnn_, g, batch, as<T>(x), as<T>(dy), dw, db, scratch);
    });
  }
  void conv2d_relu_pool_forward(const conv2d_geometry& g, std::size_t batch, const float* x, const float* w,
                                const float* bias, float* y, float* winners) {
    on_images([&]<class T>(T) {
      cuda::conv2d_relu_pool_forward(stream_, cudnn_, g, batch, as<T>(x), w, bias, as<T>(y), bytes(winners));
    });
  }
  void conv2d_relu_pool_backward_data(const conv2d_geometry& g, std::size_t batch, const float* dy,
                                      const float* winners, const float* w, bool accumulate, float* dx,
                                      float* scratch) {
    on_images([&]<class T>(T) {
      cuda::conv2d_relu_pool_backward_data(stream_, cudnn_, g, batch, as<T>(dy), bytes(winners), w, accumulate,
                                           as<T>(dx), scratch);
    });
  }
  void conv2d_relu_pool_backward_weight(const conv2d_geometry& g, std::size_t batch, const float* x, const float* dy,
                                        const float* winners, float* dw, float* db, float* scratch) {
    on_images([&]<class T>(T) {
      cuda::conv2d_relu_pool_backward_weight(stream_, cudnn_, g, batch, as<T>(x), as<T>(dy), bytes(winners), dw, db,
                                             scratch);
    });
  }

  static constexpr std::size_t linear_scratch(std::size_t in, std::size_t out, std::size_t batch) {
    return cuda::linear_scratch(in, out, batch);
  }
  void linear_forward(std::size_t in, std::size_t out, std::size_t batch, const float* x, const float* w,
                      const float* bias, bool relu, float* y) {
    cuda::linear_forward(stream_, cublaslt_, in, out, batch, x, w, bias, relu, y);
  }
  void linear_backward_data(std::size_t in, std::size_t out, std::size_t batch, const float* dy, const float* w,
                            bool accumulate, float* dx, float* scratch) {
    cuda::linear_backward_data(stream_, cublaslt_, in, out, batch, dy, w, accumulate, dx, scratch);
  }
  void linear_backward_weight(std::size_t in, std::size_t out, std::size_t batch, const float* x, const float* dy,
                              float* dw, float* db, float* scratch) {
    cuda::linear_backward_weight(stream_, cublaslt_, in, out, batch, x, dy, dw, db, scratch);
  }

  // ---- batch normalisation
  static constexpr std::size_t batch_norm2d_scratch(const shape& s, std::size_t batch) {
    return cuda::batch_norm2d_scratch(s, batch);
  }
  void batch_norm2d_forward_train(const shape& s, std::size_t batch, const float* x, const float* gamma,
                                  const float* beta, float epsilon, float momentum, const float* residual, bool relu,
                                  float* y, float* saved_mean, float* saved_inv_std, float* running_mean,
                                  float* running_var, float* scratch) {
    on_images([&]<class T>(T) {
      cuda::batch_norm2d_forward_train(stream_, s, batch, as<T>(x), gamma, beta, epsilon, momentum, as<T>(residual),
                                       relu, as<T>(y), saved_mean, saved_inv_std, running_mean, running_var, scratch);
    });
  }
  void batch_norm2d_forward_infer(const shape& s, std::size_t batch, const float* x, const float* gamma,
                                  const float* beta, const float* running_mean, const float* running_var, float epsilon,
                                  const float* residual, bool relu, float* y) {
    on_images([&]<class T>(T) {
      cuda::batch_norm2d_forward_infer(stream_, s, batch, as<T>(x), gamma, beta, running_mean, running_var, epsilon,
                                       as<T>(residual), relu, as<T>(y));
    });
  }
  void batch_norm2d_backward(const shape& s, std::size_t batch, const float* x, const float* y, const float* dy,
                             const float* gamma, const float* saved_mean, const float* saved_inv_std, bool relu,
                             float* d_residual, float* dx, float* d_gamma, float* d_beta, float* scratch) {
    on_images([&]<class T>(T) {
      cuda::batch_norm2d_backward(stream_, s, batch, as<T>(x), as<T>(y), as<T>(dy), gamma, saved_mean, saved_inv_std,
                                  relu, as<T>(d_residual), as<T>(dx), d_gamma, d_beta, scratch);
    });
  }

  // ---- elementwise operations, pooling, layout
  void relu_forward(const shape& s, std::size_t batch, const float* x, float* y) {
    on(s, [&]<class T>(T) { cuda::relu_forward(stream_, batch * s.size(), as<T>(x), as<T>(y)); });
  }
  void relu_backward(const shape& s, std::size_t batch, const float* y, const float* dy, float* dx) {
    on(s, [&]<class T>(T) { cuda::relu_backward(stream_, batch * s.size(), as<T>(y), as<T>(dy), as<T>(dx)); });
  }
  void dropout(const shape& s, std::size_t batch, float p, const step_random& random, std::uint32_t layer,
               const float* x, float* y) {
    on(s, [&]<class T>(T) {
      cuda::dropout(stream_, s, batch, p, random.seed, random.step, random.counter, layer, as<T>(x), as<T>(y));
    });
  }
  void flatten_forward(const shape& in, std::size_t batch, const float* x, float* y) {
    on(in, [&]<class T>(T) { cuda::flatten_forward(stream_, in, batch, as<T>(x), y); });
  }
  void flatten_backward(const shape& in, std::size_t batch, const float* dy, float* dx) {
    on(in, [&]<class T>(T) { cuda::flatten_backward(stream_, in, batch, dy, as<T>(dx)); });
  }
  void add(const shape& s, std::size_t batch, const float* a, const float* b, float* y) {
    on(s, [&]<class T>(T) { cuda::add(stream_, batch * s.size(), as<T>(a), as<T>(b), as<T>(y)); });
  }
  void copy(const shape& s, std::size_t batch, const float* x, float* y) {
    on(s, [&]<class T>(T) { cuda::copy(stream_, as<T>(x), batch * s.size(), as<T>(y)); });
  }
  void max_pool2d_forward(const pool2d_geometry& g, std::size_t batch, const float* x, float* y, float* winners) {
    on_images([&]<class T>(T) { cuda::max_pool2d_forward(stream_, g, batch, as<T>(x), as<T>(y), bytes(winners)); });
  }
  void max_pool2d_backward(const pool2d_geometry& g, std::size_t batch, const float* dy, const float* winners,
                           float* dx) {
    on_images([&]<class T>(T) { cuda::max_pool2d_backward(stream_, g, batch, as<T>(dy), bytes(winners), as<T>(dx)); });
  }
  void global_avg_pool2d_forward(const shape& in, std::size_t batch, const float* x, float* y) {
    on_images([&]<class T>(T) { cuda::global_avg_pool2d_forward(stream_, in, batch, as<T>(x), as<T>(y)); });
  }
  void global_avg_pool2d_backward(const shape& in, std::size_t batch, const float* dy, float* dx) {
    on_images([&]<class T>(T) { cuda::global_avg_pool2d_backward(stream_, in, batch, as<T>(dy), as<T>(dx)); });
  }

  // ---- data, loss, optimiser
  void begin_step(const step_scalars* table, std::uint32_t* position, step_scalars* current, const std::uint32_t* order,
                  const std::int32_t* labels, const float* teacher, std::size_t classes, std::size_t count,
                  std::uint32_t* batch_indices, std::int32_t* batch_labels, float* teacher_rows) {
    cuda::begin_step(stream_, as_kernel(table), position, as_kernel(current), order, labels, teacher, classes, count,
                     batch_indices, batch_labels, teacher_rows);
  }
  void gather_images(const image_batch& batch, const normalisation& pixels, const augmentation& augment,
                     const step_random& epoch, float* out) {
    on_images([&]<class T>(T) {
      cuda::gather_images(stream_, batch.images, batch.size, batch.indices, batch.count, pixels, augment, epoch.seed,
                          epoch.step, epoch.counter, as<T>(out));
    });
  }
  static constexpr bool rows_in_place = true;
  static constexpr bool runs_at_once = false;
  /// Logits between the device's layout and rows [N,C].
  void to_rows(const shape& s, std::size_t batch, const float* x, float* rows) { flatten_forward(s, batch, x, rows); }
  void from_rows(const shape& s, std::size_t batch, const float* rows, float* x) {
    flatten_backward(s, batch, rows, x);
  }

  std::size_t loss_scratch(std::size_t rows, std::size_t classes) const { return logit_loss_scratch(rows, classes); }
  /// Adds a batch to the meter, with the weights, temperatures and options of this step: `now` is what loss.formula()
  /// gave, in the GPU's memory.
  template <class Loss>
  void accumulate_loss(const Loss&, const formula_of<Loss>* now, std::size_t rows, std::size_t classes,
                       const float* student, const float* teacher, const std::int32_t* labels, float* d_student,
                       buffer<std::byte>& scratch, loss_meter* meter) {
    const kernel::dense_batch<float> batch{.rows = rows,
                                           .classes = classes,
                                           .student = {student},
                                           .teacher = {teacher},
                                           .labels = {labels},
                                           .gradient = {d_student}};
    logit_loss_forward_backward(stream_, batch, now, scratch.data(), meter);
  }
  update_plan plan_update(std::span<const optim::live_runs> places) const { return update_plan(stream_, places); }
  template <class Rule>
  void update(const Rule& rule, const update_plan& plan, const optim::factors_of<Rule>* factors, float* w,
              const float* g, const optim::state_buffers<Rule>& states, const loss_meter* meter) {
    // The kernel looks at its bits: the optimiser knows no loss.
    const auto* const stop = reinterpret_cast<const std::uint32_t*>(&meter->fault_kind);
    cuda::update(stream_, plan, rule, factors, w, g, states, stop);
  }

  /// Steps that were recorded as graphs, by what they depend on: batch size and places of buffers.
  using recordings = std::map<std::array<std::uint64_t, 3>, std::optional<graph>>;
  /// Does a step. The first of its kind runs at once, so that libraries choose their algorithms and take their
  /// memory; the second is recorded as one graph, which is launched from then on.
  template <class Step>
  void replay(recordings& known, const std::array<std::uint64_t, 3>& key, const Step& step) {
    const auto [at, first] = known.try_emplace(key);
    if (first) {
      // Steps of another layout hold addresses that are gone.
      std::erase_if(known, [&](const auto& one) { return one.first[1] != key[1] || one.first[2] != key[2]; });
      try {
        return step();
      } catch (...) {
        known.erase(key);  // not done: the next one is the first again
        throw;
      }
    }
    if (!at->second) at->second = graph::capture(stream_, step);
    at->second->launch(stream_);
  }

 private:
  template <class T>
  static const T* as(const float* p) {
    return reinterpret_cast<const T*>(p);
  }
  template <class T>
  static T* as(float* p) {
    return reinterpret_cast<T*>(p);
  }
  static std::uint8_t* bytes(float* p) { return reinterpret_cast<std::uint8_t*>(p); }
  static const std::uint8_t* bytes(const float* p) { return reinterpret_cast<const std::uint8_t*>(p); }

  /// Calls operation(T{}) with the type of the elements of images, or of activations of shape `s`.
  template <class Operation>
  void on_images(const Operation& operation) const {
    switch (precision_) {
      case kd::precision::fp32:
      case kd::precision::tf32:
        return operation(float{});
      case kd::precision::bf16:
        return operation(kernel::bfloat16{});
    }
    throw argument_error(text("kd::cuda::device: unknown precision ", static_cast<int>(precision_)));
  }
  template <class Operation>
  void on(const shape& s, const Operation& operation) const {
    if (s.row)
      operation(float{});
    else
      on_images(operation);
  }

  device_information information_;
  kd::precision precision_;
  cuda::stream stream_;
  cuda::cublaslt cublaslt_;
  cuda::cudnn cudnn_;
};

static_assert(backend::device<device>);

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
