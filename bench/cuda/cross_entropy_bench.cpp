/// The fused cross entropy on a GPU beside a device-to-device copy of the bytes of logits and gradient. Caches cold:
/// sets of arrays in turn; warm: one set again and again. The label is the error against float64 on the first rows: of
/// the loss (absolute), and of the gradient relative to its largest. Wrong ones are an error of the benchmark.
#include "kd/loss/cross_entropy.hpp"

#include <utility>

#include "cuda/loss_check.hpp"
#include "cuda/rotated_sets.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"

namespace {

using namespace kd_bench;
using loss = kd::formula_of<kd::cross_entropy>;

template <class T>
struct losses {
  std::size_t rows, classes;
  kd::cuda::stream stream;
  std::vector<std::int32_t> labels;
  std::vector<kd::cuda::buffer<T>> students, d_students;
  kd::cuda::buffer<std::int32_t> device_labels;
  kd::cuda::buffer<std::byte> scratch;
  kd::cuda::buffer<kd::loss_meter> sums;
  kd::cuda::buffer<loss> formula;

  losses(std::size_t rows_, std::size_t classes_, std::size_t sets)
      : rows(rows_),
        classes(classes_),
        device_labels(rows),
        scratch(kd::cuda::logit_loss_scratch<loss>(rows)),
        sums(1),
        formula(1) {
    for (std::size_t row = 0; row < rows; ++row) labels.push_back(static_cast<std::int32_t>(row * 7919 % classes));
    kd::cuda::upload(stream, labels.data(), rows, device_labels.data());
    kd::cuda::fill_zero(stream, sums.data(), 1);
    const loss now = kd::cross_entropy{}.formula();
    kd::cuda::upload(stream, &now, 1, formula.data());
    for (std::size_t i = 0; i < sets; ++i) {
      students.push_back(filled<T>(stream, rows * classes, 1));
      d_students.emplace_back(rows * classes);
    }
  }
  void fused(std::size_t i, std::size_t first_rows) {
    const kd::formula::logit_batch<T> batch{.rows = first_rows,
                                            .classes = classes,
                                            .student = {students[i].data()},
                                            .labels = {device_labels.data()},
                                            .gradient = {d_students[i].data()}};
    kd::cuda::logit_loss_forward_backward(stream, batch, std::as_const(formula).data(), scratch.data(), sums.data());
  }
  /// Of the first rows, as a batch of their own.
  void check(benchmark::State& state) {
    const std::size_t few = std::min<std::size_t>(rows, 4), n = few * classes;
    fused(0, few);
    kd::loss_meter got{};
    std::vector<T> student(n), d(n);
    kd::cuda::download(stream, sums.data(), 1, &got);
    kd::cuda::download(stream, students[0].data(), n, student.data());
    kd::cuda::download(stream, d_students[0].data(), n, d.data());
    std::vector<float> z;
    for (const T value : student) z.push_back(kd::kernel::to_float(value));
    const auto want = kd_test::define_distillation(few, classes, z.data(), z.data(), labels.data(), 1, 0, 1);
    check_loss(state, got.total / static_cast<double>(few), d, want, 1, 1 / static_cast<double>(few));
  }
};

template <class T>
void add(std::size_t rows, std::size_t classes) {
  const double bytes = 2.0 * static_cast<double>(rows * classes * sizeof(T));
  const std::string name = kd::text("cross_entropy/cuda/", type_name<T>, "/", rows, "x", classes);
  add_benchmark(name, bytes, [=](benchmark::State& state) {
    losses<T> l(rows, classes, sets_of(bytes));
    l.check(state);
    time_sets(state, l.stream, l.students.size(), bytes, [&](std::size_t i) { l.fused(i, rows); });
  });
  benchmark::RegisterBenchmark((name + "/warm").c_str(),
                               [=](benchmark::State& state) {
                                 losses<T> l(rows, classes, 1);
                                 time_sets(state, l.stream, 20, bytes, [&](std::size_t) { l.fused(0, rows); });
                               })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

const bool added = [] {
  const std::size_t shapes[][2] = {{128, 10}, {128, 1000}, {4096, 1000}, {1024, 32000}, {512, 128256}};
  for (const auto& [rows, classes] : shapes) {
    add<float>(rows, classes);
    add<bfloat16>(rows, classes);
  }
  return true;
}();

}  // namespace
