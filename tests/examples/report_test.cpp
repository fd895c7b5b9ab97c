/// report as a person runs it: results, figure, data, two at once.
#include "examples/programs.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kd/io/file.hpp"
#include "kd/io/json.hpp"
#include "kd/io/safetensors.hpp"

using namespace kd_test;

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
  CHECK(root.at("version").as_integer() == 2);
  REQUIRE(root.at("runs").size() == 9);
  for (const kd::io::json& r : root.at("runs").items()) {
    CHECK(r.at("curve").size() == 2);
    CHECK(r.at("curve").items()[1].at("epoch").as_integer() == 2);
    CHECK(r.at("final_loss").as_number() == r.at("curve").items()[1].at("loss").as_number());
    CHECK(r.at("temperature").is_null() != (r.find("distilled")->as_bool()));
    CHECK(r.at("kd_weight").is_null() != (r.find("distilled")->as_bool()));
    CHECK(r.at("seconds").as_number() > 0);
    CHECK(r.at("made_with").at("device").as_string() == "cpu");
    CHECK(r.at("recipe").at("epochs").as_integer() == 2);
    CHECK(r.at("recipe").at("dataset").as_string() == "CIFAR-10");
    CHECK((r.at("recipe").at("teacher").as_string() == root.at("runs").items()[0].at("weights").as_string()) ==
          r.at("distilled").as_bool());
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
  CHECK(tables_of(second.text) == tables_of(first.text));
  CHECK(root.at("runs").items()[0].at("teacher_agreement").is_null());
  CHECK(root.at("runs").items()[2].at("teacher_agreement").as_number() >= 0);
  CHECK(root.at("runs").items()[2].at("non_finite").as_integer() == 0);

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
  CHECK(holds(other.text, "results.json", "ResNet18-seed0, LightNN-seed0", "\n  epochs: the file has 2, now 3\n",
              "another --out", "--restart"));
  CHECK(bytes_of(file) == before);
}

TEST_CASE("report: distils by any divergence with its options, and keeps its name and terms", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 40);
  const std::string arguments =
      "--data '" + dir / "data" + "' --out '" + dir / "out" + "' --epochs 1 --only LightNN-distilled";
  const outcome first = run("report", arguments + " --loss jensen_shannon --beta 0.25 --warm-up 4");
  INFO(first.text);
  REQUIRE(first.code == 0);
  const kd::io::json root = kd::io::json::parse(kd::io::read_file(dir / "out/results.json"));
  const kd::io::json& r = root.at("runs").items()[1];
  CHECK(r.at("recipe").at("loss").as_string() == "jensen_shannon");
  CHECK(r.at("recipe").at("divergence.beta").as_number() == 0.25);
  CHECK(r.at("recipe").at("ramps").as_string() == "kd_weight from 0 over 4 epochs");
  CHECK(r.at("curve").items()[0].at("jensen_shannon").as_number() > 0);
  CHECK(holds(first.text, "minimise jensen_shannon"));
  const outcome other = run("report", arguments + " --loss reverse_kl");
  CHECK(other.code == 1);
  CHECK(holds(other.text, "jensen_shannon", "reverse_kl", "--restart"));
  CHECK(holds(run("report", arguments + " --loss kl").text, "--loss: kl not in", "forward_kl,reverse_kl"));
  CHECK(holds(run("report", arguments + " --loss reverse_kl --beta 0.5").text, "reverse_kl has no option --beta"));
  CHECK(holds(run("report", arguments + " --loss jensen_shannon --beta 2").text, "beta must be a number in [0,1]"));
}

