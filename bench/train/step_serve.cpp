/// Training steps on demand, for bench/peer/compare.py: reads "run NAME COUNT", runs COUNT steps, prints the median
/// milliseconds of one. What a step includes is said in bench/peer/pytorch_steps.py; data are random images in memory.
#include <kd/kd.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>

namespace {

using device = kd::cpu::device;
constexpr std::size_t batch = 128, images = 50'000;

kd::data::dataset random_images() {
  kd::data::dataset set;
  set.name = "random";
  set.image = kd::image_shape(3, 32, 32);
  set.classes = 10;
  set.train.images.resize(images * 3072);
  set.train.labels.resize(images);
  for (std::size_t i = 0; i < set.train.images.size(); i += 4) {
    const kd::random_words words =
        kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i / 16), 0, 0);
    for (std::size_t j = 0; j < 4; ++j)
      set.train.images[i + j] = static_cast<std::uint8_t>(words[i / 4 % 4] >> (8 * j));
  }
  for (std::size_t i = 0; i < images; ++i) set.train.labels[i] = static_cast<std::int32_t>(i * 7 % 10);
  return set;
}

using step = std::function<void()>;

class steps {
 public:
  steps() : device_(2), set_(random_images()), teacher_logits_({images, 10}) {
    for (std::size_t i = 0; i < teacher_logits_.size(); ++i)
      teacher_logits_.data()[i] =
          6 * kd::uniform(kd::random_at(2, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0]);
  }

  step make(const std::string& name) {
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
    if (std::sscanf(name.c_str(), "loss_%zux%zu", &rows, &classes) == 2) return loss(rows, classes);
    return {};
  }

 private:
  template <class Model>
  using network = kd::network<Model, device>;

  template <class Model, class Loss, class Teacher>
  step train(const Loss& loss, const Teacher& teacher) {
    struct state {
      state(device& d, const kd::data::dataset& set, const Loss& l, const Teacher& t)
          : net(d, 1), trainer(net, set, l, kd::optim::adam{}, {.batch_size = batch}, t), all(trainer.begin_epoch(0)) {}
      network<Model> net;
      kd::train::trainer<network<Model>, Loss, kd::optim::adam, Teacher> trainer;
      kd::data::batches all;
      std::size_t next = 0;
    };
    auto run = std::make_shared<state>(device_, set_, loss, teacher);
    return [run] {
      run->trainer.step(0, run->next, run->all);
      run->next = (run->next + 1) % (run->all.size() - 1);  // full batches only
    };
  }

  step evaluate() {
    auto net = std::make_shared<network<kd::models::ResNet18>>(device_, 1);
    auto order = std::make_shared<std::vector<std::uint32_t>>(kd::data::epoch_order(images, 1, 0));
    auto next = std::make_shared<std::size_t>(0);
    return [this, net, order, next] {
      device_.gather_images({set_.train.images.data(), set_.image, order->data() + *next, batch},
                            kd::imagenet_normalisation, {}, 0, 0, net->input(batch, false));
      net->forward_infer(batch);
      *next = (*next + batch) % (images - batch);
    };
  }

  step adam(bool skip_dead) {
    using model = kd::models::ResNet18;
    auto net = std::make_shared<network<model>>(device_, 1);
    auto m = std::make_shared<device::buffer<float>>(net->parameter_count);
    auto v = std::make_shared<device::buffer<float>>(net->parameter_count);
    std::copy(net->parameters(), net->parameters() + net->parameter_count, net->gradients());
    auto count = std::make_shared<std::uint64_t>(0);
    return [this, net, m, v, count, skip_dead] {
      device_.update(kd::optim::adam{}, 1e-3, ++*count, kd::train::live_parameters<model>::runs(skip_dead),
                     net->parameters(), net->gradients(), m->data(), v->data());
    };
  }

  step loss(std::size_t rows, std::size_t classes) {
    struct state {
      kd::cpu::buffer<float> student, teacher, gradient;
      kd::cpu::buffer<std::byte> scratch;
      std::vector<std::int32_t> labels;
    };
    auto s = std::make_shared<state>();
    const std::size_t n = rows * classes;
    s->student = device_.allocate<float>(n);
    s->teacher = device_.allocate<float>(n);
    s->gradient = device_.allocate<float>(n);
    s->scratch = device_.allocate<std::byte>(device_.loss_scratch(rows, classes));
    for (std::size_t i = 0; i < n; ++i) {
      const auto w = kd::random_at(3, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i));
      s->student.data()[i] = 6 * kd::uniform(w[0]) - 3;
      s->teacher.data()[i] = 6 * kd::uniform(w[1]) - 3;
    }
    for (std::size_t r = 0; r < rows; ++r) s->labels.push_back(static_cast<std::int32_t>(r * 7 % classes));
    return [this, s, rows, classes] {
      (void)device_.loss(kd::distillation{}, rows, classes, s->student.data(), s->teacher.data(), s->labels.data(),
                         s->gradient.data(), s->scratch);
    };
  }

  device device_;
  kd::data::dataset set_;
  kd::tensor<float, 2> teacher_logits_;
  std::unique_ptr<network<kd::models::ResNet18>> teacher_;
};

}  // namespace

int main() {
  steps all;
  std::map<std::string, step> made;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, name;
    std::size_t count = 0;
    words >> verb >> name >> count;
    step& one = made[name];
    if (!one) one = all.make(name);
    if (verb != "run" || count == 0 || !one) {
      std::cout << "error: expected 'run NAME COUNT' with a known NAME, received '" << line << "'" << std::endl;
      continue;
    }
    std::vector<double> milliseconds(count);
    for (double& t : milliseconds) {
      const auto start = std::chrono::steady_clock::now();
      one();
      t = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    }
    std::nth_element(milliseconds.begin(), milliseconds.begin() + static_cast<std::ptrdiff_t>(count / 2),
                     milliseconds.end());
    std::cout << milliseconds[count / 2] << std::endl;
  }
}
