/// What the example programs have in common: threads, and the messages for bad input.
#include "examples/programs.hpp"

#include <kd/kd.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

using namespace kd_test;

TEST_CASE("programs: as many threads as OMP_NUM_THREADS and the processors allow", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 10);
  const std::string arguments = "\"$report\" --device cpu --epochs 1 --only SimpleNN-undistilled --data '" +
                                dir / "data" + "' --out '" + dir / "out" + "'";
  CHECK(holds(shell("OMP_NUM_THREADS=1 " + arguments).text, ", 1 threads"));
  CHECK(holds(shell("OMP_NUM_THREADS=1 " + arguments + " --threads 3").text, ", 3 threads"));
  if (std::system("command -v taskset > /dev/null") == 0)
    CHECK(holds(shell("taskset -c \"$(taskset -pc $$ | sed 's/.*[^0-9]\\([0-9]*\\)$/\\1/')\" " + arguments).text,
                ", 1 threads"));
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
  std::ofstream(dir / "protected") << "x";
  std::filesystem::permissions(dir / "protected", std::filesystem::perms::owner_read);
  std::filesystem::create_directory(dir / "python");
  std::ofstream(dir / "python/data_batch_1") << "x";
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
      {"report",
       out + data + "--device cpu --threads 200000",
       1,
       {"threads must be at most 1024", "received 200000", "--threads"}},
      {"report", "--out '' --epochs 1 " + data, 2, {"--out", "empty"}},
      {"report",
       "--data '" + dir / "nowhere" + "' --out '" + dir / "file" + "'",  // before the data is looked for
       1,
       {dir / "file: cannot make the folder: ", "is a file, not a folder"}},
      {"report", data + "--out /proc/kd", 1, {"/proc/kd: cannot make the folder: ", "; "}},
      {"report", out + data + "--learning-rate nan", 1, {"learning_rate"}},
      {"report", data + "--epochs 0", 2, {"--epochs"}},
      {"report", data + "--only LightNet", 2, {"LightNet", "LightNN-T1.01", "LightNN-undistilled"}},
      {"report", data + "--only 'LightNN-T1.5, '", 2, {"there is no run \"\""}},
      {"report", data + "--device tpu", 2, {"--device", "tpu"}},
      {"report", data + "--precision fp16", 2, {"--precision", "fp16"}},
      {"report", out + data + "--device cpu --precision bf16", 1, {"fp32", "received bf16", "--device cuda"}},
      {"report", "--no-such-flag", 2, {"--no-such-flag"}},
      {"report", out + "--download", 1, {"--data DIR"}},
      {"report",
       out + "--download --download-url file:///nowhere/archive.tar.gz --data '" + dir / "fresh" + "'",
       1,
       {"archive.tar.gz"}},
      {"report", out + "--data '" + dir / "python" + "'", 1, {"data_batch_1.bin", "the Python version of CIFAR-10"}},
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
      {"evaluate",
       data + "--model LightNN --weights '" + dir / "light.safetensors" + "' --logits '" + dir / "protected" + "'",
       1,
       {dir / "protected: cannot write: it is write-protected"}},
      {"evaluate", data + "--threads 0 --model LightNN --weights '" + dir / "light.safetensors" + "'", 1, {"threads"}},
  };
  for (const bad& one : all) {
    const outcome result = run(one.program, one.arguments);
    INFO(one.program << " " << one.arguments << "\n" << result.text);
    CHECK(result.code == one.code);
    for (const std::string& part : one.parts) CHECK(holds(result.text, part));
    CHECK_FALSE(holds(result.text, "top-1"));  // said before the work, not after it
  }
  CHECK_FALSE(std::filesystem::exists(dir / "fresh/cifar-10-batches-bin"));
}
