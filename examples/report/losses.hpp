/// The divergence that the distilled runs use, as the command line names it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <kd/kd.hpp>

// The engines of all divergences are most of what there is to compile: losses.cpp has them.
extern template void kd::any_distillation::accumulate(kd::cpu::device&, const any_formula*, std::size_t, std::size_t,
                                                      const float*, const float*, const std::int32_t*, float*,
                                                      kd::cpu::buffer<std::byte>&, kd::loss_meter*) const;
#if defined(KD_CUDA)
extern template void kd::any_distillation::accumulate(kd::cuda::device&, const any_formula*, std::size_t, std::size_t,
                                                      const float*, const float*, const std::int32_t*, float*,
                                                      kd::cuda::buffer<std::byte>&, kd::loss_meter*) const;
#endif

namespace report {

/// --loss, the options of all divergences (--beta, --alpha, --target-weight, ...), and --warm-up.
class loss_flags {
 public:
  void add_to(CLI::App& app) {
    std::vector<std::string> names;
    std::map<std::string, std::string> uses;  // an option of several divergences is one flag
    kd::formula::divergences::each([&]<class Divergence>(const Divergence&) {
      names.emplace_back(Divergence::name);
      if constexpr (kd::has_options<Divergence>)
        Divergence::options([&](const auto& option) {
          std::string& use = uses[option.name];
          use += kd::text(use.empty() ? "" : "; ", Divergence::name, ": ", option.usual);
        });
    });
    app.add_option("--loss", divergence_, "what the distilled runs minimise beside cross entropy")
        ->check(CLI::IsMember(names))
        ->capture_default_str();
    for (const auto& [name, use] : uses) app.add_option(flag_of(name), values_[name], use);
    app.add_option("--warm-up", warm_up_, "epochs over which kd_weight rises from 0 (decoupled distillation's is 20)")
        ->check(CLI::PositiveNumber);
  }
  const std::string& divergence() const { return divergence_; }
  /// Throws argument_error for an option that the divergence does not have, and a value outside its limits.
  kd::any_distillation loss(float temperature, float kd_weight, float ce_weight) const {
    kd::any_distillation made = kd::any_distillation::with(divergence_);
    set(made, "temperature", temperature);
    set(made, "kd_weight", kd_weight);
    set(made, "ce_weight", ce_weight);
    for (const auto& [name, value] : values_)
      if (value && !set(made, "divergence." + name, *value))
        kd::reject_argument("report", kd::text("--loss ", divergence_, " has no option ", flag_of(name)), *value,
                            "leave it away");
    made.validate();
    return made;
  }
  std::vector<kd::train::ramp> ramps() const {
    if (!warm_up_) return {};
    return {{.option = "kd_weight", .from = 0, .epochs = *warm_up_}};
  }

 private:
  /// Whether the loss has the option.
  static bool set(kd::any_distillation& loss, const std::string& name, double value) {
    bool found = false;
    kd::each_option(loss, [&]<class Value>(const std::string& own, Value& to, const auto&) {
      if (own == name) to = static_cast<Value>(value), found = true;
    });
    return found;
  }
  static std::string flag_of(std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return "--" + name;
  }

  std::string divergence_ = kd::formula::forward_kl::name;
  std::map<std::string, std::optional<double>> values_;
  std::optional<std::size_t> warm_up_;
};

}  // namespace report
