/// Logits and labels that benchmarks of losses work on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/formula/logit_batch.hpp"

namespace kd_bench {

struct logits {
  std::size_t rows, classes;
  std::vector<float> student, teacher, d_student;
  std::vector<std::int32_t> labels;

  logits(std::size_t rows_, std::size_t classes_) : rows(rows_), classes(classes_) {
    const std::size_t size = rows * classes;
    student.resize(size);
    teacher.resize(size);
    d_student.assign(size, 1.0f);
    for (std::size_t i = 0; i < size; ++i) {
      const auto words = kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i));
      student[i] = 8 * kd::uniform(words[0]) - 4;
      teacher[i] = 14 * kd::uniform(words[1]) - 7;
    }
    for (std::size_t row = 0; row < rows; ++row) labels.push_back(static_cast<std::int32_t>(row * 7919 % classes));
  }

  kd::formula::logit_batch<float> batch() {
    return {.rows = rows,
            .classes = classes,
            .student = {student.data()},
            .teacher = {teacher.data()},
            .labels = {labels.data()},
            .gradient = {d_student.data()}};
  }
  /// Student and teacher read once, the gradient written once.
  std::size_t bytes() const { return 3 * sizeof(float) * rows * classes; }
};

}  // namespace kd_bench
