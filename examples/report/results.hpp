/// results.json: the runs that are done, written whole after each of them.
#pragma once

#include <kd/kd.hpp>

#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "runs.hpp"

namespace report {

/// One finished run.
struct result {
  run_spec spec;
  std::uint64_t seed = 0;
  std::size_t parameters = 0;
  double test_accuracy = 0;                      // percent
  std::optional<double> teacher_agreement = {};  // percent of test images with the teacher's first choice
  double seconds = 0;                            // of training
  std::vector<kd::train::epoch_record> curve = {};
};

/// What all runs of one folder share; a folder is only continued with the same.
struct experiment {
  std::string dataset;
  std::string device;
  std::size_t epochs = 10;
};

inline std::string key_of(std::string_view id, std::uint64_t seed) { return kd::text(id, "-seed", seed); }

/// The finished runs of an output folder.
class results {
 public:
  results(std::filesystem::path file, experiment what) : file_(std::move(file)), what_(std::move(what)) {
    if (std::filesystem::exists(file_)) load();
  }

  const std::vector<result>& all() const { return all_; }
  const result* find(std::string_view id, std::uint64_t seed) const {
    for (const result& r : all_)
      if (r.spec.id == id && r.seed == seed) return &r;
    return nullptr;
  }
  void add(result r) {
    all_.push_back(std::move(r));
    save();
  }

 private:
  void load() {
    const std::string path = file_.string();
    const kd::io::json root = kd::io::json::parse(kd::io::read_file(path), path);
    expect(path, "dataset", root.at("dataset").as_string(), what_.dataset);
    expect(path, "epochs", kd::text(root.at("epochs").as_unsigned()), kd::text(what_.epochs));
    for (const kd::io::json& run : root.at("runs").items()) {
      result r;
      bool known = false;
      for (const run_spec& spec : all_runs) {
        if (spec.id != run.at("id").as_string()) continue;
        r.spec = spec;
        known = true;
      }
      if (!known)
        throw kd::file_error(
            kd::text(path, ": there is no run \"", run.at("id").as_string(), "\" in this report; give another --out"));
      r.seed = run.at("seed").as_unsigned();
      r.parameters = static_cast<std::size_t>(run.at("parameters").as_unsigned());
      r.test_accuracy = run.at("test_accuracy").as_number();
      if (const kd::io::json* agreement = run.find("teacher_agreement"); agreement && agreement->is_number())
        r.teacher_agreement = agreement->as_number();
      r.seconds = run.at("seconds").as_number();
      for (const kd::io::json& epoch : run.at("curve").items()) r.curve.push_back(kd::train::epoch_from_json(epoch));
      all_.push_back(std::move(r));
    }
  }

  static void expect(const std::string& path, std::string_view what, const std::string& found,
                     const std::string& wanted) {
    if (found != wanted)
      throw kd::file_error(kd::text(path, ": holds results for ", what, " ", found, ", asked for ", wanted,
                                    "; continue with the same, or give another --out"));
  }

  void save() const {
    kd::io::json root = kd::io::json::object();
    root["dataset"] = what_.dataset;
    root["device"] = what_.device;
    root["epochs"] = what_.epochs;
    root["kd_version"] = kd::version;
    kd::io::json runs = kd::io::json::array();
    for (const result& r : all_) {
      kd::io::json run = kd::io::json::object();
      run["id"] = r.spec.id;
      run["name"] = r.spec.model;
      run["distilled"] = r.spec.distilled;
      run["temperature"] = r.spec.distilled ? kd::io::json(r.spec.temperature) : kd::io::json(nullptr);
      run["kd_weight"] = r.spec.distilled ? kd::io::json(r.spec.kd_weight) : kd::io::json(nullptr);
      run["seed"] = r.seed;
      run["parameters"] = r.parameters;
      run["final_loss"] = r.curve.empty() ? kd::io::json(nullptr) : kd::io::json(r.curve.back().loss);
      run["test_accuracy"] = r.test_accuracy;
      run["teacher_agreement"] = r.teacher_agreement ? kd::io::json(*r.teacher_agreement) : kd::io::json(nullptr);
      run["seconds"] = r.seconds;
      kd::io::json curve = kd::io::json::array();
      for (const kd::train::epoch_record& epoch : r.curve) curve.push_back(kd::train::to_json(epoch));
      run["curve"] = std::move(curve);
      runs.push_back(std::move(run));
    }
    root["runs"] = std::move(runs);
    kd::io::write_file(file_.string(), root.dump(2) + "\n");
  }

  std::filesystem::path file_;
  experiment what_;
  std::vector<result> all_;
};

}  // namespace report
