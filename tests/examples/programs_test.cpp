/// The example programs as a person runs them: results, restarts, and bad input.
#include <kd/kd.hpp>

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using kd_test::folder;
using kd_test::holds;

namespace {

struct outcome {
  int code = -1;
  std::string text;  // both streams
};

outcome run(const std::string& program, const std::string& arguments) {
  outcome result;
  const std::string command = kd::text("env -u KD_DATA ", KD_EXAMPLES, "/", program, " ", arguments, " 2>&1");
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.text.append(buffer, n);
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

/// A CIFAR-10 folder of a few images; the class shows in the brightness.
void write_cifar10(const std::string& dir, std::size_t per_file, int bad_label = -1) {
  std::filesystem::create_directories(dir);
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                           "data_batch_5.bin", "test_batch.bin"}) {
    std::ofstream file(dir + "/" + name, std::ios::binary);
    for (std::size_t n = 0; n < per_file; ++n) {
      const int label = bad_label >= 0 && n == 3 ? bad_label : static_cast<int>(n % 10);
      file.put(static_cast<char>(label));
      for (std::uint32_t e = 0; e < 3072; ++e) {
        const auto word = kd::random_at(1, kd::random_stream::synthetic_data, e, static_cast<std::uint32_t>(n))[0];
        file.put(static_cast<char>(static_cast<unsigned char>(label * 20 + static_cast<int>(word >> 26))));
      }
    }
  }
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("report: nine runs, tables, figure and results.json; a second start does nothing twice", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 40);
  const std::string arguments = "--data '" + dir / "data" + "' --out '" + dir / "out dir" + "' --epochs 2";
  const outcome first = run("report", arguments);
  INFO(first.text);
  REQUIRE(first.code == 0);
  CHECK(holds(first.text, "Table 1", "Table 2", "Table 3", "ResNet18", "80.30, 0.1078", "T = 1.01", "NaN",
              "LightNN distilled"));
  const std::string file = dir / "out dir/results.json";
  const kd::io::json root = kd::io::json::parse(kd::io::read_file(file));
  CHECK(root.at("epochs").as_integer() == 2);
  CHECK(root.at("dataset").as_string() == "CIFAR-10");
  CHECK(root.at("device").as_string() == "cpu");
  REQUIRE(root.at("runs").size() == 9);
  for (const kd::io::json& r : root.at("runs").items()) {
    CHECK(r.at("curve").size() == 2);
    CHECK(r.at("curve").items()[1].at("epoch").as_integer() == 2);
    CHECK(r.at("final_loss").as_number() == r.at("curve").items()[1].at("loss").as_number());
    CHECK(r.at("temperature").is_null() != (r.find("distilled")->as_bool()));
    CHECK(r.at("kd_weight").is_null() != (r.find("distilled")->as_bool()));
    CHECK(r.at("seconds").as_number() > 0);
  }
  CHECK(root.at("runs").items()[0].at("parameters").as_integer() == 11'181'642);
  if (std::system("command -v gnuplot > /dev/null") == 0) {
    CHECK(bytes_of(dir / "out dir/figure1.png").starts_with("\x89PNG"));
    CHECK(holds(bytes_of(dir / "out dir/figure1.svg"), "<svg", "LightNN distilled, T 1.01, KD 0.25"));
  }
  const std::string before = bytes_of(file);
  const outcome second = run("report", arguments);
  CHECK(second.code == 0);
  CHECK(bytes_of(file) == before);
  CHECK_FALSE(holds(second.text, "epoch 1/2"));
  CHECK(root.at("runs").items()[0].at("teacher_agreement").is_null());
  CHECK(root.at("runs").items()[2].at("teacher_agreement").as_number() >= 0);

  // The accuracy of the saved weights is the one in the results, and the logits have the test set's rows.
  const outcome evaluated =
      run("evaluate", "--model SimpleNN --weights '" + dir / "out dir/weights/SimpleNN-seed0.safetensors" +
                          "' --data '" + dir / "data" + "' --logits '" + dir / "logits" + "'");
  INFO(evaluated.text);
  REQUIRE(evaluated.code == 0);
  const kd::io::json& simple = root.at("runs").items()[3];
  CHECK(simple.at("name").as_string() == "SimpleNN");
  char accuracy[32];
  std::snprintf(accuracy, sizeof accuracy, "top-1 %.2f %%", simple.at("test_accuracy").as_number());
  CHECK(holds(evaluated.text, accuracy, "top-5", "confusion"));
  const auto logits = kd::io::safetensors_file::open(dir / "logits");
  REQUIRE(logits.list().size() == 1);
  CHECK(logits.at("logits", std::vector<std::uint64_t>{40, 10}).dtype == "F32");

  const outcome other = run("report", "--data '" + dir / "data" + "' --out '" + dir / "out dir" + "' --epochs 3");
  CHECK(other.code == 1);
  CHECK(holds(other.text, "results.json", "epochs 2", "asked for 3", "another --out"));
}

TEST_CASE("report: killed at any moment and started again, it ends with the same weights", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 200);
  const std::string common = "--only SimpleNN-undistilled --epochs 12 --data '" + dir / "data" + "' --out ";
  REQUIRE(run("report", common + "'" + dir / "whole" + "'").code == 0);
  int kills = 0;
  for (; kills < 200; ++kills) {
    const std::string command = kd::text("env -u KD_DATA timeout -s KILL ", 0.05 + 0.02 * kills, " ", KD_EXAMPLES,
                                         "/report ", common, "'", dir / "cut", "' > /dev/null 2>&1");
    if (std::system(command.c_str()) == 0) break;
  }
  CHECK(kills > 0);
  const std::string weights = bytes_of(dir / "whole/weights/SimpleNN-seed0.safetensors");
  CHECK(weights.size() > 100'000);
  CHECK(weights == bytes_of(dir / "cut/weights/SimpleNN-seed0.safetensors"));
}

