/// The report's whole experiment: a ResNet18 teacher, two students with and without distillation, a sweep over the
/// temperature and one over the weights; three tables, figure 1 and results.json.
///
///   report --data DIR --out DIR [--device auto] [--epochs 10] [--seeds 1] [--only NAMES]
///
/// Stopped and started again on the same folder, it goes on where it was; with other settings or data it refuses, and
/// --restart begins the wanted runs anew.
#include <kd/kd.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "report/figure.hpp"
#include "report/losses.hpp"
#include "report/output_folder.hpp"
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
  bool demo = false, download = false, augment = false, restart = false;
  std::string download_url, pixels;
  report::loss_flags loss;
};

/// Trains the runs of one data set and class count that are not done yet.
template <std::size_t Classes, class Device>
class experiment {
 public:
  using teacher_network = kd::network<kd::models::ResNet18Of<Classes>, Device>;

  experiment(const settings& s, const kd::data::dataset& set, Device& d, report::results& done)
      : settings_(s),
        set_(set),
        device_(d),
        done_(done),
        train_(kd::train::digest_of(set.train)),
        test_(kd::train::digest_of(set.test)) {}

  /// Before anything is trained: what the folder holds of the wanted runs, and of the teachers that they need, must
  /// have been made with these settings and this data. Throws file_error that names each difference. With --restart
  /// the wanted runs are forgotten instead. Other runs that were made otherwise are left out of the tables.
  void begin(const std::vector<report::run_key>& wanted) {
    std::vector<report::run_key> needed = wanted;
    if (settings_.restart)
      for (const auto& [spec, seed] : wanted) forget(*spec, seed);
    for (const auto& [spec, seed] : wanted) {
      const report::run_key teacher{&report::all_runs[0], seed};
      if (!spec->distilled || done_.find(spec->id, seed) != nullptr) continue;
      if (std::find(needed.begin(), needed.end(), teacher) != needed.end()) continue;
      needed.insert(needed.begin(), teacher);
      if (settings_.restart && (!differences(*teacher.spec, seed).empty() || !kd::io::file_exists(weights_of(teacher))))
        forget(*teacher.spec, seed);
    }
    report::refusal refused;
    for (const auto& [spec, seed] : needed) refused.add(report::key_of(spec->id, seed), differences(*spec, seed));
    if (!refused.empty())
      throw kd::file_error(
          kd::text(done_.path(), ": holds runs that were made otherwise:", refused.text(),
                   "\ngive the same settings and data, another --out, or --restart to begin these runs "
                   "anew"));
    for (const auto& [spec, seed] : needed) check_state(*spec, seed);
    leave_out_others();
  }

  /// What was made otherwise than these settings say stands in no table.
  void leave_out_others() {
    report::refusal others;
    done_.leave_out([&](const report::result& r) {
      const std::vector<std::string> lines = differences(r.spec, r.seed);
      others.add(report::key_of(r.spec.id, r.seed), lines);
      return !lines.empty();
    });
    if (!others.empty())
      std::fprintf(stderr, "left out of the tables, since they were made otherwise:%s\n", others.text().c_str());
  }

  void run(const report::run_spec& spec, std::uint64_t seed) {
    if (done_.find(spec.id, seed) != nullptr) return;
    with_model(spec, [&]<class Model>(std::type_identity<Model>) { run_model<Model>(spec, seed); });
  }

 private:
  template <class Visit>
  static void with_model(const report::run_spec& spec, const Visit& visit) {
    if (spec.model == "ResNet18") return visit(std::type_identity<kd::models::ResNet18Of<Classes>>{});
    if (spec.model == "LightNN") return visit(std::type_identity<kd::models::LightNNOf<Classes>>{});
    if (spec.model == "SimpleNN") return visit(std::type_identity<kd::models::SimpleNNOf<Classes>>{});
    throw kd::argument_error(kd::text("report: unknown model ", spec.model));
  }

  std::string file(const char* folder, const std::string& key, const char* suffix) const {
    return (fs::path(settings_.out) / folder / (key + suffix)).string();
  }

  std::optional<kd::normalisation> pixels() const {
    if (settings_.pixels.empty()) return {};
    return settings_.pixels == "cifar10" ? kd::cifar10_normalisation : kd::imagenet_normalisation;
  }

  std::string weights_of(const report::run_key& run) const {
    return file("weights", report::key_of(run.spec->id, run.seed), ".safetensors");
  }

