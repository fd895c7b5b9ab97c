#include "kd/train/resume.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <type_traits>
#include <utility>

#include "kd/formula/reverse_kl.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"
#include "support/rules.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

TEST_CASE("resume: a run stopped at any epoch ends with the bits of one that never stopped", "[train][resume]") {
  device cpu(2);
  const auto set = quadrants();
  const folder dir;
  constexpr std::size_t epochs = 4;
  const auto check = [&](auto optimiser, const kd::optim::schedule& schedule, bool drop_last = false) {
    const auto settings = [&](std::size_t count, const std::string& file) {
      return kd::train::options{.epochs = count,
                                .batch_size = 32,
                                .drop_last = drop_last,
                                .seed = 9,
                                .augment = {.crop_padding = 1, .flip = true},
                                .schedule = schedule,
                                .checkpoint = file.empty() ? "" : dir / file,
                                .log = file.empty() ? "" : dir / (file + ".jsonl")};
    };
    tiny whole(cpu, 1);
    const auto history = kd::train::fit(whole, set, optimiser, settings(epochs, ""));
    for (std::size_t stop = 1; stop < epochs; ++stop) {
      const std::string file = kd::text("stop", stop, decltype(optimiser)::name, optimiser.learning_rate, drop_last);
      {
        tiny first(cpu, 1);
        kd::train::fit(first, set, optimiser, settings(stop, file));
      }
      tiny second(cpu, 77);  // other initial weights: everything must come from the file
      const auto resumed = kd::train::fit(second, set, optimiser, settings(epochs, file));
      CHECK(equal_weights(whole, second));
      REQUIRE(resumed.size() == epochs);
      for (std::size_t e = 0; e < epochs; ++e) CHECK(resumed[e].loss == history[e].loss);
      std::ifstream log(dir / (file + ".jsonl"));
      std::size_t lines = 0;
      for (std::string line; std::getline(log, line);) ++lines;
      CHECK(lines == epochs);
    }
  };
  // Among them one that keeps no states, and one that keeps three.
  [&]<class... Rules>(kd::type_list<Rules...>) {
    (check(Rules{}, kd::optim::schedule::constant()), ...);
  }(tested_rules{});
  check(kd::optim::sgd{.learning_rate = 0.05, .momentum = 0.9}, kd::optim::schedule::cosine(4));
  // 200 images: 6 full batches, 24 steps in all; without drop_last there would be 28.
  check(kd::optim::adam{}, kd::optim::schedule::one_cycle(24), true);
}

namespace {

/// TinyNet with another dropout: the same tensors.
using DropoutNet = nn::sequential<
    kd::image<3, 8, 8>, nn::conv2d<8, 3, nn::conv_options{.padding = 1, .bias = false}>, nn::batch_norm2d<>, nn::relu,
    nn::residual<nn::main_path<nn::conv2d<8, 3, nn::conv_options{.padding = 1, .bias = false}>, nn::batch_norm2d<>>>,
    nn::relu, nn::max_pool2d<2>, nn::flatten, nn::dropout<0.1f>, nn::linear<4>>;
/// Tensors whose sizes are no multiples of four.
using OddNet =
    nn::sequential<kd::image<3, 8, 8>, nn::conv2d<5, 3>, nn::batch_norm2d<>, nn::relu, nn::flatten, nn::linear<4>>;

/// A run of one epoch, and the state that it left.
struct begun_run {
  device cpu{1};
  kd::data::dataset set = quadrants(64, 8);
  folder dir;
  std::string file = dir / "state";
  kd::train::options settings{.epochs = 1, .batch_size = 32, .checkpoint = file};

