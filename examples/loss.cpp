// A loss on logits that are already there, from any framework or file: no network, no trainer.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include <kd/kd.hpp>

int main() try {
  constexpr std::size_t rows = 128, classes = 1000, padded = 1024;  // a vocabulary is often padded: rows need not touch
  std::vector<float> student(rows * padded), teacher(rows * classes), gradient(rows * classes);
  std::vector<std::int64_t> labels(rows);
  for (std::size_t i = 0; i < student.size(); ++i) student[i] = 0.01f * static_cast<float>(i * 37 % 401) - 2;
  for (std::size_t i = 0; i < teacher.size(); ++i) teacher[i] = 0.01f * static_cast<float>(i * 53 % 601) - 3;
  for (std::size_t row = 0; row < rows; ++row) labels[row] = row % 10 == 0 ? -100 : static_cast<std::int64_t>(row);

  // Rows of label -100 are ignored, and the sum is divided by the others.
  kd::logit_batch<float, float, std::int64_t> batch{.rows = rows,
                                                    .classes = classes,
                                                    .student = {student.data(), padded},
                                                    .teacher = {teacher.data()},
                                                    .labels = {labels.data()},
                                                    .divide_by = kd::divisor::valid_rows,
                                                    .gradient = {gradient.data()}};
  const auto print = [](const char* loss, const kd::loss_terms& terms) {
    std::printf("%-28s total %.6f", loss, terms.total);
    for (const kd::loss_term& term : terms.terms())
      std::printf(", %.*s %.6f", static_cast<int>(term.name.size()), term.name.data(), term.value);
    std::printf("\n");
  };
  print("distillation",
        kd::forward_backward(kd::distillation{.temperature = 4, .kd_weight = 0.9f, .ce_weight = 0.1f}, batch));
  // Any divergence of kernels/kd/formula, and any weighted sum of its terms, in one pass.
  print("generalised JSD", kd::forward_backward(
                               kd::distillation_with<kd::formula::jensen_shannon>{
                                   .temperature = 1, .kd_weight = 1, .ce_weight = 0, .divergence = {.beta = 0.1f}},
                               batch));
} catch (const std::exception& e) {
  std::fprintf(stderr, "loss: %s\n", e.what());
  return 1;
}
