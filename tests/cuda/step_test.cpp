#include "kd/cuda/step.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

#include "support/catch.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::step_scalars;
using kd_test::guarded_array;
using kd_test::untouched;

constexpr std::uint32_t samples = 1400;

/// Entries whose numbers all differ; batches begin at 0, 7 and 300.
std::vector<step_scalars> some_table() {
  const std::uint32_t first[] = {0, 7, 300};
  std::vector<step_scalars> table(3);
  for (std::uint32_t i = 0; i < 3; ++i) {
    table[i] = {100 + i, 10 + i, first[i], 0, {}, {}};
    for (std::uint32_t j = 0; j < sizeof table[i].loss; ++j) table[i].loss[j] = static_cast<std::byte>(80 * i + j);
    for (std::uint32_t j = 0; j < 32; ++j) table[i].optimiser[j] = static_cast<unsigned char>(50 * i + j);
  }
  return table;
}

std::vector<std::uint32_t> some_order() {
  std::vector<std::uint32_t> order(samples);
  for (std::uint32_t i = 0; i < samples; ++i) order[i] = (i * 37 + 11) % samples;
  return order;
}

}  // namespace

TEST_CASE("cuda begin_step: takes the next entry and its batch", "[cuda][step]") {
  const kd::cuda::stream s;
  const auto table = some_table();
  const auto order = some_order();
  std::vector<std::int32_t> labels(samples);
  for (std::uint32_t i = 0; i < samples; ++i) labels[i] = static_cast<std::int32_t>(i * 13 % 101);
  guarded_array<step_scalars> device_table(s, table);
  guarded_array<std::uint32_t> device_order(s, order);
  guarded_array<std::int32_t> device_labels(s, labels);
  // The last rows of logits are too many for one block, and gathered by a launch of their own.
  const struct {
    std::size_t count, classes;
  } cases[] = {{0, 10}, {1, 1}, {1, 33}, {5, 10}, {31, 32}, {33, 3}, {128, 10}, {1025, 2}, {100, 164}, {64, 257}};
  for (const auto [count, classes] : cases) {
    CAPTURE(count, classes);
    const auto teacher = kd_test::random_floats(samples * classes, 3);
    guarded_array<float> device_teacher(s, teacher);
    guarded_array<std::uint32_t> position(s, std::vector<std::uint32_t>{0});
    for (std::uint32_t step = 0; step < 3; ++step) {
      guarded_array<step_scalars> current(s, 1);
      guarded_array<std::uint32_t> indices(s, count);
      guarded_array<std::int32_t> batch_labels(s, count);
      guarded_array<float> rows(s, count * classes);
      kd::cuda::begin_step(s, device_table.data(), position.data(), current.data(), device_order.data(),
                           device_labels.data(), device_teacher.data(), classes, count, indices.data(),
                           batch_labels.data(), rows.data());
      std::vector<std::uint32_t> want_indices(count);
      std::vector<std::int32_t> want_labels(count);
      std::vector<float> want_rows(count * classes);
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t sample = order[table[step].first + i];
        want_indices[i] = sample;
        want_labels[i] = labels[sample];
        for (std::size_t c = 0; c < classes; ++c) want_rows[i * classes + c] = teacher[sample * classes + c];
      }
      CHECK(position.values()[0] == step + 1);
      CHECK(std::memcmp(current.values().data(), &table[step], sizeof(step_scalars)) == 0);
      CHECK(indices.values() == want_indices);
      CHECK(batch_labels.values() == want_labels);
      CHECK(rows.values() == want_rows);
    }
  }
}

TEST_CASE("cuda begin_step: without a teacher its rows are not touched", "[cuda][step]") {
  const kd::cuda::stream s;
  guarded_array<step_scalars> table(s, some_table()), current(s, 1);
  guarded_array<std::uint32_t> order(s, some_order()), position(s, std::vector<std::uint32_t>{1}), indices(s, 3);
  guarded_array<std::int32_t> labels(s, std::vector<std::int32_t>(samples, 4)), batch_labels(s, 3);
  guarded_array<float> rows(s, 30);
  kd::cuda::begin_step(s, table.data(), position.data(), current.data(), order.data(), labels.data(), nullptr, 10, 3,
                       indices.data(), batch_labels.data(), rows.data());
  CHECK(position.values()[0] == 2);
  CHECK(current.values()[0].step == 101);
  CHECK(batch_labels.values() == std::vector<std::int32_t>(3, 4));
  CHECK(untouched(rows.values()));
}