  kd::train::options options_of(const report::run_spec& spec, std::uint64_t seed) const {
    const std::string key = report::key_of(spec.id, seed);
    return {
        .epochs = settings_.epochs,
        .batch_size = settings_.batch_size,
        .seed = seed,
        .augment = settings_.augment ? kd::augmentation{.crop_padding = 4, .flip = true} : kd::augmentation{},
        .ramps = spec.distilled ? settings_.loss.ramps() : std::vector<kd::train::ramp>{},
        .name = key,
        .checkpoint = file("state", key, ".safetensors"),
        .log = file("logs", key, ".jsonl"),
        .show = stderr,
    };
  }
  kd::optim::adam optimiser() const { return {.learning_rate = settings_.learning_rate}; }
  kd::any_distillation loss_of(const report::run_spec& spec) const {
    return settings_.loss.loss(spec.temperature, spec.kd_weight, spec.ce_weight);
  }

  /// The recipe of a run with these settings. The teacher is the one in the folder; `teacher` where there is none yet.
  kd::io::json train_recipe(const report::run_spec& spec, std::uint64_t seed, const std::string& teacher) const {
    const report::result* const taught_by = done_.find(report::all_runs[0].id, seed);
    const kd::train::run_inputs inputs{.precision = device_.precision(),
                                       .pixels = pixels().value_or(kd::imagenet_normalisation),
                                       .data = train_,
                                       .teacher = !spec.distilled        ? "none"
                                                  : taught_by == nullptr ? teacher
                                                                         : taught_by->weights};
    kd::io::json recipe;
    with_model(spec, [&]<class Model>(std::type_identity<Model>) {
      recipe = spec.distilled
                   ? kd::train::recipe<Model>(loss_of(spec), optimiser(), options_of(spec, seed), inputs)
                   : kd::train::recipe<Model>(kd::cross_entropy{}, optimiser(), options_of(spec, seed), inputs);
    });
    return recipe;
  }
  /// The same with what decides a result besides the weights of a step.
  kd::io::json result_recipe(const report::run_spec& spec, std::uint64_t seed, const std::string& teacher) const {
    kd::io::json recipe = train_recipe(spec, seed, teacher);
    recipe["epochs"] = settings_.epochs;
    recipe["dataset"] = set_.name;
    recipe["test_samples"] = test_.samples;
    recipe["test_images"] = test_.images;
    recipe["test_labels"] = test_.labels;
    return recipe;
  }

  /// In what a finished run differs from what it would be now; nothing where there is no such run.
  std::vector<std::string> differences(const report::run_spec& spec, std::uint64_t seed) const {
    const report::result* const r = done_.find(spec.id, seed);
    if (r == nullptr) return {};
    if (r->recipe.is_null()) return {"recipe: an earlier kd, which did not keep its settings, wrote the run"};
    const kd::io::json* const teacher = r->recipe.find("teacher");
    return kd::train::recipe_differences(r->recipe,
                                         result_recipe(spec, seed, teacher == nullptr ? "none" : teacher->as_string()));
  }

  /// The same for a run that was stopped.
  void check_state(const report::run_spec& spec, std::uint64_t seed) const {
    const std::string path = options_of(spec, seed).checkpoint;
    if (!kd::io::file_exists(path)) return;
    try {
      const kd::io::json found = kd::train::state_recipe(kd::io::safetensors_file::open(path));
      const kd::io::json* const teacher = found.find("teacher");
      kd::train::expect_recipe(path, found,
                               train_recipe(spec, seed, teacher == nullptr ? "none" : teacher->as_string()));
    } catch (const kd::file_error& e) {
      throw kd::file_error(kd::text(e.what(), "\n--restart begins the wanted runs anew"));
    }
  }

  void forget(const report::run_spec& spec, std::uint64_t seed) {
    done_.remove(spec.id, seed);
    const std::string path = options_of(spec, seed).checkpoint;
    std::error_code status;
    fs::remove(path, status);
    if (status) kd::io::reject_file(path, "remove", status.value());
  }

