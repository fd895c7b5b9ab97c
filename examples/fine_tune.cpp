/// Fine-tuning: a ResNet18 of 1,000 classes learns 5 others. Its last layer is made anew, the rest goes on from the
/// file.
///
///   fine_tune [WEIGHTS [DEVICE]]
///
/// WEIGHTS: torchvision's resnet18 as safetensors, which Python writes by
///   safetensors.torch.save_file(torchvision.models.resnet18(weights="DEFAULT").state_dict(), "resnet18.safetensors")
/// Without it the program makes a file of 1,000 classes first, so that it can be tried as it is.
#include <kd/kd.hpp>

#include <cstdio>
#include <filesystem>
#include <string>

namespace {

constexpr std::size_t own_classes = 5;
// Weights do not depend on the size of the images: image<3, 224, 224> for photographs.
using image = kd::image<3, 32, 32>;

/// The images of the first classes, for want of your own.
kd::data::split first_classes(const kd::data::split& all, std::size_t image_size) {
  kd::data::split some;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all.labels[i] >= static_cast<std::int32_t>(own_classes)) continue;
    const auto begin = all.images.begin() + static_cast<std::ptrdiff_t>(i * image_size);
    some.images.insert(some.images.end(), begin, begin + static_cast<std::ptrdiff_t>(image_size));
    some.labels.push_back(all.labels[i]);
  }
  return some;
}

/// Stands for torchvision's file: ten of its 1,000 classes are learnt, for a few epochs.
template <class Device>
void make_weights(Device& device, const std::string& path) {
  kd::data::dataset set = kd::data::synthetic_shapes({.train = 1280, .test = 1, .seed = 2});
  set.classes = 1000;
  kd::network<kd::models::ResNet18Of<1000, image>, Device> network(device, 1);
  kd::train::fit(network, set, kd::optim::adam{},
                 {.epochs = 3, .batch_size = 32, .name = "1,000 classes", .show = stderr});
  kd::train::save_weights(network, path);
}

}  // namespace

int main(int argc, char** argv) try {
  kd::data::dataset set = kd::data::synthetic_shapes({.train = 320, .test = 800});
  set.classes = own_classes;
  set.train = first_classes(set.train, set.image.size());
  set.test = first_classes(set.test, set.image.size());

  bool better = false;
  kd::with_device({.device = argc > 2 ? argv[2] : "auto"}, [&]<class Device>(Device& device) {
    const std::string path = argc > 1 ? argv[1] : "fine_tune.safetensors";
    if (argc < 2) make_weights(device, path);

    using network = kd::network<kd::models::ResNet18Of<own_classes, image>, Device>;
    network tuned(device, 2), fresh(device, 2);
    const kd::train::load_result left_out = kd::train::load_weights(tuned, path, {.skip = {"fc."}});
    std::printf("%s: all but", path.c_str());
    for (const std::string& name : left_out.skipped) std::printf(" %s", name.c_str());
    std::printf("\n");
    kd::train::options settings{.epochs = 4, .batch_size = 32, .name = "fine-tuned", .show = stderr};
    kd::train::fit(tuned, set, kd::optim::adam{.learning_rate = 3e-4}, settings);
    settings.name = "from initial weights";
    kd::train::fit(fresh, set, kd::optim::adam{.learning_rate = 3e-4}, settings);
    const double accuracy = kd::train::evaluate(tuned, set.test).top1_percent(),
                 without = kd::train::evaluate(fresh, set.test).top1_percent();
    std::printf("%zu classes, %zu training images, test accuracy: fine-tuned %.1f %%, from initial weights %.1f %%\n",
                own_classes, set.train.size(), accuracy, without);
    better = accuracy > without;
  });
  return better ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "fine_tune: %s\n", e.what());
  return 1;
}