TEST_CASE("evaluate: a state dict that PyTorch saved", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 20);
  const outcome result = run("evaluate", kd::text("--model SimpleNN --weights ", KD_TEST_DATA,
                                                  "/simple_nn_state_dict.safetensors --data '", dir / "data", "'"));
  INFO(result.text);
  CHECK(result.code == 0);
  CHECK(holds(result.text, "20 test images"));
}

TEST_CASE("programs: bad input gets a message with name, value and remedy, and an exit code", "[examples][errors]") {
  const folder dir;
  write_cifar10(dir / "data", 20);
  write_cifar10(dir / "label", 20, 10);
  write_cifar10(dir / "cut", 20);
  std::filesystem::resize_file(dir / "cut/data_batch_3.bin", 5000);
  write_cifar10(dir / "missing", 20);
  std::filesystem::remove(dir / "missing/test_batch.bin");
  std::ofstream(dir / "file") << "x";
  std::ofstream(dir / "empty.safetensors");
  kd::cpu::device cpu(1);
  kd::train::save_weights(kd::network<kd::models::LightNN, kd::cpu::device>(cpu, 1), dir / "light.safetensors");
  std::filesystem::copy_file(dir / "light.safetensors", dir / "half.safetensors");
  std::filesystem::resize_file(dir / "half.safetensors", 1000);
  const std::string data = "--data '" + dir / "data" + "' ",
                    out = "--out '" + dir / "out" + "' --epochs 1 --only SimpleNN-undistilled ";

  struct bad {
    std::string program, arguments;
    int code;
    std::vector<std::string> parts;
  };
  const std::vector<bad> all{
      {"report", out + "--data '" + dir / "nowhere" + "'", 1, {dir / "nowhere"}},
      {"report", out + "--data '" + dir / "missing" + "'", 1, {"test_batch.bin"}},
      {"report", out + "--data '" + dir / "cut" + "'", 1, {"data_batch_3.bin", "5000"}},
      {"report", out + "--data '" + dir / "label" + "'", 1, {"data_batch_1.bin", "10"}},
      {"report", data + "--epochs 1 --only SimpleNN --out '" + dir / "file/out" + "'", 1, {"file/out"}},
      {"report", out + data + "--device cpu --threads 0", 1, {"threads must be at least 1", "received 0", "--threads"}},
      {"report", out + data + "--device cpu --threads -3", 1, {"threads must be at least 1", "received -3"}},
      {"report", out + data + "--learning-rate nan", 1, {"learning_rate"}},
      {"report", data + "--epochs 0", 2, {"--epochs"}},
      {"report", data + "--only LightNet", 2, {"LightNet", "LightNN-T1.01"}},
      {"report", data + "--device tpu", 2, {"--device", "tpu"}},
      {"report", data + "--precision fp16", 2, {"--precision", "fp16"}},
      {"report", out + data + "--device cpu --precision bf16", 1, {"fp32", "received bf16", "--device cuda"}},
      {"report", "--no-such-flag", 2, {"--no-such-flag"}},
      {"report", out + "--download", 1, {"--data DIR"}},
      {"report",
       out + "--download --download-url file:///nowhere/archive.tar.gz --data '" + dir / "fresh" + "'",
       1,
       {"archive.tar.gz"}},
      {"evaluate", "", 2, {"--model"}},
      {"evaluate", data + "--model AlexNet --weights x", 2, {"AlexNet"}},
      {"evaluate", data + "--model LightNN --weights '" + dir / "none.safetensors" + "'", 1, {"none.safetensors"}},
      {"evaluate",
       data + "--model LightNN --weights '" + dir / "empty.safetensors" + "'",
       1,
       {"empty.safetensors", "8 bytes"}},
      {"evaluate", data + "--model LightNN --weights '" + dir / "half.safetensors" + "'", 1, {"half.safetensors"}},
      {"evaluate",
       data + "--model SimpleNN --weights '" + dir / "light.safetensors" + "'",
       1,
       {"features.0.weight", "[16,3,3,3]", "[8,3,3,3]"}},
      {"evaluate",
       data + "--model ResNet18 --weights '" + dir / "light.safetensors" + "'",
       1,
       {"light.safetensors", "conv1.weight"}},
      {"evaluate",
       data + "--model LightNN --weights '" + dir / "light.safetensors" + "' --logits '" + dir / "file/l" + "'",
       1,
       {"file/l"}},
      {"evaluate",
       data + "--model LightNN --normalisation cifar10 --weights '" + dir / "light.safetensors" + "'",
       1,
       {"light.safetensors", "mean [0.485,0.456,0.406]", "was given mean [0.4914,0.4822,0.4465]"}},
      {"evaluate", data + "--threads 0 --model LightNN --weights '" + dir / "light.safetensors" + "'", 1, {"threads"}},
  };
  for (const bad& one : all) {
    const outcome result = run(one.program, one.arguments);
    INFO(one.program << " " << one.arguments << "\n" << result.text);
    CHECK(result.code == one.code);
    for (const std::string& part : one.parts) CHECK(holds(result.text, part));
  }
  CHECK_FALSE(std::filesystem::exists(dir / "fresh/cifar-10-batches-bin"));
}
