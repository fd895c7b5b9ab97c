/// The report's whole experiment: a ResNet18 teacher, two students with and without distillation, a sweep over the
/// temperature and one over the weights; three tables, figure 1 and results.json.
///
///   report --data DIR --out DIR [--device auto] [--epochs 10] [--seeds 1] [--only NAMES]
///
/// Stopped and started again on the same folder, it goes on where it was.
#include <kd/kd.hpp>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "report/figure.hpp"
#include "report/results.hpp"
#include "report/runs.hpp"
#include "report/tables.hpp"

namespace {

namespace fs = std::filesystem;

struct settings {
  std::string data, out = "out/report", device = "auto", precision = "fp32";
  std::vector<std::string> only;
  std::size_t epochs = 10, seeds = 1, batch_size = 128;
  double learning_rate = 0.001;
  int threads = kd::cpu::parallel::available();
  bool demo = false, download = false, augment = false;
  std::string download_url, pixels;
};

/// Trains the runs of one data set and class count that are not done yet.
template <std::size_t Classes, class Device>
class experiment {
 public:
  using teacher_network = kd::network<kd::models::ResNet18Of<Classes>, Device>;

  experiment(const settings& s, const kd::data::dataset& set, Device& d, report::results& done)
      : settings_(s), set_(set), device_(d), done_(done) {
    for (const char* folder : {"weights", "state", "logs"}) fs::create_directories(fs::path(s.out) / folder);
  }

  void run(const report::run_spec& spec, std::uint64_t seed) {
    if (done_.find(spec.id, seed) != nullptr) return;
    if (spec.model == "ResNet18") return run_model<kd::models::ResNet18Of<Classes>>(spec, seed);
    if (spec.model == "LightNN") return run_model<kd::models::LightNNOf<Classes>>(spec, seed);
    if (spec.model == "SimpleNN") return run_model<kd::models::SimpleNNOf<Classes>>(spec, seed);
    throw kd::argument_error(kd::text("report: unknown model ", spec.model));
  }

 private:
  std::string file(const char* folder, const std::string& key, const char* suffix) const {
    return (fs::path(settings_.out) / folder / (key + suffix)).string();
  }

  std::optional<kd::normalisation> pixels() const {
    if (settings_.pixels.empty()) return {};
    return settings_.pixels == "cifar10" ? kd::cifar10_normalisation : kd::imagenet_normalisation;
  }

  template <class Model>
  void run_model(const report::run_spec& spec, std::uint64_t seed) {
    if (spec.distilled)
      prepare_teacher(seed);
    else if (spec.model != report::all_runs[0].model && done_.find(report::all_runs[0].id, seed))
      load_teacher(seed);
    const std::string key = report::key_of(spec.id, seed);
    kd::network<Model, Device> net(device_, seed, pixels());
    const kd::train::options options{
        .epochs = settings_.epochs,
        .batch_size = settings_.batch_size,
        .seed = seed,
        .augment = settings_.augment ? kd::augmentation{.crop_padding = 4, .flip = true} : kd::augmentation{},
        .name = key,
        .checkpoint = file("state", key, ".safetensors"),
        .log = file("logs", key, ".jsonl"),
        .show = stderr,
    };
    const kd::optim::adam adam{.learning_rate = settings_.learning_rate};
    report::result result{.spec = spec, .seed = seed, .parameters = net.parameter_count};
    if (!spec.distilled) {
      result.curve = kd::train::fit(net, set_, adam, options);
    } else {
      const kd::distillation loss{
          .temperature = spec.temperature, .kd_weight = spec.kd_weight, .ce_weight = spec.ce_weight};
      result.curve = settings_.augment ? kd::train::distil(net, *teacher_, set_, loss, adam, options)
                                       : kd::train::distil(net, teacher_logits_, set_, loss, adam, options);
    }
    for (const kd::train::epoch_record& epoch : result.curve) result.seconds += epoch.seconds;
    const kd::tensor<float, 2> logits = kd::train::predict(net, set_.test.images);
    result.test_accuracy = kd::train::evaluate_logits(logits, set_.test.labels).top1_percent();
    if (spec.model != report::all_runs[0].model && teacher_ && teacher_seed_ == seed)
      result.teacher_agreement = 100 * kd::train::agreement(logits, teacher_test_logits_);
    kd::train::save_weights(net, file("weights", key, ".safetensors"));
    std::fprintf(stderr, "%s: test accuracy %.2f %%\n", key.c_str(), result.test_accuracy);
    done_.add(std::move(result));
    fs::remove(options.checkpoint);
  }

  /// Trains the teacher of a seed if it is not there yet, and keeps its logits for the training set.
  void prepare_teacher(std::uint64_t seed) {
    run(report::all_runs[0], seed);
    load_teacher(seed);
    if (!settings_.augment && teacher_logits_.size() == 0)
      teacher_logits_ = kd::train::predict(*teacher_, set_.train.images);
  }

  void load_teacher(std::uint64_t seed) {
    if (teacher_ && teacher_seed_ == seed) return;
    teacher_.emplace(device_, seed, pixels());
    kd::train::load_weights(*teacher_, file("weights", report::key_of(report::all_runs[0].id, seed), ".safetensors"));
    teacher_seed_ = seed;
    teacher_logits_ = {};
    teacher_test_logits_ = kd::train::predict(*teacher_, set_.test.images);
  }

