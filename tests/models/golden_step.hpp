/// One training step of a network on any device against PyTorch's values; tests/golden/make_step_golden.py says what is
/// stored.
#pragma once

#include <kd/kd.hpp>

#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <string>

#include "support/catch.hpp"
#include "support/compare.hpp"

namespace kd_test {

inline std::string golden(const std::string& name) { return std::string(KD_TEST_DATA) + "/" + name; }

inline std::uint32_t word(std::uint64_t seed, std::size_t i, std::uint32_t b, std::uint32_t c, std::uint32_t stream) {
  return kd::philox4x32({static_cast<std::uint32_t>(i / 4), b, c, stream}, seed)[i % 4];
}
inline float symmetric(std::uint32_t w) { return 2 * kd::uniform(w) - 1; }

struct golden_case {
  std::string name;
  std::size_t batch = 0;
  float temperature = 0;
};

class golden_file {
 public:
  explicit golden_file(const std::string& name) : file_(kd::io::safetensors_file::open(golden(name))) {
    seed = std::stoull(*file_.find_metadata("seed"));
    std::istringstream names(*file_.find_metadata("parameters"));
    std::uint32_t k = 0;
    for (std::string line; std::getline(names, line);) ordinal[line] = k++;
    std::istringstream list(*file_.find_metadata("cases"));
    for (std::string line; std::getline(list, line);) {
      std::istringstream fields(line);
      golden_case one;
      fields >> one.name >> one.batch >> one.temperature;
      cases.push_back(one);
    }
  }
  std::vector<double> values(const std::string& name) const {
    const kd::io::tensor_info* tensor = file_.find(name);
    INFO(name);
    REQUIRE(tensor != nullptr);
    std::vector<double> out(tensor->size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (tensor->dtype == "F64") {
        std::memcpy(&out[i], tensor->data.data() + 8 * i, 8);
      } else {
        float single = 0;
        std::memcpy(&single, tensor->data.data() + 4 * i, 4);
        out[i] = static_cast<double>(single);
      }
    }
    return out;
  }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  std::uint64_t seed = 0;
  std::map<std::string, std::uint32_t> ordinal;
  std::vector<golden_case> cases;

