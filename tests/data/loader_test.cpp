#include "kd/data/loader.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"

using kd::data::epoch_order;

TEST_CASE("loader: every epoch is a permutation", "[data][loader]") {
  for (const std::size_t samples : {1u, 2u, 3u, 4u, 5u, 127u, 1000u, 50'000u}) {
    for (const std::uint32_t epoch : {0u, 1u, 9u}) {
      std::vector<std::uint32_t> order = epoch_order(samples, 7, epoch);
      REQUIRE(order.size() == samples);
      std::sort(order.begin(), order.end());
      bool whole = true;
      for (std::size_t i = 0; i < samples; ++i) whole = whole && order[i] == i;
      INFO(samples << " samples, epoch " << epoch);
      CHECK(whole);
    }
  }
  CHECK(epoch_order(0, 7, 0).empty());
}

TEST_CASE("loader: the order depends on samples, seed and epoch alone", "[data][loader]") {
  CHECK(epoch_order(1000, 7, 3) == epoch_order(1000, 7, 3));
  CHECK(epoch_order(1000, 7, 3) != epoch_order(1000, 7, 4));
  CHECK(epoch_order(1000, 7, 3) != epoch_order(1000, 8, 3));
  // Fixed for all time: a resumed run must meet the order that the interrupted one would have met.
  CHECK(epoch_order(10, 1, 0) == std::vector<std::uint32_t>{3, 6, 4, 5, 0, 7, 9, 8, 1, 2});
}

TEST_CASE("loader: every sample comes to every position equally often", "[data][loader]") {
  constexpr std::size_t samples = 10, epochs = 20'000;
  std::vector<int> counts(samples * samples);
  std::vector<std::uint32_t> order(samples);
  for (std::uint32_t epoch = 0; epoch < epochs; ++epoch) {
    epoch_order(order, 3, epoch);
    for (std::size_t i = 0; i < samples; ++i) ++counts[i * samples + order[i]];
  }
  // Expected 2000 each with standard deviation sqrt(20000 * 0.1 * 0.9) = 42; 100 cells stay within 4.5 of them.
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  CHECK(*least > 2000 - 190);
  CHECK(*most < 2000 + 190);
}

TEST_CASE("loader: neighbouring epochs share no more fixed points than chance", "[data][loader]") {
  // The number of positions that two random permutations share is Poisson with mean 1.
  std::size_t shared = 0;
  std::vector<std::uint32_t> last = epoch_order(5000, 11, 0);
  for (std::uint32_t epoch = 1; epoch <= 100; ++epoch) {
    const std::vector<std::uint32_t> next = epoch_order(5000, 11, epoch);
    for (std::size_t i = 0; i < next.size(); ++i) shared += next[i] == last[i];
    last = next;
  }
  CHECK(shared > 55);
  CHECK(shared < 145);
}

TEST_CASE("loader: batches cut an order and keep the last, shorter one", "[data][loader]") {
  const std::vector<std::uint32_t> order = epoch_order(300, 1, 0);
  const kd::data::batches cut(order, 128);
  REQUIRE(cut.size() == 3);
  CHECK(cut.samples() == 300);
  CHECK(cut[0].size() == 128);
  CHECK(cut[2].size() == 44);
  std::vector<std::uint32_t> joined;
  for (const auto batch : cut) joined.insert(joined.end(), batch.begin(), batch.end());
  CHECK(joined == order);
  CHECK(kd::data::batches(order, 300).size() == 1);
  CHECK(kd::data::batches(order, 1000)[0].size() == 300);
  CHECK(kd::data::batches(order, 100).size() == 3);
  CHECK(kd::data::batches({}, 100).size() == 0);
}

TEST_CASE("loader: one buffer serves every epoch and the file order", "[data][loader]") {
  kd::data::loader loader(300, 128, 5);
  CHECK(loader.steps() == 3);
  const std::uint32_t* const buffer = loader.epoch(0)[0].data();
  const std::vector<std::uint32_t> want = epoch_order(300, 5, 2);
  const kd::data::batches got = loader.epoch(2);
  CHECK(got[0].data() == buffer);
  CHECK(std::equal(want.begin(), want.begin() + 128, got[0].begin()));
  const kd::data::batches in_order = loader.in_file_order();
  CHECK(in_order[1].front() == 128);
  CHECK(in_order[2].back() == 299);
}

TEST_CASE("loader: drop_last leaves out the end of the order, other samples in each epoch", "[data][loader]") {
  kd::data::loader loader(300, 128, 5, true);
  CHECK(loader.steps() == 2);
  const std::vector<std::uint32_t> want = epoch_order(300, 5, 2);
  const kd::data::batches got = loader.epoch(2);
  REQUIRE(got.size() == 2);
  CHECK(got.samples() == 256);
  CHECK(got.order().size() == 256);
  CHECK(std::equal(got.order().begin(), got.order().end(), want.begin()));
  CHECK(got[1].size() == 128);
  CHECK(loader.current().size() == 2);
  CHECK(loader.in_file_order().samples() == 300);  // evaluation leaves nothing out
  CHECK(kd::data::loader(256, 128, 5, true).steps() == 2);
  CHECK(kd::data::loader(256, 256, 5, true).steps() == 1);
}

TEST_CASE("loader: bad arguments are named with their value", "[data][loader]") {
  const std::vector<std::uint32_t> order = epoch_order(10, 1, 0);
  const auto message = [](const auto& call) { return kd_test::message_of<kd::argument_error>(call); };
  CHECK(message([&] { (void)kd::data::batches(order, 0); }) ==
        "kd::data::batches: batch_size must be at least 1, received 0; pass 128");
  CHECK(message([&] { (void)kd::data::batches(order, 4)[3]; }) ==
        "kd::data::batches[]: the batch index must be below 3, received 3; loop to size()");
  CHECK(message([] { (void)kd::data::loader(0, 128, 1); }) ==
        "kd::data::loader: samples must be at least 1, received 0; load a data set first");
  CHECK(message([] { (void)kd::data::loader(10, 11, 1, true); }) ==
        "kd::data::loader: with drop_last, batch_size must be at most the 10 samples, received 11; use a smaller "
        "batch_size");
  CHECK(message([] { (void)kd::data::loader(10, 0, 1, true); }) ==
        "kd::data::batches: batch_size must be at least 1, received 0; pass 128");
  CHECK(message([] { (void)kd::data::loader(10, 0, 1); }) ==
        "kd::data::batches: batch_size must be at least 1, received 0; pass 128");
}