  const settings& settings_;
  const kd::data::dataset& set_;
  Device& device_;
  report::results& done_;
  std::optional<teacher_network> teacher_;
  std::uint64_t teacher_seed_ = 0;
  kd::tensor<float, 2> teacher_logits_, teacher_test_logits_;
};

/// Whether --only names a run: by its id, by its model (all runs of it), or LightNN-undistilled for that one alone.
bool named(const report::run_spec& spec, const std::string& name) {
  return name == spec.id || name == spec.model || (!spec.distilled && name == kd::text(spec.model, "-undistilled"));
}

bool wanted(const report::run_spec& spec, const settings& s) {
  if (s.demo && s.only.empty()) return &spec < &report::all_runs[5];
  if (s.only.empty()) return true;
  for (const std::string& name : s.only)
    if (named(spec, name)) return true;
  return false;
}

template <std::size_t Classes, class Device>
void run_all(const settings& s, const kd::data::dataset& set, Device& d, report::results& done) {
  experiment<Classes, Device> all(s, set, d, done);
  for (std::uint64_t seed = 0; seed < s.seeds; ++seed)
    for (const report::run_spec& spec : report::all_runs)
      if (wanted(spec, s)) all.run(spec, seed);
}

std::string describe(const kd::cpu::device& d) {
  return kd::text("cpu (", kd::instruction_set, "), ", d.threads().threads, " threads");
}
template <class Device>
std::string describe(const Device& d) {
  return d.description();
}

template <class Device>
void run_report(const settings& s, const kd::data::dataset& set, Device& d) {
  std::fprintf(stderr, "data: %s, %zu training and %zu test images of %zu classes; device: %s\n", set.name.c_str(),
               set.train.size(), set.test.size(), set.classes, describe(d).c_str());
  fs::create_directories(s.out);
  report::results done(fs::path(s.out) / "results.json", {.dataset = set.name, .device = d.name, .epochs = s.epochs});
  if (set.classes == 10)
    run_all<10>(s, set, d, done);
  else if (set.classes == 100)
    run_all<100>(s, set, d, done);
  else
    kd::reject_argument("report", "a data set of 10 or 100 classes", set.classes, "give CIFAR-10 or CIFAR-100");

  const bool is_cifar10 = set.name == "CIFAR-10";
  for (const report::table& t : report::tables()) {
    if (s.demo && t.rows.size() == 3) continue;
    report::print_table(stdout, t, done, is_cifar10);
  }
  const bool drawn = report::draw_figure(s.out, done);
  std::printf("\nresults: %s/results.json%s\nweights: %s/weights\n", s.out.c_str(),
              drawn ? kd::text(", figure: ", s.out, "/figure1.png and figure1.svg").c_str() : "", s.out.c_str());
  if (!drawn)
    std::fprintf(stderr,
                 "the figure was not drawn: install gnuplot (Debian: gnuplot-nox), then run gnuplot figure1.gp in %s\n",
                 s.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"kd report: the whole distillation experiment of the report"};
  app.add_option("--data", s.data,
                 "folder with CIFAR-10 or CIFAR-100 binary files (default: KD_DATA, else synthetic images)");
  app.add_option("--out", s.out, "folder for results, weights, logs and figure; continued if it holds any")
      ->capture_default_str();
  app.add_option("--device", s.device, "cpu, cuda, or auto: the GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--epochs", s.epochs)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seeds", s.seeds, "how many seeds: 0, 1, ...")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--only", s.only,
                 "runs or models, separated by commas, e.g. ResNet18,LightNN-T1.01,SimpleNN-undistilled")
      ->delimiter(',');
  app.add_option("--precision", s.precision, "of products on the GPU")
      ->check(CLI::IsMember({"fp32", "tf32", "bf16"}))
      ->capture_default_str();
  app.add_option("--threads", s.threads, "processor threads")->capture_default_str();
  app.add_option("--batch-size", s.batch_size)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--learning-rate", s.learning_rate)->capture_default_str();
  app.add_option("--normalisation", s.pixels, "constants for the pixels (default: imagenet)")
      ->check(CLI::IsMember({"imagenet", "cifar10"}));
  app.add_flag("--augment", s.augment, "random crop and flip; the teacher then sees every augmented batch");
  app.add_flag("--download", s.download, "fetch CIFAR-10 into the data folder first");
  app.add_option("--download-url", s.download_url, "another address of the same archive");
  app.add_flag("--demo", s.demo, "only the first table, and fewer epochs unless --epochs is given");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    if (s.demo && app.count("--epochs") == 0) s.epochs = 6;
    for (const std::string& name : s.only) {
      bool known = false;
      std::string names;
      for (const report::run_spec& spec : report::all_runs) {
        known = known || named(spec, name);
        names += kd::text(names.empty() ? "" : ", ", spec.id);
      }
      if (!known) {
        std::fprintf(stderr, "report: --only: there is no run \"%s\"; the runs are %s\n", name.c_str(), names.c_str());
        return 2;
      }
    }
    const kd::device_choice choice{
        .device = s.device, .threads = s.threads, .precision = kd::precision_of(s.precision)};
    kd::with_device(choice, [&](auto& device) {
      const kd::data::dataset set = kd::data::open({.folder = s.data, .download = s.download, .url = s.download_url});
      run_report(s, set, device);
    });
  } catch (const std::exception& e) {
    std::fprintf(stderr, "report: %s\n", e.what());
    return 1;
  }
  return 0;
}