TEST_CASE("report: a second process on one folder is refused, with the first one's name", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 40);
  const std::string common = "--data '" + dir / "data" + "' --out '" + dir / "out" + "' --device cpu --only ";
  const outcome second = shell("\"$report\" " + common + "SimpleNN-undistilled --epochs 1000000 > '" + dir / "first" +
                               "' 2>&1 & first=$!; " + "for n in $(seq 1000); do [ -s '" + dir / "out/lock" +
                               "' ] && break; sleep 0.01; done; " +                                     //
                               "\"$report\" " + common + "LightNN-undistilled --epochs 1; code=$?; " +  //
                               "echo \"the first was $first\"; kill -KILL $first; wait $first; exit $code");
  INFO(second.text);
  CHECK(second.code == 1);
  const std::string number = second.text.substr(second.text.find("the first was ") + 14);
  CHECK(holds(second.text,
              "report: " + dir / "out" + ": is in use by process " + number.substr(0, number.find('\n')) + " on ",
              "SimpleNN-undistilled", "give another --out"));
  CHECK_FALSE(holds(second.text, "training and test"));  // said before the data is loaded
  // The lock of the killed one is free.
  const outcome third = run("report", common + "LightNN-undistilled --epochs 1");
  INFO(third.text);
  CHECK(third.code == 0);
  CHECK_FALSE(std::filesystem::exists(dir / "out/lock"));
}

TEST_CASE("report: the figure is drawn into the folder, whatever it is called and CDPATH says", "[examples]") {
  if (std::system("command -v gnuplot > /dev/null") != 0) {
    WARN("there is no gnuplot: figures are not checked");
    return;
  }
  const folder dir;
  write_cifar10(dir / "data", 10);
  const std::string common = "--data '" + dir / "data" + "' --device cpu --epochs 1 --only SimpleNN-undistilled --out=";
  std::filesystem::create_directories(dir / "elsewhere/out");
  for (const std::string name : {"out", "-dash", "--", "a 'quoted' $name"}) {
    std::string quoted;
    for (const char c : name) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    const outcome result = shell("cd '" + dir.path().string() + "' && export CDPATH='" + dir / "elsewhere" +
                                 "' && \"$report\" " + common + "'" + quoted + "'");
    INFO(result.text);
    CHECK(result.code == 0);
    CHECK(bytes_of(dir / (name + "/figure1.png")).starts_with("\x89PNG"));
    CHECK(holds(result.text, "figure: " + name + "/figure1.png"));
  }
  CHECK(std::filesystem::is_empty(dir / "elsewhere/out"));
}

TEST_CASE("report: --download fetches nothing where the set is there", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data/cifar-10-batches-bin", 10);
  std::filesystem::create_directory(dir / "bin");
  std::ofstream(dir / "bin/curl") << "#!/bin/sh\necho curl was called >&2\nexit 6\n";
  std::filesystem::permissions(dir / "bin/curl", std::filesystem::perms::owner_all);
  const std::string command = "PATH='" + dir / "bin" +
                              "':$PATH \"$report\" --download --device cpu --epochs 1 --only " +
                              "'SimpleNN-undistilled , LightNN-undistilled' --out '" + dir / "out" + "' --data ";
  const outcome there = shell(command + "'" + dir / "data" + "'");
  INFO(there.text);
  CHECK(there.code == 0);
  CHECK_FALSE(holds(there.text, "curl"));
  CHECK(holds(there.text, "SimpleNN-seed0: test", "LightNN-seed0: test"));
  const outcome fresh = shell(command + "'" + dir / "fresh" + "'");
  CHECK(fresh.code == 1);
  CHECK(holds(fresh.text, "curl was called", "the host name was not resolved"));
}

TEST_CASE("report: logits that are not finite are counted, again at each start, and the exit code is 1", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 10);
  // One step from a finite loss to weights whose products overflow.
  const std::string arguments = "--device cpu --epochs 1 --learning-rate 1e30 --only SimpleNN-undistilled --data '" +
                                dir / "data" + "' --out '" + dir / "out" + "'";
  for (const bool done : {false, true}) {
    const outcome result = run("report", arguments);
    INFO(result.text);
    CHECK(result.code == 1);
    CHECK(holds(result.text, "Table 1",
                "results: ", "SimpleNN-seed0: the logits of 10 of 10 test images are not finite"));
    CHECK(holds(result.text, "epoch 1/1") != done);
  }
  const kd::io::json root = kd::io::json::parse(kd::io::read_file(dir / "out/results.json"));
  CHECK(root.at("runs").items()[0].at("non_finite").as_integer() == 10);
}
