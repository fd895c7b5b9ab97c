/// The fused distillation loss on a GPU beside the unfused chain (float alone) and a device-to-device copy of the bytes
/// of student, teacher and gradient. Caches cold: sets of arrays in turn, 512 MiB together but 256 sets at most (those
/// of 128 x 10 stay in L2); warm: one set again and again. The label is the error against float64 on the first rows: of
/// the loss (absolute), and of the gradient relative to its largest. Wrong ones are an error of the benchmark.
#include "kd/loss/distillation.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cuda/loss_check.hpp"
#include "cuda/rotated_sets.hpp"
#include "cuda/unfused.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"

namespace {

using namespace kd_bench;

using loss = kd::formula_of<kd::distillation>;
constexpr kd::distillation options{.temperature = 4, .kd_weight = 0.25f, .ce_weight = 0.75f};

/// Spread over [-scale/2, scale/2), repeating after a prime number of values.
template <class T>
std::vector<T> logits_on_host(std::size_t n, std::uint32_t draw, float scale) {
  constexpr std::size_t period = 1000003;
  std::vector<T> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (i >= period) {
      values[i] = values[i - period];
      continue;
    }
    const auto words = kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw);
    values[i] = kd::kernel::from_float<T>(scale * (kd::uniform(words[0]) - 0.5f));
  }
  return values;
}

template <class T>
kd::cuda::buffer<T> uploaded(const kd::cuda::stream& s, const std::vector<T>& values) {
  kd::cuda::buffer<T> device(values.size());
  kd::cuda::upload(s, values.data(), values.size(), device.data());
  s.synchronize();
  return device;
}

template <class T>
struct losses {
  std::size_t rows, classes;
  kd::cuda::stream stream;
  std::vector<T> student, teacher;
  std::vector<std::int32_t> labels;
  struct set {
    kd::cuda::buffer<T> student, teacher, d_student;
  };
  std::vector<set> sets;
  kd::cuda::buffer<std::int32_t> device_labels;
  kd::cuda::buffer<loss> formula;
  kd::cuda::buffer<std::byte> scratch;
  kd::cuda::buffer<kd::loss_meter> sums;

  losses(std::size_t rows_, std::size_t classes_, std::size_t number_of_sets) : rows(rows_), classes(classes_) {
    student = logits_on_host<T>(rows * classes, 1, 8);
    teacher = logits_on_host<T>(rows * classes, 2, 14);
    for (std::size_t row = 0; row < rows; ++row) labels.push_back(static_cast<std::int32_t>(row * 7919 % classes));
    for (std::size_t i = 0; i < number_of_sets; ++i)
      sets.push_back({uploaded(stream, student), uploaded(stream, teacher), kd::cuda::buffer<T>(rows * classes)});
    device_labels = uploaded(stream, labels);
    formula = uploaded(stream, std::vector<loss>{options.formula()});
    scratch = kd::cuda::buffer<std::byte>(kd::cuda::logit_loss_scratch<loss>(rows));
    sums = uploaded(stream, std::vector<kd::loss_meter>(1));
  }
  void fused(std::size_t i, std::size_t first_rows) {
    const kd::formula::logit_batch<T> batch{.rows = first_rows,
                                            .classes = classes,
                                            .student = {sets[i].student.data()},
                                            .teacher = {sets[i].teacher.data()},
                                            .labels = {device_labels.data()},
                                            .gradient = {sets[i].d_student.data()}};
    kd::cuda::logit_loss_forward_backward(stream, batch, std::as_const(formula).data(), scratch.data(), sums.data());
  }
  /// Of the first rows, as a batch of their own: the same kernels, row by row the same work.
  void check(benchmark::State& state) {
    const std::size_t few = std::min<std::size_t>(rows, 4), n = few * classes;
    fused(0, few);
    kd::loss_meter got{};
    std::vector<T> d(n);
    kd::cuda::download(stream, sums.data(), 1, &got);
    kd::cuda::download(stream, sets[0].d_student.data(), n, d.data());
    std::vector<float> z, t;
    for (std::size_t i = 0; i < n; ++i) {
      z.push_back(kd::kernel::to_float(student[i]));
      t.push_back(kd::kernel::to_float(teacher[i]));
    }
    const auto want =
        kd_test::define_distillation(few, classes, z.data(), t.data(), labels.data(), double{options.temperature},
                                     double{options.kd_weight}, double{options.ce_weight});
    const double temperature{options.temperature};
    check_loss(state, got.total / static_cast<double>(few), d, want, temperature,
               (double{options.ce_weight} + double{options.kd_weight} * temperature) / static_cast<double>(few));
  }
};

constexpr double bytes_of(std::size_t rows, std::size_t classes, std::size_t each) {
  return 3.0 * static_cast<double>(rows) * static_cast<double>(classes) * static_cast<double>(each);
}

template <class T>
void add_fused(std::size_t rows, std::size_t classes) {
  const double bytes = bytes_of(rows, classes, sizeof(T));
  const std::string name = kd::text("distillation/cuda/", type_name<T>, "/", rows, "x", classes);
  add_benchmark(name, bytes, [=](benchmark::State& state) {
    losses<T> l(rows, classes, sets_of(bytes));
    l.check(state);
    time_sets(state, l.stream, l.sets.size(), bytes, [&](std::size_t i) { l.fused(i, rows); });
  });
  benchmark::RegisterBenchmark((name + "/warm").c_str(),
                               [=](benchmark::State& state) {
                                 losses<T> l(rows, classes, 1);
                                 time_sets(state, l.stream, 20, bytes, [&](std::size_t) { l.fused(0, rows); });
                               })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

/// The bytes counted are those that the fused kernel needs, so that the rates compare.
void add_unfused(std::size_t rows, std::size_t classes) {
  const double bytes = bytes_of(rows, classes, sizeof(float));
  const auto run = [=](benchmark::State& state, std::size_t number_of_sets, std::size_t turns) {
    losses<float> l(rows, classes, number_of_sets);
    kd::cuda::buffer<std::byte> workspace(unfused::distillation_workspace(rows, classes));
    kd::cuda::buffer<double> terms(2);
    time_sets(state, l.stream, turns, bytes, [&](std::size_t turn) {
      auto& set = l.sets[turn % number_of_sets];
      unfused::distillation_forward_backward(l.stream, rows, classes, set.student.data(), set.teacher.data(),
                                             l.device_labels.data(), options, set.d_student.data(), workspace.data(),
                                             terms.data());
    });
  };
  const std::string name = kd::text("distillation_unfused/cuda/float/", rows, "x", classes);
  const auto add = [&](const std::string& called, std::size_t number_of_sets, std::size_t turns) {
    benchmark::RegisterBenchmark(called.c_str(), [=](benchmark::State& state) { run(state, number_of_sets, turns); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  };
  add(name, sets_of(bytes), sets_of(bytes));
  add(name + "/warm", 1, 20);
}

const bool added = [] {
  const std::size_t shapes[][2] = {{128, 10},     {128, 100},     {128, 1000},   {4096, 1000},
                                   {4096, 2048},  {2048, 8192},   {1024, 32000}, {2048, 50257},
                                   {512, 128256}, {1024, 151936}, {256, 262144}};
  for (const auto& [rows, classes] : shapes) {
    add_fused<float>(rows, classes);
    add_unfused(rows, classes);
    add_fused<bfloat16>(rows, classes);
  }
  return true;
}();

}  // namespace
