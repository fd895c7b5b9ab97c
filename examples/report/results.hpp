/// results.json: the runs that are done, written whole after each of them.
#pragma once

#include <kd/kd.hpp>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runs.hpp"

namespace report {

/// One finished run. Its recipe is what decided it, data and epochs included; results that differ in more than the run
/// never stand in one table.
struct result {
  run_spec spec;
  std::uint64_t seed = 0;
  std::size_t parameters = 0;
  double test_accuracy = 0;                      // percent
  std::size_t non_finite = 0;                    // test images whose logits are not finite: wrong
  std::optional<double> teacher_agreement = {};  // percent of test images with the teacher's first choice
  double seconds = 0;                            // of training
  std::vector<kd::train::epoch_record> curve = {};
  kd::io::json recipe = {};     // null: written by an earlier kd, which did not keep it
  kd::io::json made_with = {};  // device, instruction set, threads
  std::string weights = {};     // as kd::train::network_identity says
};

inline std::string key_of(std::string_view id, std::uint64_t seed) { return kd::text(id, "-seed", seed); }

/// In what runs differ from what they would be now, those with the same differences together.
class refusal {
 public:
  void add(const std::string& key, const std::vector<std::string>& differences) {
    if (differences.empty()) return;
    if (!groups_.empty() && groups_.back().second == differences)
      groups_.back().first += ", " + key;
    else
      groups_.emplace_back(key, differences);
  }
  bool empty() const { return groups_.empty(); }
  std::string text() const {
    std::string out;
    for (const auto& [keys, lines] : groups_) {
      out += "\n" + keys;
      for (const std::string& line : lines) out += "\n  " + line;
    }
    return out;
  }

 private:
  std::vector<std::pair<std::string, std::vector<std::string>>> groups_;
};

/// The finished runs of an output folder.
class results {
 public:
  explicit results(std::filesystem::path file) : file_(std::move(file)) {
    if (kd::io::file_exists(file_.string())) load();
  }

  std::string path() const { return file_.string(); }
  /// The runs that belong together.
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
  /// Forgets a run, which is then trained anew.
  void remove(std::string_view id, std::uint64_t seed) {
    if (std::erase_if(all_, [&](const result& r) { return r.spec.id == id && r.seed == seed; }) > 0) save();
  }
  /// Keeps those runs in the file, but out of all(), for which `other(run)` holds; they are asked in their order, while
  /// all of them are there.
  template <class Other>
  void leave_out(const Other& other) {
    std::vector<bool> out;
    for (const result& r : all_) out.push_back(other(r));
    std::vector<result> kept;
    for (std::size_t i = 0; i < all_.size(); ++i) (out[i] ? left_out_ : kept).push_back(std::move(all_[i]));
    all_ = std::move(kept);
  }

 private:
  static constexpr std::uint64_t version = 2;

  void load() {
    const std::string path = file_.string();
    const kd::io::json root = kd::io::json::parse(kd::io::read_file(path), path);
    const kd::io::json* const written = root.find("version");
    if (written != nullptr && written->as_unsigned() != version)
      throw kd::file_error(kd::text(path, ": results of version ", written->as_unsigned(), ", this report reads ",
                                    version, "; use the kd that wrote them, or give another --out"));
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
      if (const kd::io::json* rows = run.find("non_finite"))
        r.non_finite = static_cast<std::size_t>(rows->as_unsigned());
      if (const kd::io::json* agreement = run.find("teacher_agreement"); agreement && agreement->is_number())
        r.teacher_agreement = agreement->as_number();
      r.seconds = run.at("seconds").as_number();
      for (const kd::io::json& epoch : run.at("curve").items()) r.curve.push_back(kd::train::epoch_from_json(epoch));
      if (written != nullptr) {
        r.recipe = run.at("recipe");
        r.made_with = run.at("made_with");
        r.weights = run.at("weights").as_string();
      }
      all_.push_back(std::move(r));
    }
  }

  void save() const {
    kd::io::json root = kd::io::json::object();
    root["version"] = version;
    kd::io::json runs = kd::io::json::array();
    for (const std::vector<result>* const list : {&all_, &left_out_})
      for (const result& r : *list) runs.push_back(to_json(r));
    root["runs"] = std::move(runs);
    kd::io::write_file(file_.string(), root.dump(2) + "\n");
  }

  static kd::io::json to_json(const result& r) {
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
    run["non_finite"] = r.non_finite;
    run["teacher_agreement"] = r.teacher_agreement ? kd::io::json(*r.teacher_agreement) : kd::io::json(nullptr);
    run["seconds"] = r.seconds;
    kd::io::json curve = kd::io::json::array();
    for (const kd::train::epoch_record& epoch : r.curve) curve.push_back(kd::train::to_json(epoch));
    run["curve"] = std::move(curve);
    run["weights"] = r.weights;
    run["made_with"] = r.made_with;
    run["recipe"] = r.recipe;
    return run;
  }

  std::filesystem::path file_;
  std::vector<result> all_, left_out_;
};

}  // namespace report