  template <class Model>
  void run_model(const report::run_spec& spec, std::uint64_t seed) {
    const bool is_teacher = spec.model == report::all_runs[0].model;
    if (spec.distilled)
      prepare_teacher(seed);
    else if (!is_teacher)
      find_teacher(seed);
    const std::string key = report::key_of(spec.id, seed);
    kd::network<Model, Device> net(device_, seed, pixels());
    const kd::train::options options = options_of(spec, seed);
    report::result result{.spec = spec, .seed = seed, .parameters = net.parameter_count};
    if (!spec.distilled)
      result.curve = kd::train::fit(net, set_, optimiser(), options);
    else if (settings_.augment)
      result.curve = kd::train::distil(net, *teacher_, set_, loss_of(spec), optimiser(), options);
    else
      result.curve = kd::train::distil(
          net, kd::train::cached_teacher{&teacher_logits_, done_.find(report::all_runs[0].id, seed)->weights}, set_,
          loss_of(spec), optimiser(), options);
    for (const kd::train::epoch_record& epoch : result.curve) result.seconds += epoch.seconds;
    const kd::tensor<float, 2> logits = kd::train::predict(net, set_.test.images);
    const kd::train::evaluation evaluation = kd::train::evaluate_logits(logits, set_.test.labels);
    result.test_accuracy = evaluation.top1_percent();
    result.non_finite = evaluation.non_finite;
    if (!is_teacher && teacher_ && teacher_seed_ == seed)
      result.teacher_agreement = 100 * kd::train::agreement(logits, teacher_test_logits_);
    kd::train::save_weights(net, file("weights", key, ".safetensors"));
    std::fprintf(stderr, "%s: test accuracy %.2f %%\n", key.c_str(), result.test_accuracy);
    result.recipe = result_recipe(spec, seed, "none");
    result.made_with = kd::train::made_with(device_);
    result.weights = kd::train::network_identity(net);
    done_.add(std::move(result));
    std::error_code ignored;
    fs::remove(options.checkpoint, ignored);
  }

  /// Trains the teacher of a seed if it is not there yet, and keeps its logits for the training set.
  void prepare_teacher(std::uint64_t seed) {
    run(report::all_runs[0], seed);
    load_teacher(seed);
    if (!settings_.augment && teacher_logits_.size() == 0)
      teacher_logits_ = kd::train::predict(*teacher_, set_.train.images);
  }

  /// The teacher of a seed for the agreement alone: without its weights, that is left out.
  void find_teacher(std::uint64_t seed) {
    if (done_.find(report::all_runs[0].id, seed) == nullptr) return;
    try {
      load_teacher(seed);
    } catch (const kd::file_error& e) {
      teacher_.reset();
      std::fprintf(stderr, "without agreement with the teacher: %s\n", e.what());
    }
  }

  void load_teacher(std::uint64_t seed) {
    if (teacher_ && teacher_seed_ == seed) return;
    const report::run_spec& spec = report::all_runs[0];
    const std::string path = weights_of({&spec, seed});
    const std::string remedy = kd::text("; restore it, or train the teacher anew: --only ", spec.id, " --restart");
    if (!kd::io::file_exists(path)) throw kd::file_error(kd::text(path, ": the teacher's weights are missing", remedy));
    teacher_.emplace(device_, seed, pixels());
    kd::train::load_weights(*teacher_, path);
    if (kd::train::network_identity(*teacher_) != done_.find(spec.id, seed)->weights) {
      teacher_.reset();
      throw kd::file_error(
          kd::text(path, ": not the weights that the teacher's run in ", done_.path(), " ended with", remedy));
    }
    teacher_seed_ = seed;
    teacher_logits_ = {};
    teacher_test_logits_ = kd::train::predict(*teacher_, set_.test.images);
  }

  const settings& settings_;
  const kd::data::dataset& set_;
  Device& device_;
  report::results& done_;
  kd::train::split_digest train_, test_;
  std::optional<teacher_network> teacher_;
  std::uint64_t teacher_seed_ = 0;
  kd::tensor<float, 2> teacher_logits_, teacher_test_logits_;
};

/// Whether --only names a run: by its id, by its model (all runs of it), or LightNN-undistilled for that one alone.
bool named(const report::run_spec& spec, const std::string& name) {
  return name == spec.id || name == spec.model || (!spec.distilled && name == kd::text(spec.model, "-undistilled"));
}

bool is_known(const std::string& name) {
  return std::any_of(report::all_runs.begin(), report::all_runs.end(),
                     [&](const report::run_spec& spec) { return named(spec, name); });
}

std::string trimmed(const std::string& name) {
  const std::size_t first = name.find_first_not_of(" \t\n");
  return first == std::string::npos ? "" : name.substr(first, name.find_last_not_of(" \t\n") + 1 - first);
}

