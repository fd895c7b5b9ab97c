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

/// What a shell makes of a script in which $report and $evaluate are the programs.
outcome shell(const std::string& script) {
  outcome result;
  const std::string command = kd::text("exec 2>&1; unset KD_DATA; report='", KD_EXAMPLES, "/report'; evaluate='",
                                       KD_EXAMPLES, "/evaluate'; ", script);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.text.append(buffer, n);
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

outcome run(const std::string& program, const std::string& arguments) {
  return shell(kd::text("exec \"$", program, "\" ", arguments));
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

/// What a report printed from its first table to the results' place.
std::string tables_of(const std::string& text) {
  const std::size_t begin = text.find("\nTable "), end = text.find("\nresults:");
  return begin == std::string::npos || end == std::string::npos ? "" : text.substr(begin, end - begin);
}

}  // namespace

TEST_CASE("evaluate: logits that are not finite are counted, and the exit code is 1", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 4);
  kd::cpu::device cpu(1);
  kd::network<kd::models::SimpleNN, kd::cpu::device> network(cpu, 0);
  // Finite weights, whose products overflow.
  for (std::size_t i = 0; i < network.parameter_floats; ++i) network.parameters()[i] = 3e38f;
  kd::train::save_weights(network, dir / "weights");
  const outcome result =
      run("evaluate", "--model SimpleNN --weights '" + dir / "weights" + "' --data '" + dir / "data" + "'");
  INFO(result.text);
  CHECK(result.code == 1);
  CHECK(holds(result.text, "top-1 0.00 %, top-5 0.00 %", "logits of 4 of 4 images are not finite", dir / "weights"));
}

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

TEST_CASE("evaluate: logits go through a FIFO, and to the target of a link", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 20);
  std::filesystem::create_symlink("target", dir / "link");
  const std::string command = kd::text("\"$evaluate\" --device cpu --model SimpleNN --weights ", KD_TEST_DATA,
                                       "/simple_nn_state_dict.safetensors --data '", dir / "data", "' --logits ");
  const outcome result = shell("mkfifo '" + dir / "fifo" + "'; cat '" + dir / "fifo" + "' > '" + dir / "copy" + "' & " +
                               command + "'" + dir / "fifo" + "' && wait && " + command + "'" + dir / "link" + "'");
  INFO(result.text);
  CHECK(result.code == 0);
  CHECK(std::filesystem::is_fifo(dir / "fifo"));
  CHECK(std::filesystem::is_symlink(dir / "link"));
  CHECK(kd::io::safetensors_file::open(dir / "target").list().size() == 1);
  CHECK(bytes_of(dir / "copy") == bytes_of(dir / "target"));
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

TEST_CASE("evaluate: a checkpoint of DataParallel, and one that torch.save wrote", "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 20);
  kd::cpu::device cpu(1);
  const kd::network<kd::models::LightNN, kd::cpu::device> net(cpu, 1);
  kd::io::safetensors_writer parallel;
  for (const auto& info : kd::nn::plan_of<kd::models::LightNN>::tensors)
    parallel.add(kd::text("module.", info.name.view()),
                 {info.spec.dims.begin(), info.spec.dims.begin() + static_cast<std::ptrdiff_t>(info.spec.rank)},
                 net.read(info));
  parallel.write(dir / "parallel.safetensors");
  std::ofstream(dir / "light.pth", std::ios::binary) << "PK\3\4and so on";
  const auto evaluate = [&](const std::string& arguments) {
    return run("evaluate", "--model LightNN --data '" + dir / "data" + "' --weights '" + dir / arguments);
  };
  const outcome refused = evaluate("parallel.safetensors'");
  INFO(refused.text);
  CHECK(refused.code == 1);
  CHECK(holds(refused.text, "all names begin with \"module.\"", "--strip-prefix module."));
  const outcome read = evaluate("parallel.safetensors' --strip-prefix module.");
  INFO(read.text);
  CHECK(read.code == 0);
  CHECK(holds(read.text, "20 test images", "does not say how the pixels"));
  const outcome pickle = evaluate("light.pth'");
  INFO(pickle.text);
  CHECK(pickle.code == 1);
  CHECK(holds(pickle.text, "light.pth", "torch.save", "safetensors.torch.save_file"));
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
  }
  CHECK_FALSE(std::filesystem::exists(dir / "fresh/cifar-10-batches-bin"));
}
