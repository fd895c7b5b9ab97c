// Reports of the race build.
#define KD_SIMT_RUNTIME
#if defined(KD_SIMT_RACE)
#include "findings.hpp"

#include <map>
#include <tuple>
#include <utility>

#include "block.hpp"
#include "operations.hpp"

namespace simt {

namespace {

struct finding {
  std::string who, what;
  std::size_t count = 0;
  std::size_t order = 0;
};
using key = std::tuple<fault, std::uint32_t, std::uint32_t>;
std::map<key, finding> findings;
std::size_t total = 0;

constexpr std::size_t most_shown = 6;

const char* label(fault kind) {
  switch (kind) {
    case fault::race:
      return "race: ";
    case fault::out_of_bounds:
      return "out of bounds: ";
    default:
      return "uninitialised: ";
  }
}

}  // namespace

void add_finding(fault kind, std::uint32_t code, std::uint32_t other, std::string what) {
  finding& f = findings[{kind, code, other}];
  if (f.count++ == 0) {
    f.who = who(current->index);
    f.what = std::move(what);
    f.order = findings.size();
  }
  ++total;
}

void clear_findings() {
  findings.clear();
  total = 0;
}

void throw_findings() {
  if (findings.empty()) return;
  const auto found = std::exchange(findings, {});
  std::map<std::size_t, std::pair<key, finding>> in_order;
  for (const auto& [k, f] : found) in_order[f.order] = {k, f};
  std::string text = std::to_string(total) + (total == 1 ? " wrong access" : " wrong accesses") +
                     " (KD_SIMT_SEED=" + std::to_string(seed()) + ")";
  std::size_t shown = 0;
  for (const auto& [order, one] : in_order) {
    const auto& [kind, code, other] = one.first;
    if (shown++ == most_shown) {
      text += "\n  and others";
      break;
    }
    text += "\n  " + one.second.who + " at " + source_place(code) + ": " + label(kind) + one.second.what +
            (other != 0 ? " at " + source_place(other) : "") +
            (one.second.count > 1 ? " (" + std::to_string(one.second.count) + " times)" : "");
  }
  throw error(std::get<0>(in_order.begin()->second.first), text, total);
}

void report_host_access(bool write, std::uint32_t code) {
  keep_error(
      std::make_exception_ptr(error(fault::out_of_bounds, std::string("host code ") + (write ? "writes" : "reads") +
                                                              " device memory at " + source_place(code))));
}

}  // namespace simt
#endif
