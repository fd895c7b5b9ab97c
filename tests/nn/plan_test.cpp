#include "kd/nn/plan.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "kd/models/light_nn.hpp"
#include "kd/models/resnet.hpp"
#include "kd/models/simple_nn.hpp"
#include "kd/nn/summary.hpp"
#include "kd/train/live_parameters.hpp"
#include "support/catch.hpp"

namespace nn = kd::nn;
using kd::models::LightNN;
using kd::models::ResNet18;

TEST_CASE("plan: parameter counts of the report's networks", "[nn][plan]") {
  CHECK(nn::plan_of<ResNet18>::parameter_count == 11'181'642);
  CHECK(nn::plan_of<kd::models::ResNet18Cifar>::parameter_count == 11'173'962);
  CHECK(nn::plan_of<LightNN>::parameter_count == 267'738);
  CHECK(nn::plan_of<kd::models::SimpleNN>::parameter_count == 34'290);
  CHECK(nn::plan_of<ResNet18>::state_count == 9'600);
}

namespace {
/// Tensors of 99, 11, 11'000 and 40 floats: sums of them are no multiples of four.
using awkward = nn::sequential<kd::image<1, 28, 28>, nn::conv2d<11, 3>, nn::batch_norm2d<>, nn::conv2d<40, 5>,
                               nn::global_avg_pool2d, nn::flatten, nn::linear<3>>;

/// Whether every tensor begins at a multiple of 16 bytes and none overlaps the one before it.
template <class Model>
constexpr bool tensors_are_aligned() {
  using plan = nn::plan_of<Model>;
  std::size_t parameters = 0, state = 0, floats = 0;
  for (const nn::tensor_info& t : plan::tensors) {
    std::size_t& end = t.spec.trainable ? parameters : state;
    if (t.offset % 4 != 0 || t.offset < end || t.offset - end > 3) return false;
    end = t.offset + t.spec.size();
    floats += t.spec.trainable ? t.spec.size() : 0;
  }
  return floats == plan::parameter_count && plan::parameter_floats >= parameters &&
         plan::parameter_floats - parameters < 4 && plan::state_floats >= state && plan::state_floats - state < 4;
}

/// How often an optimiser touches each float of the parameters.
template <class Model>
std::vector<int> touched(bool skip_dead) {
  std::vector<int> times(nn::plan_of<Model>::parameter_floats);
  for (const kd::optim::live_runs& r : kd::train::live_parameters<Model>::runs(skip_dead))
    for (std::size_t i = 0; i < r.count; ++i)
      for (std::size_t e = 0; e < r.run; ++e) ++times.at(r.begin + i * r.stride + e);
  return times;
}
}  // namespace

TEST_CASE("plan: every tensor begins at a multiple of 16 bytes", "[nn][plan]") {
  STATIC_REQUIRE(tensors_are_aligned<ResNet18>());
  STATIC_REQUIRE(tensors_are_aligned<kd::models::ResNet18Cifar>());
  STATIC_REQUIRE(tensors_are_aligned<LightNN>());
  STATIC_REQUIRE(tensors_are_aligned<kd::models::SimpleNN>());
  STATIC_REQUIRE(tensors_are_aligned<awkward>());
  // The floats of the tensors: 99 and 11 of the first convolution, twice 11, 11,000 and 40, 120 and 3.
  CHECK(nn::plan_of<awkward>::parameter_count == 11'295);
  CHECK(nn::plan_of<awkward>::parameter_floats == 100 + 12 + 12 + 12 + 11'000 + 40 + 120 + 4);
  CHECK(nn::plan_of<awkward>::state_count == 22);
  CHECK(nn::plan_of<awkward>::state_floats == 24);
}

TEST_CASE("plan: an optimiser touches every weight once, and nothing between two tensors", "[nn][plan]") {
  for (const bool skip_dead : {false, true}) {
    std::vector<int> expected(nn::plan_of<awkward>::parameter_floats);
    for (const nn::tensor_info& t : nn::plan_of<awkward>::tensors)
      if (t.spec.trainable) std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(t.offset), t.spec.size(), 1);
    CHECK(touched<awkward>(skip_dead) == expected);
  }
  // Dead taps are skipped by one of the two alone.
  const auto all = touched<ResNet18>(false), live = touched<ResNet18>(true);
  CHECK(std::count(all.begin(), all.end(), 1) == 11'181'642);
  CHECK(std::count(live.begin(), live.end(), 1) == 11'181'642 - 6'946'816);
}

TEST_CASE("plan: FLOPs of ResNet18, dense and without padding", "[nn][plan]") {
  // 2 * 37.07 M multiply-adds of the convolutions and the classifier; 128 of them are 9.48 GFLOP.
  CHECK(nn::plan_of<ResNet18>::flops * 128 / 10'000'000 == 949);
  CHECK(nn::plan_of<ResNet18>::useful_flops * 128 / 10'000'000 == 556);
}

TEST_CASE("plan: what never moves is what only meets padding", "[nn][plan]") {
  // From the shapes: layer4's 3x3 convolutions on one pixel keep 1 of 9 taps, its first one and the stem lose theirs.
  CHECK(11'181'642 - kd::train::live_parameters<ResNet18>::count == 6'946'816);
  CHECK(kd::train::live_parameters<LightNN>::count == 267'738);
}

TEST_CASE("plan: names are PyTorch's", "[nn][plan]") {
  std::set<std::string> names;
  for (const nn::tensor_info& t : nn::plan_of<ResNet18>::tensors) names.insert(std::string(t.name.view()));
  for (const char* name : {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight",
                           "layer4.0.downsample.1.running_mean", "layer4.1.bn2.bias", "fc.weight", "fc.bias"}) {
    INFO(name);
    CHECK(names.contains(name));
  }
  CHECK(names.size() == 122 - 20);  // torchvision's state dict without the 20 num_batches_tracked
  names.clear();
  for (const nn::tensor_info& t : nn::plan_of<LightNN>::tensors) names.insert(std::string(t.name.view()));
  CHECK(names == std::set<std::string>{"features.0.weight", "features.0.bias", "features.3.weight", "features.3.bias",
                                       "classifier.0.weight", "classifier.0.bias", "classifier.3.weight",
                                       "classifier.3.bias"});
}

TEST_CASE("plan: fusion of LightNN and of a residual block", "[nn][plan]") {
  const auto& light = nn::plan_of<LightNN>::nodes;
  CHECK(light[0].fused == nn::fusion::relu_pool);
  CHECK(light[1].absorbed);
  CHECK(light[2].absorbed);
  CHECK(light[7].fused == nn::fusion::relu);
  CHECK_FALSE(light[0].needs_dx);
  using block = nn::sequential<kd::image<8, 4, 4>, nn::conv2d<8, 1>,
                               nn::residual<nn::main_path<nn::conv2d<8, 1>, nn::batch_norm2d<>>>, nn::relu>;
  const auto& nodes = nn::plan_of<block>::nodes;
  CHECK(nodes[2].fused == nn::fusion::add_relu);
  CHECK(nodes[2].second == 1);
  CHECK(nodes[1].accumulates);
  // A pool of odd images is not fused: the window would be cut.
  using odd = nn::sequential<kd::image<3, 7, 7>, nn::conv2d<8, 3>, nn::relu, nn::max_pool2d<2>>;
  CHECK(nn::plan_of<odd>::nodes[0].fused == nn::fusion::relu);
}

namespace {
template <std::size_t... I>
auto deep(std::index_sequence<I...>) {
  return std::type_identity<nn::sequential<kd::row<16>, std::conditional_t<I % 2 == 0, nn::linear<16>, nn::relu>...>>{};
}
}  // namespace

TEST_CASE("plan: depth is the length of an array", "[nn][plan]") {
  using sixty = typename decltype(deep(std::make_index_sequence<60>{}))::type;
  CHECK(nn::plan_of<sixty>::node_count == 60);
  CHECK(nn::plan_of<sixty>::parameter_count == 30 * 17 * 16);
}

TEST_CASE("plan: activations of training take less than all of them side by side", "[nn][plan]") {
  using train = nn::activation_memory<ResNet18, true>;
  using infer = nn::activation_memory<ResNet18, false>;
  std::size_t all = nn::plan_of<ResNet18>::input.size();
  for (const nn::node& n : nn::plan_of<ResNet18>::nodes)
    if (!n.absorbed) all += 2 * nn::plan_of<ResNet18>::value_shape(n.output).size();
  CHECK(train::size < all * 2 / 3);
  CHECK(infer::size <= 3 * 64 * 16 * 16);
}

TEST_CASE("summary: layers, totals and fusion", "[nn][summary]") {
  const std::string text = nn::summary<LightNN>();
  for (const char* part : {"features.0", "[16,32,32]", "+ relu + max pool", "267,738", "(fused above)"}) {
    INFO(part);
    CHECK(text.find(part) != std::string::npos);
  }
}
