/// The operations of the unfused distillation loss one by one on a GPU, each beside a device-to-device copy of the
/// bytes that it has to move: each input and output once. Their chain is beside the fused loss in
/// distillation_bench.cpp.
#include "cuda/unfused.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

struct batches {
  std::size_t rows, classes;
  kd::cuda::stream stream;
  struct set {
    kd::cuda::buffer<float> a, b, c, out;
  };
  std::vector<set> sets;
  kd::cuda::buffer<std::int32_t> labels;
  kd::cuda::buffer<double> values, loss;

  batches(std::size_t rows_, std::size_t classes_) : rows(rows_), classes(classes_), values(rows), loss(1) {
    const std::size_t n = rows * classes;
    for (std::size_t i = 0; i < sets_of(16.0 * static_cast<double>(n)); ++i)
      sets.push_back({filled<float>(stream, n, 1), filled<float>(stream, n, 2), filled<float>(stream, n, 3),
                      kd::cuda::buffer<float>(n)});
    std::vector<std::int32_t> host;
    for (std::size_t row = 0; row < rows; ++row) host.push_back(static_cast<std::int32_t>(row * 7919 % classes));
    labels = kd::cuda::buffer<std::int32_t>(rows);
    kd::cuda::upload(stream, host.data(), rows, labels.data());
  }
};

void add(std::size_t rows, std::size_t classes) {
  const auto array = static_cast<double>(rows * classes * sizeof(float));
  // `work` is called with the batches and the arrays of one of them.
  const auto add_one = [&](const char* operation, double bytes, auto work) {
    const std::string name = kd::text("unfused_", operation, "/cuda/float/", rows, "x", classes);
    add_benchmark(name, bytes, [=](benchmark::State& state) {
      batches b(rows, classes);
      time_sets(state, b.stream, b.sets.size(), bytes, [&](std::size_t i) { work(b, b.sets[i]); });
    });
  };
  constexpr float T = 2;
  add_one("softmax_forward", 2 * array, [](batches& b, batches::set& s) {
    unfused::softmax_forward(b.stream, b.rows, b.classes, s.a.data(), T, s.out.data());
  });
  add_one("softmax_backward", 3 * array, [](batches& b, batches::set& s) {
    unfused::softmax_backward(b.stream, b.rows, b.classes, s.a.data(), s.b.data(), T, s.out.data());
  });
  add_one("log_softmax_forward", 2 * array, [](batches& b, batches::set& s) {
    unfused::log_softmax_forward(b.stream, b.rows, b.classes, s.a.data(), T, s.out.data());
  });
  add_one("log_softmax_backward", 3 * array, [](batches& b, batches::set& s) {
    unfused::log_softmax_backward(b.stream, b.rows, b.classes, s.a.data(), s.b.data(), T, s.out.data());
  });
  add_one("kl_divergence_forward", 3 * array, [](batches& b, batches::set& s) {
    unfused::kl_divergence_forward(b.stream, b.rows, b.classes, s.a.data(), s.b.data(), s.c.data(), T * T,
                                   b.values.data(), b.loss.data());
  });
  add_one("kl_divergence_backward", 2 * array, [](batches& b, batches::set& s) {
    unfused::kl_divergence_backward(b.stream, b.rows, b.classes, s.a.data(), 1.0f, s.out.data());
  });
  add_one("cross_entropy_forward", static_cast<double>(rows) * 8, [](batches& b, batches::set& s) {
    unfused::cross_entropy_forward(b.stream, b.rows, b.classes, s.a.data(), b.labels.data(), b.values.data(),
                                   b.loss.data());
  });
  add_one("cross_entropy_backward", array, [](batches& b, batches::set& s) {
    unfused::cross_entropy_backward(b.stream, b.rows, b.classes, b.labels.data(), 1.0f, s.out.data());
  });
}

// A training batch of ten classes, and a large loss.
const bool added = [] {
  add(128, 10);
  add(4096, 1000);
  add(1024, 32000);
  return true;
}();

}  // namespace