/// All names that --only takes.
std::string names_of_runs() {
  std::string names;
  for (const report::run_spec& spec : report::all_runs) {
    names += kd::text(names.empty() ? "" : ", ", spec.id);
    if (!spec.distilled) names += kd::text(" (all of its runs), ", spec.model, "-undistilled");
  }
  return names;
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
  std::vector<report::run_key> runs;
  for (std::uint64_t seed = 0; seed < s.seeds; ++seed)
    for (const report::run_spec& spec : report::all_runs)
      if (wanted(spec, s)) runs.push_back({&spec, seed});
  all.begin(runs);
  for (const auto& [spec, seed] : runs) all.run(*spec, seed);
  all.leave_out_others();  // once more: a teacher may have changed
}

/// Whether every test image has a prediction in every run of the tables; says where not.
bool all_finite(const report::results& done) {
  bool finite = true;
  for (const report::result& r : done.all()) {
    if (r.non_finite == 0) continue;
    finite = false;
    std::fprintf(stderr,
                 "report: %s: the logits of %zu of %zu test images are not finite, and were counted as wrong; its "
                 "training diverged: lower --learning-rate\n",
                 report::key_of(r.spec.id, r.seed).c_str(), r.non_finite,
                 static_cast<std::size_t>(r.recipe.at("test_samples").as_unsigned()));
  }
  return finite;
}

/// Whether every test image has a prediction in every run.
template <class Device>
bool run_report(const settings& s, const kd::data::dataset& set, Device& d) {
  std::fprintf(stderr, "data: %s, %zu training and %zu test images of %zu classes; device: %s\n", set.name.c_str(),
               set.train.size(), set.test.size(), set.classes, d.description().c_str());
  report::results done(fs::path(s.out) / "results.json");
  if (set.classes == 10)
    run_all<10>(s, set, d, done);
  else if (set.classes == 100)
    run_all<100>(s, set, d, done);
  else
    kd::reject_argument("report", "a data set of 10 or 100 classes", set.classes, "give CIFAR-10 or CIFAR-100");

  const bool is_cifar10 = set.name == "CIFAR-10";
  if (s.loss.divergence() != kd::formula::forward_kl::name)
    std::printf("\nThe distilled runs minimise %s beside cross entropy, the report's forward_kl.\n",
                s.loss.divergence().c_str());
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
  return all_finite(done);
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  bool finite = false;
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
  app.add_option("--threads", s.threads, "processor threads; as many as are worth having unless given")
      ->capture_default_str();
  app.add_option("--batch-size", s.batch_size)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--learning-rate", s.learning_rate)->capture_default_str();
  app.add_option("--normalisation", s.pixels, "constants for the pixels (default: imagenet)")
      ->check(CLI::IsMember({"imagenet", "cifar10"}));
  s.loss.add_to(app);
  app.add_flag("--augment", s.augment, "random crop and flip; the teacher then sees every augmented batch");
  app.add_flag("--download", s.download, "fetch CIFAR-10 into the data folder first, where it is not there yet");
  app.add_option("--download-url", s.download_url, "another address of the same archive");
  app.add_flag("--restart", s.restart, "begin the wanted runs anew, whatever the folder holds of them");
  app.add_flag("--demo", s.demo, "only the first table, and fewer epochs unless --epochs is given");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    if (s.demo && app.count("--epochs") == 0) s.epochs = 6;
    for (const report::run_spec& spec : report::all_runs) s.loss.loss(spec.temperature, spec.kd_weight, spec.ce_weight);
    for (std::string& name : s.only) {
      name = trimmed(name);
      if (is_known(name)) continue;
      std::fprintf(stderr, "report: --only: there is no run \"%s\"; the runs are %s\n", name.c_str(),
                   names_of_runs().c_str());
      return 2;
    }
    if (s.out.empty()) {
      std::fprintf(stderr, "report: --out: the folder's name is empty; name one, or leave --out away for out/report\n");
      return 2;
    }
    const kd::device_choice choice{
        .device = s.device, .threads = s.threads, .precision = kd::precision_of(s.precision)};
    kd::with_device(choice, [&](auto& device) {
      const report::output_folder folder(s.out);
      const kd::data::dataset set = kd::data::open({.folder = s.data, .download = s.download, .url = s.download_url});
      finite = run_report(s, set, device);
    });
  } catch (const std::exception& e) {
    std::fprintf(stderr, "report: %s\n", e.what());
    return 1;
  }
  return finite ? 0 : 1;
}
