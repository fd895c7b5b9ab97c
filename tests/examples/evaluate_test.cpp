/// evaluate as a person runs it.
#include "examples/programs.hpp"

#include <kd/kd.hpp>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

using namespace kd_test;

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

TEST_CASE("evaluate: the numbers of the confusion stand below each other, whatever letters the classes have",
          "[examples]") {
  const folder dir;
  write_cifar10(dir / "data", 10);
  std::ofstream(dir / "data/batches.meta.txt") << "飛行機\nvéhicule\n鳥\ncat\ndeer\ndog\na frog of the woods\nhorse\n"
                                                  "größtes Schiff\ntruck\n";
  const outcome result = run("evaluate", kd::text("--model SimpleNN --weights ", KD_TEST_DATA,
                                                  "/simple_nn_state_dict.safetensors --data '", dir / "data", "'"));
  INFO(result.text);
  REQUIRE(result.code == 0);
  std::istringstream lines(result.text);
  std::vector<std::size_t> widths;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("  ")) widths.push_back(kd::train::display_width(line));
  CHECK(widths == std::vector<std::size_t>(10, widths.at(0)));
}
