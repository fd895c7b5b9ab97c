/// Figure 1: training cross entropy against epochs for every model, drawn by gnuplot.
#pragma once

#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tables.hpp"

namespace report {

/// Writes figure1.gp with its data and lets gnuplot draw figure1.svg and figure1.png; false where gnuplot is missing or
/// fails, and the script then stays for later.
inline bool draw_figure(const std::filesystem::path& folder, const results& done) {
  std::string data, plots;
  for (const run_spec& spec : all_runs) {
    std::map<std::size_t, std::vector<double>> by_epoch;
    for (const result& r : done.all())
      if (r.spec.id == spec.id)
        for (const kd::train::epoch_record& epoch : r.curve) by_epoch[epoch.epoch].push_back(epoch["cross_entropy"]);
    if (by_epoch.empty()) continue;
    const std::string block = kd::text("$run", &spec - all_runs.data());
    data += block + " << EOD\n";
    for (const auto& [epoch, values] : by_epoch) {
      const statistic s = statistic_of(values);
      data += kd::text(epoch, " ", s.mean, " ", s.deviation, "\n");
    }
    data += "EOD\n";
    const std::string label =
        std::string(spec.model) +
        (!spec.distilled ? std::string() : kd::text(" distilled, T ", spec.temperature, ", KD ", spec.kd_weight));
    constexpr std::array<const char*, all_runs.size()> colours{"#000000", "#0072b2", "#56b4e9", "#d55e00", "#e69f00",
                                                               "#009e73", "#cc79a7", "#7f3fbf", "#8c6d31"};
    const char* colour = colours[static_cast<std::size_t>(&spec - all_runs.data())];
    plots += plots.empty() ? "plot " : ", \\\n     ";
    plots += kd::text(block, " using 1:2:3 with yerrorlines lw 1.5 pt 7 ps 0.5 lc rgb \"", colour, "\" title \"", label,
                      "\"");
  }
  const std::string base = (folder / "figure1").string();
  std::string script =
      "# Figure 1: training cross entropy against epochs; bars are the standard deviation over the seeds.\n" + data +
      "set xlabel \"epoch\"\nset ylabel \"training cross entropy\"\nset grid lc rgb \"#dddddd\"\nset border 3\n"
      "set xtics nomirror\nset ytics nomirror\nset yrange [0:*]\nset key top right\n"
      "set title \"Training cross entropy, mean over the seeds\"\n";
  script += "set terminal svg size 960,540 background \"white\" font \"sans,13\"\nset output \"figure1.svg\"\n" +
            plots + "\n";
  script +=
      "set terminal pngcairo size 1440,810 background \"white\" font \"sans,15\"\nset output \"figure1.png\"\nreplot\n";
  kd::io::write_file(base + ".gp", script);
  return kd::io::run_program({"gnuplot", "figure1.gp"}, folder.string()) == 0;
}

}  // namespace report