 private:
  kd::io::safetensors_file file_;
};

template <class Network>
void set_parameters(Network& network, const golden_file& file) {
  for (const kd::nn::tensor_info& info : Network::plan::tensors) {
    if (!info.spec.trainable) continue;
    const std::string name(info.name.view());
    REQUIRE(file.ordinal.contains(name));
    const std::uint32_t k = file.ordinal.at(name);
    const bool matrix = info.spec.rank >= 2, weight = name.ends_with("weight");
    const auto fan_in = static_cast<float>(info.spec.size() / info.spec.dims[0]);
    std::vector<float> value(info.spec.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
      const float r = symmetric(word(file.seed, i, 0, k, 100));
      value[i] = matrix ? r / std::sqrt(fan_in) : weight ? 1.0f + 0.1f * r : 0.1f * r;
    }
    network.write(info, value.data());
  }
}

inline kd::data::dataset images(std::size_t count, std::uint64_t seed) {
  kd::data::dataset set;
  set.name = "golden";
  set.image = kd::image_shape(3, 32, 32);
  set.classes = 10;
  for (std::size_t n = 0; n < count; ++n) {
    for (std::size_t e = 0; e < 3072; ++e)
      set.train.images.push_back(static_cast<std::uint8_t>(word(seed, e, static_cast<std::uint32_t>(n), 0, 101) >> 24));
    set.train.labels.push_back(static_cast<std::int32_t>(n * 7 % 10));
  }
  return set;
}

inline std::size_t sample_position(std::size_t i, std::size_t numel) {
  return static_cast<std::uint32_t>(static_cast<std::uint32_t>(i) * 2654435761u) % numel;
}

/// Runs one step in file order (the trainer's shuffle would change which sample gets which dropout mask).
template <class Model, class Device>
void check_golden_step(Device& device, const std::string& file_name, double tolerance) {
  const golden_file file(file_name);
  REQUIRE(!file.cases.empty());
  for (const golden_case& one : file.cases) {
    INFO(file_name << " " << one.name);
    kd::network<Model, Device> network(device, 0);
    set_parameters(network, file);
    const kd::data::dataset set = images(one.batch, file.seed);
    std::vector<float> teacher(one.batch * 10), rows(one.batch * 10);
    for (std::size_t e = 0; e < teacher.size(); ++e) teacher[e] = 6 * symmetric(word(file.seed, e, 0, 0, 102));
    std::vector<std::uint32_t> order(one.batch);
    kd::data::sequential_order(order);
    const kd::step_random random{file.seed, 0};
    constexpr kd::shape output = kd::nn::plan_of<Model>::output;

    const auto pixels = device.resident(std::span<const std::uint8_t>(set.train.images));
    const auto labels = device.resident(std::span<const std::int32_t>(set.train.labels));
    const auto samples = device.resident(std::span<const std::uint32_t>(order));
    const auto teacher_rows = device.resident(std::span<const float>(teacher));
    auto student_rows = device.template allocate<float>(rows.size());
    auto d_rows = device.template allocate<float>(rows.size());
    auto meter = device.template allocate<kd::loss_meter>(1);
    auto scratch = device.template allocate<std::byte>(device.loss_scratch(one.batch, 10));

    device.gather_images({pixels.data(), set.image, samples.data(), one.batch}, kd::imagenet_normalisation, {}, {},
                         network.input(one.batch, true));
    device.to_rows(output, one.batch, network.forward_train(one.batch, random), student_rows.data());
    device.download(student_rows.data(), rows.size(), rows.data());
    CHECK(near(rows, file.values(one.name + "/logits"), {.of_largest = tolerance}, "logits"));

    const auto lose = [&](const auto& how) {
      const auto formula = how.formula();
      const auto now = device.resident(std::span(&formula, 1));
      device.accumulate_loss(how, now.data(), one.batch, 10, student_rows.data(), teacher_rows.data(), labels.data(),
                             d_rows.data(), scratch, meter.data());
      kd::loss_meter sums;
      device.download(meter.data(), 1, &sums);
      REQUIRE(sums.fault_kind == kd::loss_fault_kind::none);
      return sums.means(kd::value_names<kd::formula_of<std::remove_cvref_t<decltype(how)>>>);
    };
    const kd::loss_terms terms =
        one.temperature == 0 ? lose(kd::cross_entropy{}) : lose(kd::distillation{.temperature = one.temperature});
    const auto loss = file.values(one.name + "/loss");
    CHECK(close(terms.total, loss[0], tolerance));
    CHECK(close(terms["cross_entropy"], loss[1], tolerance));
    if (one.temperature != 0) CHECK(close(terms["kd"], loss[2], tolerance));

    device.from_rows(output, one.batch, d_rows.data(), network.logits_gradient(one.batch));
    network.backward(one.batch, random);

    // Gradients and updated parameters, tensor by tensor.
    std::map<std::string, std::vector<float>> before;
    for (const kd::nn::tensor_info& info : kd::nn::plan_of<Model>::tensors)
      if (info.spec.trainable) before[std::string(info.name.view())] = network.read(info);
    auto m = device.template allocate<float>(network.parameter_floats);
    auto v = device.template allocate<float>(network.parameter_floats);
    const kd::optim::adam adam{.learning_rate = 1e-3};
    const std::array now{adam.factors(adam.learning_rate, 1)};
    const auto factors = device.resident(std::span<const kd::optim::factors_of<kd::optim::adam>>(now));
    device.update(adam, device.plan_update(kd::train::live_parameters<Model>::runs(true)), factors.data(),
                  network.parameters(), network.gradients(), {m.data(), v.data()}, meter.data());
    device.synchronize();

    for (const kd::nn::tensor_info& info : kd::nn::plan_of<Model>::tensors) {
      const std::string name(info.name.view());
      INFO(name);
      if (!info.spec.trainable) {
        if (file.has(one.name + "/running/" + name))
          CHECK(near(network.read(info), file.values(one.name + "/running/" + name), {.of_largest = tolerance}));
        continue;
      }
      const std::vector<float> gradient = network.read_gradient(info), after = network.read(info);
      const auto summary = file.values(one.name + "/grad/" + name);
      double norm = 0, sum = 0, dot = 0;
      const std::uint32_t k = file.ordinal.at(name);
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        const auto g = static_cast<double>(gradient[i]);
        norm += g * g;
        sum += g;
        dot += (word(file.seed, i, 0, k, 103) & 1) != 0 ? g : -g;
      }
      norm = std::sqrt(norm);
      CHECK(near(norm, summary[0], {.relative = tolerance}));
      CHECK(near(sum, summary[1], {.relative = tolerance, .scale_at_least = summary[0]}));
      CHECK(near(dot, summary[2], {.relative = tolerance, .scale_at_least = summary[0]}));
      CHECK(near(largest_magnitude(gradient), summary[3], {.relative = tolerance}));

      const auto grad_samples = file.values(one.name + "/grad_samples/" + name);
      const auto updated = file.values(one.name + "/updated_samples/" + name);
      std::size_t compared = 0;
      comparison gradients("gradient"), weights("updated weight");
      for (std::size_t i = 0; i < grad_samples.size(); ++i) {
        const std::size_t at = sample_position(i, gradient.size());
        gradients.add(static_cast<double>(gradient[at]), grad_samples[i], tolerance * summary[3], at);
        // Adam's first step is lr * sign(g): where g is rounding, its sign is chance.
        if (!(std::abs(grad_samples[i]) > 1e-4 * summary[3]) && grad_samples[i] != 0) continue;
        ++compared;
        const double rounding = std::abs(updated[i]) * 0x1p-23;
        weights.add(static_cast<double>(after[at]), updated[i], 1e-3 * tolerance + rounding, at);
      }
      CHECK(gradients);
      CHECK(weights);
      CHECK(2 * compared >= grad_samples.size());
      double moved = 0;
      for (std::size_t i = 0; i < after.size(); ++i) {
        const double step = static_cast<double>(after[i]) - static_cast<double>(before[name][i]);
        moved += step * step;
      }
      const double want = file.values(one.name + "/update/" + name)[0];
      CHECK(near(std::sqrt(moved), want, {.absolute = 1e-12, .relative = tolerance}));
    }
  }
}

/// Evaluation mode: the initial parameters, with the running statistics that one training forward leaves.
template <class Model, class Device>
void check_evaluation(Device& device, const std::string& file_name, double tolerance) {
  const golden_file file(file_name);
  const auto want = file.values("eval/logits");
  const std::size_t batch = want.size() / 10;
  kd::network<Model, Device> network(device, 0);
  set_parameters(network, file);
  const kd::data::dataset set = images(batch, file.seed);
  std::vector<std::uint32_t> order(batch);
  kd::data::sequential_order(order);
  const auto pixels = device.resident(std::span<const std::uint8_t>(set.train.images));
  const auto samples = device.resident(std::span<const std::uint32_t>(order));
  device.gather_images({pixels.data(), set.image, samples.data(), batch}, kd::imagenet_normalisation, {}, {},
                       network.input(batch, true));
  network.forward_train(batch, {file.seed, 0});
  CHECK(near(kd::train::predict(network, set.train.images).elements(), want, {.of_largest = tolerance}));
}

}  // namespace kd_test
