/// The nine runs of the report, and what the report found.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace report {

/// One row of the experiment.
struct run_spec {
  std::string_view id;     // of its files, and for --only
  std::string_view model;  // ResNet18, LightNN, SimpleNN
  bool distilled = false;
  float temperature = 2.0f;
  float kd_weight = 0.25f;
  float ce_weight = 0.75f;
};

/// A row of one seed.
struct run_key {
  const run_spec* spec;  // one of all_runs
  std::uint64_t seed;

  friend bool operator==(const run_key&, const run_key&) = default;
};

inline constexpr std::array<run_spec, 9> all_runs{{
    {.id = "ResNet18", .model = "ResNet18"},
    {.id = "LightNN", .model = "LightNN"},
    {.id = "LightNN-distilled", .model = "LightNN", .distilled = true},
    {.id = "SimpleNN", .model = "SimpleNN"},
    {.id = "SimpleNN-distilled", .model = "SimpleNN", .distilled = true},
    {.id = "LightNN-T1.5", .model = "LightNN", .distilled = true, .temperature = 1.5f},
    {.id = "LightNN-T1.01", .model = "LightNN", .distilled = true, .temperature = 1.01f},
    {.id = "LightNN-kd0.5", .model = "LightNN", .distilled = true, .kd_weight = 0.5f, .ce_weight = 0.5f},
    {.id = "LightNN-kd0.75", .model = "LightNN", .distilled = true, .kd_weight = 0.75f, .ce_weight = 0.25f},
}};

/// What the report printed for a row; no loss: NaN.
struct published {
  double accuracy;
  std::optional<double> loss;
};

struct table_row {
  std::string_view label;
  std::string_view id;
  published said;
};
struct table {
  std::string_view title;
  std::vector<table_row> rows;
};

inline std::vector<table> tables() {
  return {
      {"Table 1. Models, with and without distillation (T = 2, weights 0.75 CE / 0.25 KD)",
       {{"ResNet18", "ResNet18", {80.30, 0.1078}},
        {"LightNN", "LightNN", {70.94, 0.5326}},
        {"LightNN distilled", "LightNN-distilled", {71.01, 0.8676}},
        {"SimpleNN", "SimpleNN", {62.46, 1.07159}},
        {"SimpleNN distilled", "SimpleNN-distilled", {62.50, 1.6413}}}},
      {"Table 2. LightNN distilled at three temperatures (weights 0.75 CE / 0.25 KD)",
       {{"T = 2", "LightNN-distilled", {71.01, 0.8676}},
        {"T = 1.5", "LightNN-T1.5", {70.65, 0.8093}},
        {"T = 1.01", "LightNN-T1.01", {70.44, std::nullopt}}}},
      {"Table 3. LightNN distilled with three weightings (T = 2)",
       {{"CE 0.75, KD 0.25", "LightNN-distilled", {71.01, 0.8676}},
        {"CE 0.5,  KD 0.5", "LightNN-kd0.5", {70.67, 1.2057}},
        {"CE 0.25, KD 0.75", "LightNN-kd0.75", {71.00, 1.4483}}}},
  };
}

}  // namespace report
