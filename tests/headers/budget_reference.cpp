// What compile budgets are measured by (compile_cost check): nothing of kd, and as long as the standard library is the
// same.
#include <algorithm>
#include <map>
#include <regex>
#include <string>
#include <vector>
std::size_t kd_budget_words(const std::string& text, const std::string& pattern);
std::size_t kd_budget_words(const std::string& text, const std::string& pattern) {
  const std::regex word(pattern);
  std::map<std::string, std::vector<std::size_t>> places;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), word); it != std::sregex_iterator(); ++it)
    places[it->str()].push_back(static_cast<std::size_t>(it->position()));
  std::vector<std::pair<std::size_t, std::string>> order;
  for (const auto& [found, at] : places) order.emplace_back(at.size(), std::regex_replace(found, word, "-"));
  std::sort(order.begin(), order.end());
  return order.empty() ? 0 : order.back().first;
}
