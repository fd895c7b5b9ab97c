/// report started again on a folder that holds something.
#include "examples/programs.hpp"

#include <kd/kd.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

using namespace kd_test;

TEST_CASE("report: results of other settings or data are refused, each difference named, until --restart",
          "[examples][resume]") {
  const folder dir;
  write_cifar10(dir / "data", 20);
  write_cifar10(dir / "fewer", 10);
  write_cifar10(dir / "other", 20);
  {
    std::fstream one(dir / "other/test_batch.bin", std::ios::in | std::ios::out | std::ios::binary);
    one.seekp(100);
    one.put('\1');
  }
  const std::string begin = "--device cpu --only SimpleNN-undistilled --out '" + dir / "out" + "' ";
  const std::string data = "--data '" + dir / "data" + "' ";
  const outcome first = run("report", begin + data + "--epochs 1");
  INFO(first.text);
  REQUIRE(first.code == 0);
  const std::string file = dir / "out/results.json", before = bytes_of(file);

  struct change {
    std::string arguments;
    std::vector<std::string> lines;
  };
  const std::vector<change> all{
      {data + "--epochs 1 --learning-rate 0.1 --batch-size 32 --normalisation cifar10 --augment",
       {"learning_rate: the file has 0.001, now 0.1", "batch_size: the file has 128, now 32",
        "pixels: the file has [0.485,", "crop_padding: the file has 0, now 4", "flip: the file has false, now true"}},
      {data + "--epochs 2", {"epochs: the file has 1, now 2"}},
      {"--data '" + dir / "fewer" + "' --epochs 1",
       {"samples: the file has 100, now 50", "images: the file has \"", "labels: the file has \"",
        "test_samples: the file has 20, now 10"}},
      {"--data '" + dir / "other" + "' --epochs 1", {"test_images: the file has \""}},
  };
  for (const change& one : all) {
    const outcome refused = run("report", begin + one.arguments);
    INFO(one.arguments << "\n" << refused.text);
    CHECK(refused.code == 1);
    CHECK(holds(refused.text, file, "SimpleNN-seed0", "--restart", "another --out"));
    for (const std::string& line : one.lines) CHECK(holds(refused.text, "\n  " + line));
    CHECK_FALSE(holds(refused.text, "Table 1"));
    CHECK(bytes_of(file) == before);
  }
  // Another run does not stand beside it in a table; its own settings bring it back.
  const outcome beside =
      run("report", "--device cpu --only LightNN-undistilled --learning-rate 0.01 --epochs 1 --out '" + dir / "out" +
                        "' " + data);
  INFO(beside.text);
  CHECK(beside.code == 0);
  CHECK(holds(beside.text, "left out", "SimpleNN-seed0", "learning_rate: the file has 0.001, now 0.01"));
  CHECK(holds(tables_of(beside.text), "LightNN"));
  CHECK_FALSE(holds(tables_of(beside.text), "SimpleNN"));
  const outcome back = run("report", begin + data + "--epochs 1");
  CHECK(back.code == 0);
  CHECK(tables_of(back.text) == tables_of(first.text));

  const outcome anew = run("report", begin + data + "--epochs 1 --learning-rate 0.01 --restart");
  INFO(anew.text);
  CHECK(anew.code == 0);
  CHECK(holds(anew.text, "epoch 1/1"));
  CHECK(holds(tables_of(anew.text), "LightNN", "SimpleNN"));
  CHECK(kd::io::json::parse(kd::io::read_file(file)).at("runs").size() == 2);
}

TEST_CASE("report: a stopped run of other settings, and results and states of an earlier kd, are refused",
          "[examples][resume]") {
  const folder dir;
  write_cifar10(dir / "data", 20);
  const std::string common =
      "--device cpu --epochs 1 --only SimpleNN-undistilled --data '" + dir / "data" + "' --out '" + dir / "out" + "' ";
  REQUIRE(run("report", common).code == 0);
  const std::string results = dir / "out/results.json", state = dir / "out/state/SimpleNN-seed0.safetensors";
  // As it stood in the middle of a run: no result, but a state.
  std::filesystem::remove(results);
  {
    kd::cpu::device cpu(1);
    const kd::data::dataset set = kd::data::open({.folder = dir / "data"});
    kd::network<kd::models::SimpleNN, kd::cpu::device> net(cpu, 0);
    kd::train::fit(net, set, kd::optim::adam{}, {.epochs = 1, .checkpoint = state});
  }
  const std::string before = bytes_of(state);
  const outcome refused = run("report", common + "--learning-rate 0.01");
  INFO(refused.text);
  CHECK(refused.code == 1);
  CHECK(holds(refused.text, state, "learning_rate: the file has 0.001, now 0.01", "--restart"));
  CHECK(bytes_of(state) == before);
  CHECK(run("report", common + "--learning-rate 0.01 --restart").code == 0);

  std::ofstream(results) << R"({"dataset": "CIFAR-10", "device": "cpu", "epochs": 1, "kd_version": "0.1", "runs": [
    {"id": "SimpleNN", "name": "SimpleNN", "distilled": false, "temperature": null, "kd_weight": null, "seed": 0,
     "parameters": 34290, "final_loss": 2.5, "test_accuracy": 10, "teacher_agreement": null, "seconds": 1,
     "curve": []}]})";
  const outcome old = run("report", common);
  INFO(old.text);
  CHECK(old.code == 1);
  CHECK(holds(old.text, results, "SimpleNN-seed0", "an earlier kd", "--restart"));
  CHECK(run("report", common + "--restart").code == 0);
}

TEST_CASE("report: a teacher's weights are needed by its students alone, and must be its own", "[examples][resume]") {
  const folder dir;
  write_cifar10(dir / "data", 4);
  const std::string common =
      "--device cpu --epochs 1 --data '" + dir / "data" + "' --out '" + dir / "out" + "' --only ";
  REQUIRE(run("report", common + "ResNet18,SimpleNN-distilled").code == 0);
  const std::string weights = dir / "out/weights/ResNet18-seed0.safetensors";
  std::filesystem::rename(weights, dir / "kept");

  const outcome alone = run("report", common + "SimpleNN-undistilled");
  INFO(alone.text);
  CHECK(alone.code == 0);
  CHECK(holds(alone.text, "without agreement", weights, "missing"));
  const outcome student = run("report", common + "LightNN-distilled");
  INFO(student.text);
  CHECK(student.code == 1);
  CHECK(holds(student.text, weights, "missing", "restore it", "--only ResNet18 --restart"));
  // What needs no teacher any more is still shown.
  CHECK(run("report", common + "SimpleNN-distilled").code == 0);

  {
    kd::cpu::device cpu(1);
    kd::train::save_weights(kd::network<kd::models::ResNet18, kd::cpu::device>(cpu, 9), weights);
  }
  const outcome foreign = run("report", common + "LightNN-distilled");
  INFO(foreign.text);
  CHECK(foreign.code == 1);
  CHECK(holds(foreign.text, weights, "not the weights", "--only ResNet18 --restart"));

  // Another teacher: what the old one taught is refused, and does not stand beside it.
  const outcome anew = run("report", common + "ResNet18 --restart --batch-size 10");
  INFO(anew.text);
  CHECK(anew.code == 0);
  CHECK(holds(anew.text, "left out", "SimpleNN-distilled-seed0", "batch_size: the file has 128, now 10"));
  const outcome taught = run("report", common + "SimpleNN-distilled");
  INFO(taught.text);
  CHECK(taught.code == 1);
  CHECK(holds(taught.text, "SimpleNN-distilled-seed0\n  teacher: the file has \"network "));
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
