/// Trains a network on request and says where it ended: the side of kd in bench/peer/compare_training.py.
///
///   training_serve --data DIR [--teacher FILE] [--threads 2] [--device cpu]      (cuda where nvcc compiled it)
///
/// Reads "train NETWORK SEED EPOCHS" from standard input, NETWORK one of ResNet18, LightNN, SimpleNN and
/// LightNN-distilled (from the logits of the ResNet18 in FILE), and answers "LOSS CROSS_ENTROPY ACCURACY": means over
/// the last epoch, and per cent of the test images.
#include <kd/kd.hpp>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>

#include "train/option.hpp"

namespace {

/// The report's settings; what is not said here is kd's default.
constexpr kd::optim::adam adam{.learning_rate = 1e-3};

template <class Device>
class trainings {
 public:
  trainings(Device& device, const std::string& data, std::string teacher)
      : device_(device), set_(kd::data::open({.folder = data})), teacher_(std::move(teacher)) {}

  std::string run(const std::string& network, std::uint64_t seed, std::size_t epochs) {
    if (network == "ResNet18") return fit<kd::models::ResNet18>(seed, epochs);
    if (network == "LightNN") return fit<kd::models::LightNN>(seed, epochs);
    if (network == "SimpleNN") return fit<kd::models::SimpleNN>(seed, epochs);
    if (network == "LightNN-distilled") return distil<kd::models::LightNN>(seed, epochs);
    return kd::text("error: no network is called ", network);
  }

 private:
  template <class Model>
  std::string fit(std::uint64_t seed, std::size_t epochs) {
    kd::network<Model, Device> student(device_, seed);
    return ended(student, kd::train::fit(student, set_, adam, {.epochs = epochs, .seed = seed}));
  }

  template <class Model>
  std::string distil(std::uint64_t seed, std::size_t epochs) {
    if (logits_.size() == 0) {
      if (teacher_.empty()) return "error: distillation needs --teacher FILE, weights of a ResNet18";
      kd::network<kd::models::ResNet18, Device> teacher(device_, 0);
      kd::train::load_weights(teacher, teacher_);
      logits_ = kd::train::predict(teacher, set_.train.images);
    }
    kd::network<Model, Device> student(device_, seed);
    return ended(student,
                 kd::train::distil(student, logits_, set_, kd::distillation{}, adam, {.epochs = epochs, .seed = seed}));
  }

  template <class Network>
  std::string ended(Network& network, const std::vector<kd::train::epoch_record>& epochs) {
    return kd::text(epochs.back().loss, " ", epochs.back()["cross_entropy"], " ",
                    kd::train::evaluate(network, set_.test).top1_percent());
  }

  Device& device_;
  kd::data::dataset set_;
  std::string teacher_;
  kd::tensor<float, 2> logits_;
};

template <class Device>
void serve(Device& device, const std::string& data, const std::string& teacher) {
  trainings<Device> all(device, data, teacher);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, network;
    std::uint64_t seed = 0;
    std::size_t epochs = 0;
    words >> verb >> network >> seed >> epochs;
    try {
      if (verb != "train" || !words || epochs == 0)
        std::cout << "error: expected 'train NETWORK SEED EPOCHS', received '" << line << "'" << std::endl;
      else
        std::cout << all.run(network, seed, epochs) << std::endl;
    } catch (const std::exception& e) {
      std::cout << "error: " << e.what() << std::endl;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string threads = kd_bench::option(argc, argv, "--threads", "2");
    const kd::device_choice choice{.device = kd_bench::option(argc, argv, "--device", "cpu"),
                                   .threads = std::atoi(threads.c_str())};
    kd::with_device(choice, [&](auto& device) {
      serve(device, kd_bench::option(argc, argv, "--data", ""), kd_bench::option(argc, argv, "--teacher", ""));
    });
  } catch (const std::exception& e) {
    std::cerr << "train.training_serve: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
