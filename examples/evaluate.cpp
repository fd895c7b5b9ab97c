/// Accuracy of a checkpoint, kd's or PyTorch's, on the test set.
///
///   evaluate --model ResNet18|LightNN|SimpleNN --weights FILE --data DIR [--logits OUT]
#include <kd/kd.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>

namespace {

struct settings {
  std::string model, weights, strip_prefix, data, logits, device = "auto", precision = "fp32", pixels;
  int threads = kd::cpu::parallel::available();
};

void print_confusion(const kd::data::dataset& set, const kd::tensor<std::uint32_t, 2>& confusion) {
  std::size_t width = 12;  // of the names, in columns of the terminal
  for (const std::string& name : set.class_names) width = std::max(width, kd::train::display_width(name));
  std::printf("confusion (rows: label, columns: prediction)\n");
  for (std::size_t label = 0; label < set.classes; ++label) {
    const std::string& name = set.class_names[label];
    std::printf("  %s%*s", name.c_str(), static_cast<int>(width - kd::train::display_width(name)), "");
    for (const std::uint32_t count : confusion.row(label)) std::printf(" %6u", count);
    std::printf("\n");
  }
}

/// Whether every image has a prediction.
template <class Model, class Device>
bool evaluate_model(const settings& s, const kd::data::dataset& set, Device& device) {
  std::optional<kd::io::atomic_file>
      logits_file;  // opened first: a path that cannot be written is said before the work
  if (!s.logits.empty()) logits_file.emplace(s.logits);
  std::optional<kd::normalisation> pixels;  // what the file says, unless it was asked for
  if (!s.pixels.empty()) pixels = s.pixels == "cifar10" ? kd::cifar10_normalisation : kd::imagenet_normalisation;
  kd::network<Model, Device> network(device, 0, pixels);
  kd::train::load_weights(network, s.weights, {.strip_prefix = s.strip_prefix});
  const kd::tensor<float, 2> logits = kd::train::predict(network, set.test.images);
  const kd::train::evaluation result = kd::train::evaluate_logits(logits, set.test.labels);
  std::printf("%s on %s: %zu test images, top-1 %.2f %%, top-5 %.2f %%\n", s.model.c_str(), set.name.c_str(),
              result.samples, 100 * result.top1, 100 * result.top5);
  if (set.classes <= 10) print_confusion(set, result.confusion);
  if (logits_file) {
    kd::io::safetensors_writer file;
    file.add("logits", {logits.extent(0), logits.extent(1)}, logits.elements());
    file.write(*logits_file);
    std::printf("logits: %s\n", s.logits.c_str());
  }
  if (result.non_finite > 0)
    std::fprintf(
        stderr,
        "evaluate: the logits of %zu of %zu images are not finite, and were counted as wrong; %s is damaged, or "
        "of a training that had diverged\n",
        result.non_finite, result.samples, s.weights.c_str());
  return result.non_finite == 0;
}

template <std::size_t Classes, class Device>
bool evaluate_classes(const settings& s, const kd::data::dataset& set, Device& device) {
  if (s.model == "ResNet18") return evaluate_model<kd::models::ResNet18Of<Classes>>(s, set, device);
  if (s.model == "LightNN") return evaluate_model<kd::models::LightNNOf<Classes>>(s, set, device);
  return evaluate_model<kd::models::SimpleNNOf<Classes>>(s, set, device);
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  bool finite = false;
  CLI::App app{"kd evaluate: accuracy of a checkpoint on the test set"};
  app.add_option("--model", s.model)->required()->check(CLI::IsMember({"ResNet18", "LightNN", "SimpleNN"}));
  app.add_option("--weights", s.weights, "safetensors file with PyTorch's names")->required();
  app.add_option("--strip-prefix", s.strip_prefix, "taken from the front of the file's names: module. of DataParallel");
  app.add_option("--data", s.data,
                 "folder with CIFAR-10 or CIFAR-100 binary files (default: KD_DATA, else synthetic images)");
  app.add_option("--logits", s.logits, "write the test set's logits here: safetensors, one tensor \"logits\"");
  app.add_option("--normalisation", s.pixels, "constants for the pixels (default: those of the file, else imagenet)")
      ->check(CLI::IsMember({"imagenet", "cifar10"}));
  app.add_option("--device", s.device, "cpu, cuda, or auto: the GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--precision", s.precision, "of products on the GPU")
      ->check(CLI::IsMember({"fp32", "tf32", "bf16"}))
      ->capture_default_str();
  app.add_option("--threads", s.threads, "processor threads; as many as are worth having unless given")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    const kd::data::dataset set = kd::data::open({.folder = s.data});
    const kd::device_choice choice{
        .device = s.device, .threads = s.threads, .precision = kd::precision_of(s.precision)};
    kd::with_device(choice, [&](auto& device) {
      finite = set.classes == 100 ? evaluate_classes<100>(s, set, device) : evaluate_classes<10>(s, set, device);
    });
  } catch (const std::exception& e) {
    std::fprintf(stderr, "evaluate: %s\n", e.what());
    return 1;
  }
  return finite ? 0 : 1;
}