  begun_run() {
    tiny net(cpu, 1);
    kd::train::fit(net, set, kd::optim::adam{}, settings);
  }
};

/// What a refusal names, line by line between the first and the last one.
std::vector<std::string> named_in(const std::string& message) {
  std::vector<std::string> lines;
  std::istringstream text(message);
  for (std::string line; std::getline(text, line);)
    if (line.starts_with("  ")) lines.push_back(line.substr(2));
  return lines;
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("resume: a run goes on with nothing but its own settings, data and network; each difference is named",
          "[train][resume][errors]") {
  begun_run begun;
  auto& [cpu, set, dir, file, settings] = begun;
  const std::string before = bytes_of(file);
  auto longer = settings;
  longer.epochs = 2;
  const auto refused = [&]<class Model>(std::type_identity<Model>, const kd::data::dataset& data, const auto& optimiser,
                                        const kd::train::options& how,
                                        const kd::normalisation& norm = kd::imagenet_normalisation) {
    kd::network<Model, device> net(cpu, 5, norm);
    const kd::network<Model, device> untouched(cpu, 5, norm);
    const std::string message = message_of<kd::file_error>([&] { kd::train::fit(net, data, optimiser, how); });
    INFO(message);
    CHECK(holds(message, file, "started otherwise", "delete this one to begin anew"));
    CHECK(equal_weights(net, untouched));
    CHECK(bytes_of(file) == before);
    return named_in(message);
  };
  constexpr std::type_identity<TinyNet> same;
  const kd::optim::adam adam;
  using lines = std::vector<std::string>;

  CHECK(refused(same, set, kd::optim::adam{.learning_rate = 0.01, .beta1 = 0.8}, longer) ==
        lines{"learning_rate: the file has 0.001, now 0.01", "beta1: the file has 0.9, now 0.8"});
  CHECK(holds(refused(same, set, kd::optim::sgd{}, longer).at(0), "optimiser: the file has \"adam\", now \"sgd\""));
  auto other = longer;
  other.batch_size = 16;
  other.seed = 1;
  other.augment = {.crop_padding = 2, .flip = true};
  CHECK(refused(same, set, adam, other) == lines{"batch_size: the file has 32, now 16", "seed: the file has 0, now 1",
                                                 "crop_padding: the file has 0, now 2",
                                                 "flip: the file has false, now true"});
  CHECK(holds(refused(same, set, adam, longer, kd::cifar10_normalisation).at(0), "pixels: the file has [0.485,",
              "now [0.4914,"));
  other = longer;
  other.drop_last = true;
  CHECK(refused(same, set, adam, other) == lines{"drop_last: the file has false, now true"});
  other = longer;
  other.schedule = kd::optim::schedule::cosine(4);
  CHECK(holds(refused(same, set, adam, other).at(0), "schedule: the file has"));

  auto labels = set;
  labels.train.labels[7] = 0;
  const lines label_lines = refused(same, labels, adam, longer);
  REQUIRE(label_lines.size() == 1);
  CHECK(holds(label_lines[0], "labels: the file has \"", "\", now \""));
  auto pixels = set;
  pixels.train.images[1000] ^= 1;
  const lines pixel_lines = refused(same, pixels, adam, longer);
  REQUIRE(pixel_lines.size() == 1);
  CHECK(holds(pixel_lines[0], "images: the file has"));
  const lines fewer = refused(same, quadrants(32, 8), adam, longer);
  REQUIRE(fewer.size() == 3);
  CHECK(fewer[0] == "samples: the file has 64, now 32");

  const lines dropout = refused(std::type_identity<DropoutNet>{}, set, adam, longer);
  REQUIRE(dropout.size() == 1);
  CHECK(holds(dropout[0], "dropout(0.2)", "dropout(0.1)"));
  CHECK(holds(refused(std::type_identity<OtherNet>{}, set, adam, longer).at(0), "network: the file has", "lines"));

  // The test split, the number of threads and the log decide nothing.
  auto tests = set;
  tests.test.labels[0] = 3;
  device more(2);
  kd::network<TinyNet, device> net(more, 5);
  longer.log = dir / "log";
  CHECK(kd::train::fit(net, tests, adam, longer).size() == 2);
}

TEST_CASE("resume: precision is part of the recipe, the device and its threads are recorded", "[train][resume]") {
  const kd::train::options settings;
  const auto recipe = [&](kd::precision p) {
    return kd::train::recipe<TinyNet>(kd::cross_entropy{}, kd::optim::adam{}, settings, {.precision = p});
  };
  CHECK(kd::train::recipe_differences(recipe(kd::precision::bf16), recipe(kd::precision::fp32)) ==
        std::vector<std::string>{"precision: the file has \"bf16\", now \"fp32\""});
  device cpu(3);
  const folder dir;
  tiny net(cpu, 1);
  const auto set = quadrants(32, 4);
  kd::train::fit(net, set, kd::optim::adam{}, {.epochs = 1, .batch_size = 32, .checkpoint = dir / "state"});
  const auto file = kd::io::safetensors_file::open(dir / "state");
  const kd::io::json recorded = kd::io::json::parse(*file.find_metadata("kd.made_with"));
  CHECK(recorded.at("device").as_string() == "cpu");
  CHECK(recorded.at("threads").as_integer() == 3);
  CHECK(recorded.at("instruction_set").as_string() == kd::instruction_set);
  CHECK(kd::io::json::parse(*file.find_metadata("kd.recipe")).at("version").as_integer() == 2);
  CHECK(kd::train::state_recipe(file).at("precision").as_string() == "fp32");
}

TEST_CASE("resume: an optimiser's options stand in the recipe as earlier states have them", "[train][resume]") {
  const auto recipe = [](const auto& optimiser) {
    return kd::train::recipe<TinyNet>(kd::cross_entropy{}, optimiser, {}, {}).dump();
  };
  CHECK(holds(recipe(kd::optim::adam{}),
              R"("optimiser":"adam","learning_rate":0.001,"beta1":0.9,"beta2":0.999,"epsilon":1e-08,"weight_decay":0,)"
              R"("schedule")"));
  CHECK(
      holds(recipe(kd::optim::sgd{.momentum = 0.9, .nesterov = true}),
            R"("optimiser":"sgd","learning_rate":0.001,"momentum":0.9,"dampening":0,"weight_decay":0,"nesterov":true,)"
            R"("schedule")"));
  CHECK(holds(recipe(smoothed_descent{}), R"("optimiser":"smoothed_descent","learning_rate":0.1,"decay":0.5,)"));
}

TEST_CASE("resume: a student goes on with the logits or the teacher that it began with", "[train][resume][errors]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const folder dir;
  const kd::distillation loss;
  const kd::optim::adam adam;
  tiny teacher(cpu, 2), other(cpu, 3);
  const auto logits = kd::train::predict(teacher, set.train.images);
  const auto settings = [&](std::size_t epochs, const char* file, bool augment = false) {
    return kd::train::options{
        .epochs = epochs, .batch_size = 32, .augment = {.flip = augment}, .checkpoint = dir / file};
  };
  const auto student = [&](const auto& train) {
    tiny net(cpu, 1);
    train(net);
  };
  const auto refusal = [&](const auto& train) { return named_in(message_of<kd::file_error>([&] { student(train); })); };

  student([&](tiny& net) { kd::train::distil(net, logits, set, loss, adam, settings(1, "table")); });
  auto changed = logits;
  changed(5, 1) += 1;
  const auto table =
      refusal([&](tiny& net) { kd::train::distil(net, changed, set, loss, adam, settings(2, "table")); });
  REQUIRE(table.size() == 1);
  CHECK(holds(table[0], "teacher: the file has \"logits ", "now \"logits "));
  student([&](tiny& net) { kd::train::distil(net, logits, set, loss, adam, settings(2, "table")); });

  for (const bool augment : {false, true}) {  // cached, and live
    const char* file = augment ? "live" : "cached";
    student([&](tiny& net) { kd::train::distil(net, teacher, set, loss, adam, settings(1, file, augment)); });
    const auto lines =
        refusal([&](tiny& net) { kd::train::distil(net, other, set, loss, adam, settings(2, file, augment)); });
    REQUIRE(lines.size() == 1);
    CHECK(holds(lines[0], "teacher: the file has \"network ", "now \"network "));
    student([&](tiny& net) { kd::train::distil(net, teacher, set, loss, adam, settings(2, file, augment)); });
  }
  const auto temperature =
      refusal([&](tiny& net) { kd::train::distil(net, logits, set, {.temperature = 4}, adam, settings(3, "table")); });
  CHECK(temperature == std::vector<std::string>{"temperature: the file has 2, now 4"});
}

TEST_CASE("resume: the optimiser's state is a tensor for each weight, as PyTorch has it", "[train][resume]") {
  device cpu(1);
  const auto set = quadrants(32, 4);
  const folder dir;
  using odd = kd::network<OddNet, device>;
  odd net(cpu, 1);
  const kd::train::options settings{.epochs = 1, .batch_size = 32, .checkpoint = dir / "state"};
  kd::train::trainer<odd, kd::cross_entropy, kd::optim::adamw> run(net, set, {}, {.weight_decay = 0.1}, settings);
  run.run_epoch();
  kd::train::save_state(run, dir / "state");
  const auto file = kd::io::safetensors_file::open(dir / "state");
  const kd::io::tensor_info* moment = file.find("optimizer.0.0.weight");
  REQUIRE(moment != nullptr);
  CHECK(moment->shape == std::vector<std::uint64_t>{5, 3, 3, 3});
  // After one step from zero the first moment is a tenth of the gradient.
  std::vector<float> first(5 * 27), tenth = net.read_gradient(odd::plan::tensors[0]);
  for (float& g : tenth) g *= 0.1f;
  file.read("optimizer.0.0.weight", moment->shape, first);
  CHECK(near(first, tenth, {.absolute = 1e-6}));
  for (const char* name : {"optimizer.0.4.bias", "optimizer.1.0.bias", "optimizer.1.1.weight"})
    CHECK(file.find(name) != nullptr);
  CHECK(file.find("optimizer.0.1.running_mean") == nullptr);

  // What lies between two tensors is 0 after a step and after a load.
  odd rest(cpu, 2);
  kd::train::trainer<odd, kd::cross_entropy, kd::optim::adamw> more(rest, set, {}, {.weight_decay = 0.1}, settings);
  kd::train::load_state(more, dir / "state");
  CHECK(equal_weights(net, rest));
  CHECK(std::equal(run.state(0), run.state(0) + odd::parameter_floats, more.state(0)));
  CHECK(std::equal(run.state(1), run.state(1) + odd::parameter_floats, more.state(1)));
  more.run_epoch();
  std::vector<char> of_a_tensor(odd::parameter_floats);
  for (const nn::tensor_info& t : odd::plan::tensors)
    for (std::size_t i = 0; t.spec.trainable && i < t.spec.size(); ++i) of_a_tensor[t.offset + i] = 1;
  REQUIRE(std::count(of_a_tensor.begin(), of_a_tensor.end(), 0) == 10);  // 135, 5, 5 and 5 floats are filled up
  for (std::size_t i = 0; i < of_a_tensor.size(); ++i)
    if (of_a_tensor[i] == 0)
      for (const float* buffer : {std::as_const(rest).parameters(), std::as_const(more).state(0)})
        REQUIRE(buffer[i] == 0.0f);
}

TEST_CASE("resume: a state of an earlier kd is refused with what to do, its weights are read",
          "[train][resume][errors]") {
  // As it was written before states had a version: one flat array for each moment, a recipe without data.
  device cpu(1);
  const auto set = quadrants(32, 4);
  const folder dir;
  const std::string path = dir / "old";
  tiny net(cpu, 1), rest(cpu, 2);
  {
    kd::io::safetensors_writer file;
    file.metadata("kd.recipe", "{\"loss\":\"cross_entropy\",\"optimiser\":\"adam\",\"learning_rate\":0.001}");
    file.metadata("kd.history", "[]");
    kd::train::add_weights(file, net);
    const std::vector<float> flat(net.parameter_count);
    file.add("optimizer.0", {flat.size()}, flat);
    file.add("optimizer.1", {flat.size()}, flat);
    file.write(path);
  }
  const std::string before = bytes_of(path);
  const std::string message = message_of<kd::file_error>(
      [&] { kd::train::fit(rest, set, kd::optim::adam{}, {.epochs = 1, .batch_size = 32, .checkpoint = path}); });
  INFO(message);
  CHECK(holds(message, path, "version 1", "reads version 2", "the kd that began it", "delete the file"));
  CHECK(bytes_of(path) == before);
  CHECK_FALSE(equal_weights(net, rest));
  // The same layout in a weight file, which never had a version.
  kd::train::save_weights(net, dir / "weights");
  kd::train::load_weights(rest, dir / "weights");
  CHECK(equal_weights(net, rest));
}

TEST_CASE("resume: states from before losses had a list of terms go on", "[train][resume]") {
  // golden/state_2_*: one epoch of OtherNet on quadrants(32, 4), written when every epoch had the same three terms, two
  // of them as "ce" and "soft_ce".
  device cpu(1);
  const auto set = quadrants(32, 4);
  const folder dir;
  kd::tensor<float, 2> logits({32, 4});
  for (std::size_t i = 0; i < 32; ++i) logits(i, static_cast<std::size_t>(set.train.labels[i])) = 3;
  using network = kd::network<OtherNet, device>;
  const auto resumed = [&](const std::string& name, const auto& train) {
    std::filesystem::copy_file(kd::text(KD_TEST_DATA, "/", name, ".safetensors"), dir / name);
    network net(cpu, 7);
    const auto history =
        train(net, kd::train::options{.epochs = 2, .batch_size = 16, .seed = 3, .checkpoint = dir / name});
    REQUIRE(history.size() == 2);
    // Read back and written anew, it is the same list.
    const auto file = kd::io::safetensors_file::open(dir / name);
    const kd::io::json epochs = kd::io::json::parse(*file.find_metadata("kd.history"));
    for (std::size_t e = 0; e < 2; ++e) {
      const auto again = kd::train::epoch_from_json(epochs.items()[e]);
      CHECK(kd::train::to_json(again).dump() == kd::train::to_json(history[e]).dump());
      CHECK(again.terms.size() == history[1].terms.size());
    }
    return history;
  };
  const auto alone = resumed("state_2_cross_entropy", [&](network& net, const kd::train::options& settings) {
    return kd::train::fit(net, set, kd::optim::adam{}, settings);
  });
  REQUIRE(alone[0].terms.size() == 1);
  CHECK(alone[0]["cross_entropy"] == 2.141254486166872);
  const auto distilled = resumed("state_2_distillation", [&](network& net, const kd::train::options& settings) {
    return kd::train::distil(net, logits, set, {.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.25f},
                             kd::optim::adam{}, settings);
  });
  CHECK(distilled[0]["cross_entropy"] == 2.1397545522777364);
  CHECK(distilled[0]["kd"] == 1.771037898492068);
  CHECK(distilled[0]["soft_cross_entropy"] == 13.185751281213015);
  CHECK(distilled[1].loss < distilled[0].loss);
}

TEST_CASE("resume: the terms of any loss come back from a state by name and in their order", "[train][resume]") {
  const kd::train::epoch_record record{.epoch = 3,
                                       .loss = 0.1,
                                       .terms = {{"b", 1e-300}, {"a", 2.0 / 3}, {"cross_entropy", 0}, {"ce", 4}},
                                       .teacher_agreement = 0.5,
                                       .accuracy = 0.25,
                                       .learning_rate = 1e-3,
                                       .seconds = 9};
  const auto back = kd::train::epoch_from_json(kd::io::json::parse(kd::train::to_json(record).dump()));
  REQUIRE(back.terms.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(back.terms[i].name == record.terms[i].name);
    CHECK(back.terms[i].value == record.terms[i].value);
  }
  CHECK(back.epoch == 3);
  CHECK(back.loss == 0.1);
  CHECK(back.teacher_agreement == 0.5);
  CHECK(back.accuracy == 0.25);
  CHECK(back.learning_rate == 1e-3);
  CHECK(back.seconds == 9.0);
}

TEST_CASE("resume: a recipe has every option of the loss, those that came later where they are no default",
          "[train][resume]") {
  const auto members = [](const auto& loss) {
    const kd::io::json recipe = kd::train::recipe<TinyNet>(loss, kd::optim::adam{}, {}, {});
    std::string names;
    bool of_loss = false;
    for (const std::string& name : recipe.names()) {
      of_loss = (of_loss || name == "loss") && name != "optimiser";
      if (of_loss) names += name + " ";
    }
    return names;
  };
  CHECK(members(kd::cross_entropy{}) == "loss ");
  CHECK(members(kd::distillation{}) == "loss temperature kd_weight ce_weight ");
  CHECK(members(kd::distillation{.teacher_temperature = 3, .times_temperature_squared = false}) ==
        "loss temperature kd_weight ce_weight teacher_temperature times_temperature_squared ");
  using reverse = kd::distillation_with<kd::formula::reverse_kl>;
  const auto recipe = [](const auto& loss) { return kd::train::recipe<TinyNet>(loss, kd::optim::adam{}, {}, {}); };
  CHECK(kd::train::recipe_differences(recipe(kd::distillation{}), recipe(reverse{.teacher_temperature = 3})) ==
        std::vector<std::string>{"loss: the file has \"distillation\", now \"reverse_kl\"",
                                 "teacher_temperature: the file has null, now 3"});
}

TEST_CASE("resume: weights alone and damage are refused, and the run stays as it was", "[train][resume][errors]") {
  begun_run begun;
  auto& [cpu, set, dir, file, settings] = begun;
  tiny net(cpu, 5);
  const tiny untouched(cpu, 5);
  kd::train::save_weights(net, dir / "weights");
  auto weights = settings;
  weights.checkpoint = dir / "weights";
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, weights); }),
              "no training state"));
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, settings); }), file));
  CHECK(equal_weights(net, untouched));
}
