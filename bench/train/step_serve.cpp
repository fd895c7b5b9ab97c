/// Training steps on demand, for bench/peer/compare.py and compare_cuda.py.
///
///   train.step_serve [--device cpu|cuda] [--precision fp32|tf32|bf16] [--threads 2]
///
/// Reads "run NAME COUNT", does COUNT steps, prints the milliseconds of one: the median on the CPU; on the GPU, where
/// steps are put in a row without waiting, their mean. What a step includes is said in bench/peer/pytorch_steps.py;
/// data are random images in memory, on the GPU in its own.
#include <kd/kd.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "train/option.hpp"

namespace {

constexpr std::size_t batch = 128, images = 50'000;

kd::data::dataset random_images() {
  kd::data::dataset set;
  set.name = "random";
  set.image = kd::image_shape(3, 32, 32);
  set.classes = 10;
  set.train.images.resize(images * 3072);
  set.train.labels.resize(images);
  for (std::size_t i = 0; i < set.train.images.size(); i += 16) {
    const kd::random_words words =
        kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i / 16), 0, 0);
    for (std::size_t j = 0; j < 16; ++j)
      set.train.images[i + j] = static_cast<std::uint8_t>(words[j / 4] >> (8 * (j % 4)));
  }
  for (std::size_t i = 0; i < images; ++i) set.train.labels[i] = static_cast<std::int32_t>(i * 7 % 10);
  return set;
}

/// `enqueue` puts one step into the device's queue, on the CPU does it; `finish`, which is not timed, throws where one
/// of the steps met a NaN: they are then no longer those of a training.
struct work {
  std::function<void()> enqueue, finish;
};

template <class Device>
class steps {
 public:
  explicit steps(Device& device) : device_(device), set_(random_images()), teacher_logits_({images, 10}) {
    for (std::size_t i = 0; i < teacher_logits_.size(); ++i)
      teacher_logits_.data()[i] =
          6 * kd::uniform(kd::random_at(2, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0]);
  }

  work make(const std::string& name) {
    using namespace kd::models;
    if (name == "resnet18_train") return train<ResNet18>(kd::cross_entropy{}, kd::train::no_teacher{});
    if (name == "resnet18_eval") return evaluate();
    if (name == "light_nn_cached")
      return train<LightNN>(kd::distillation{}, kd::train::cached_teacher{&teacher_logits_});
    if (name == "light_nn_ce") return train<LightNN>(kd::cross_entropy{}, kd::train::no_teacher{});
    if (name == "light_nn_live") {
      teacher_ = std::make_unique<network<ResNet18>>(device_, 1);
      return train<LightNN>(kd::distillation{}, kd::train::live_teacher<network<ResNet18>>{teacher_.get()});
    }
    if (name == "simple_nn_cached")
      return train<SimpleNN>(kd::distillation{}, kd::train::cached_teacher{&teacher_logits_});
    if (name == "simple_nn_ce") return train<SimpleNN>(kd::cross_entropy{}, kd::train::no_teacher{});
    if (name == "adam") return adam(true);
    if (name == "adam_all_weights") return adam(false);
    std::size_t rows = 0, classes = 0;
    if (std::sscanf(name.c_str(), "loss_%zux%zu", &rows, &classes) == 2 && rows > 0 && classes > 0)
      return loss(rows, classes);
    return {};
  }

  void synchronize() const { device_.synchronize(); }

 private:
  template <class Model>
  using network = kd::network<Model, Device>;
  template <class T>
  using buffer = typename Device::template buffer<T>;

  template <class Model, class Loss, class Teacher>
  work train(const Loss& loss, const Teacher& teacher) {
    struct state {
      state(Device& d, const kd::data::dataset& set, const Loss& l, const Teacher& t)
          : net(d, 1), trainer(net, set, l, kd::optim::adam{}, {.batch_size = batch}, t), all(trainer.start_epoch()) {}
      network<Model> net;
      kd::train::trainer<network<Model>, Loss, kd::optim::adam, Teacher> trainer;
      kd::data::batches all;
      std::size_t next = 0;
    };
    auto run = std::make_shared<state>(device_, set_, loss, teacher);
    return {[run] {
              run->trainer.enqueue_step(run->next);
              run->next = (run->next + 1) % (run->all.size() - 1);  // full batches only
            },
            [run] { run->trainer.finish_epoch(); }};
  }

  work evaluate() {
    using model = kd::models::ResNet18;
    struct state {
      state(Device& d, const kd::data::dataset& set)
          : net(d, 1),
            pixels(d.resident(std::span<const std::uint8_t>(set.train.images))),
            order(d.template allocate<std::uint32_t>(images)) {
        const auto samples = kd::data::epoch_order(images, 1, 0);
        d.upload(samples.data(), images, order.data());
      }
      network<model> net;
      typename Device::template resident_array<std::uint8_t> pixels;
      buffer<std::uint32_t> order;
      std::size_t next = 0;
    };
    auto run = std::make_shared<state>(device_, set_);
    return {[this, run] {
              device_.gather_images({run->pixels.data(), set_.image, run->order.data() + run->next, batch},
                                    kd::imagenet_normalisation, {}, {}, run->net.input(batch, false));
              run->net.forward_infer(batch);
              run->next = (run->next + batch) % (images - batch);
            },
            [] {}};
  }

