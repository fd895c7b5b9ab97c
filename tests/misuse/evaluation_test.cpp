/// Logits that say nothing, and logits, labels and tensors that do not belong together.
#include <kd/train/fit.hpp>

#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"

using namespace kd_test;

namespace {

constexpr float bad_number = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();

kd::tensor<float, 2> rows_of(const std::vector<std::vector<float>>& rows) {
  kd::tensor<float, 2> logits({rows.size(), rows.at(0).size()});
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t c = 0; c < rows[i].size(); ++c) logits(i, c) = rows[i][c];
  return logits;
}

template <class Call>
std::string refused(const Call& call) {
  return message_of<kd::argument_error>(call);
}

}  // namespace

TEST_CASE("misuse: rows that are not finite have no prediction, are right nowhere and counted", "[misuse][evaluate]") {
  const auto logits = rows_of({{bad_number, bad_number, bad_number},
                               {5, bad_number, 1},
                               {bad_number, 1, 2},
                               {infinite, 0, 0},
                               {-infinite, -infinite, -infinite},
                               {-infinite, 3, -infinite},
                               {0, 0, 0}});
  const std::vector<std::int32_t> labels{0, 0, 0, 0, 0, 1, 0};
  const auto e = kd::train::evaluate_logits(logits, labels);
  CHECK(e.samples == 7);
  CHECK(e.non_finite == 5);
  CHECK(e.top1 == 2.0 / 7);
  CHECK(e.top5 == 2.0 / 7);
  CHECK(e.confusion(0, 0) == 1);
  CHECK(e.confusion(1, 1) == 1);
  CHECK(kd::train::predicted_class(logits.row(0)) == 3);
  CHECK(kd::train::predicted_class(logits.row(5)) == 1);
  CHECK(kd::train::predicted_class({}) == 0);
}

TEST_CASE("misuse: rows that are not finite agree with nothing", "[misuse][evaluate]") {
  const auto bad = rows_of({{bad_number, bad_number, bad_number},
                            {bad_number, 0, 0},
                            {5, bad_number, 1},
                            {infinite, 0, 0},
                            {-infinite, -infinite, -infinite}});
  const auto first = rows_of({{1, 0, 0}, {1, 0, 0}, {1, 0, 0}, {1, 0, 0}, {1, 0, 0}});
  CHECK(kd::train::agreement(bad, first) == 0);
  CHECK(kd::train::agreement(first, bad) == 0);
  CHECK(kd::train::agreement(bad, bad) == 0);
  CHECK(kd::train::agreement(first, first) == 1);
}

TEST_CASE("misuse: logits, labels and tensors that do not belong together", "[misuse][evaluate]") {
  const kd::tensor<float, 2> logits({4, 3});
  const std::vector<std::int32_t> three{0, 1, 2}, outside{0, 1, 2, 3}, ignored{0, 1, -100, 2};
  CHECK(holds(refused([&] { (void)kd::train::evaluate_logits(logits, three); }), "kd::train::evaluate_logits",
              "4 rows, received 3", "same samples"));
  CHECK(holds(refused([&] { (void)kd::train::evaluate_logits(logits, outside); }),
              "kd::train::evaluate_logits: label 3 must be in [0, 3), received 3", "count from 0"));
  CHECK(holds(refused([&] { (void)kd::train::evaluate_logits(logits, ignored); }),
              "kd::train::evaluate_logits: label 2", "received -100", "leave those rows out"));
  CHECK(holds(refused([&] {
                (void)kd::train::agreement(logits, kd::tensor<float, 2>({4, 2}));
              }),
              "kd::train::agreement: logits [4,3]", "received [4,2]", "same samples and classes"));
  CHECK(holds(refused([&] { (void)logits.row(4); }), "kd::tensor::row", "below 4, received 4", "check the index"));
}