  work adam(bool skip_dead) {
    using model = kd::models::ResNet18;
    using places = kd::train::live_parameters<model>;
    struct state {
      state(Device& d, bool skip)
          : net(d, 1),
            plan(d.plan_update(places::runs(skip))),
            m(d.template allocate<float>(net.parameter_floats)),
            v(d.template allocate<float>(net.parameter_floats)),
            factors(d.template allocate<kd::optim::factors_of<kd::optim::adam>>(1)),
            meter(d.template allocate<kd::loss_meter>(1)) {
        std::vector<float> weights(net.parameter_floats);
        d.download(std::as_const(net).parameters(), weights.size(), weights.data());
        d.upload(weights.data(), weights.size(), net.gradients());
        const auto now = kd::optim::adam{}.factors(1e-3, 2);
        d.upload(&now, 1, factors.data());
      }
      network<model> net;
      decltype(std::declval<Device&>().plan_update(places::runs(true))) plan;
      buffer<float> m, v;
      buffer<kd::optim::factors_of<kd::optim::adam>> factors;
      buffer<kd::loss_meter> meter;
    };
    auto run = std::make_shared<state>(device_, skip_dead);
    return {[this, run] {
              device_.update(kd::optim::adam{}, run->plan, run->factors.data(), run->net.parameters(),
                             run->net.gradients(), {run->m.data(), run->v.data()}, run->meter.data());
            },
            [] {}};
  }

  /// On the GPU a graph of one loss, as it stands in the graph of a training step.
  work loss(std::size_t rows, std::size_t classes) {
    struct state {
      state(Device& d, std::size_t rows, std::size_t classes)
          : student(d.template allocate<float>(rows * classes)),
            teacher(d.template allocate<float>(rows * classes)),
            gradient(d.template allocate<float>(rows * classes)),
            now(d.template allocate<kd::formula_of<kd::distillation>>(1)),
            labels(d.template allocate<std::int32_t>(rows)),
            meter(d.template allocate<kd::loss_meter>(1)),
            scratch(d.template allocate<std::byte>(d.loss_scratch(rows, classes))) {
        const std::size_t n = rows * classes;
        std::vector<float> z(n), t(n);
        std::vector<std::int32_t> y(rows);
        for (std::size_t i = 0; i < n; ++i) {
          const auto w = kd::random_at(3, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i));
          z[i] = 6 * kd::uniform(w[0]) - 3;
          t[i] = 6 * kd::uniform(w[1]) - 3;
        }
        for (std::size_t r = 0; r < rows; ++r) y[r] = static_cast<std::int32_t>(r * 7 % classes);
        d.upload(z.data(), n, student.data());
        d.upload(t.data(), n, teacher.data());
        d.upload(y.data(), rows, labels.data());
        const auto formula = kd::distillation{}.formula();
        d.upload(&formula, 1, now.data());
      }
      buffer<float> student, teacher, gradient;
      buffer<kd::formula_of<kd::distillation>> now;
      buffer<std::int32_t> labels;
      buffer<kd::loss_meter> meter;
      buffer<std::byte> scratch;
      typename Device::recordings recordings;
    };
    auto run = std::make_shared<state>(device_, rows, classes);
    return {[this, run, rows, classes] {
              device_.replay(run->recordings, {rows, classes, 0}, [&] {
                device_.accumulate_loss(kd::distillation{}, run->now.data(), rows, classes, run->student.data(),
                                        run->teacher.data(), run->labels.data(), run->gradient.data(), run->scratch,
                                        run->meter.data());
              });
            },
            [this, run] {
              kd::loss_meter meter;
              device_.download(run->meter.data(), 1, &meter);
              kd::require_finite({{}, meter.fault()}, "loss");
            }};
  }

  Device& device_;
  kd::data::dataset set_;
  kd::tensor<float, 2> teacher_logits_;
  std::unique_ptr<network<kd::models::ResNet18>> teacher_;
};

using steady = std::chrono::steady_clock;

double milliseconds_since(steady::time_point start) {
  return std::chrono::duration<double, std::milli>(steady::now() - start).count();
}

/// Milliseconds of one of `count` steps.
template <class Device>
double time_of(const steps<Device>& all, const work& one, std::size_t count) {
  if constexpr (Device::runs_at_once) {
    std::vector<double> taken(count);
    for (double& t : taken) {
      const auto start = steady::now();
      one.enqueue();
      t = milliseconds_since(start);
    }
    std::nth_element(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(count / 2), taken.end());
    return taken[count / 2];
  } else {
    all.synchronize();
    const auto start = steady::now();
    for (std::size_t i = 0; i < count; ++i) one.enqueue();
    all.synchronize();
    return milliseconds_since(start) / static_cast<double>(count);
  }
}

template <class Device>
void serve(Device& device) {
  steps<Device> all(device);
  std::map<std::string, work> made;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, name;
    std::size_t count = 0;
    words >> verb >> name >> count;
    try {
      work one;
      if (const auto at = made.find(name); at != made.end()) {
        one = at->second;
      } else {
        one = all.make(name);
        if (one.enqueue) {
          // The first step chooses the libraries' algorithms, the second is recorded, the third uploads the recording.
          for (int i = 0; i < (Device::runs_at_once ? 0 : 3); ++i) one.enqueue();
          made[name] = one;
        }
      }
      if (verb != "run" || count == 0 || !one.enqueue) {
        std::cout << "error: expected 'run NAME COUNT' with a known NAME, received '" << line << "'" << std::endl;
        continue;
      }
      const double milliseconds = time_of(all, one, count);
      one.finish();
      std::cout << milliseconds << std::endl;
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
                                   .threads = std::atoi(threads.c_str()),
                                   .precision = kd::precision_of(kd_bench::option(argc, argv, "--precision", "fp32"))};
    kd::with_device(choice, [](auto& device) { serve(device); });
  } catch (const std::exception& e) {
    std::cerr << "train.step_serve: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
