// Operations run when somebody waits for them, in random order as far as streams and events allow.
#define KD_SIMT_RUNTIME
#include "operations.hpp"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "random_order.hpp"

namespace simt {

namespace {

std::vector<operation_ptr> ready;
std::uint64_t generation = 1;  // operations of an earlier one were dropped
std::size_t pending = 0;
bool running = false;

// Reports what no call could report.
struct kept {
  std::exception_ptr why;
  ~kept() {
    if (!why) return;
    try {
      std::rethrow_exception(why);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "simt: an error that no synchronising call reported: %s\n", e.what());
    } catch (...) {
    }
    std::_Exit(1);
  }
} kept_error;

void finish(operation& done) {
  done.finished = true;
  for (operation_ptr& next : done.then)
    if (--next->waits_for == 0) ready.push_back(std::move(next));
  done.then.clear();
}

void run_one() {
  // Keeps the seed's sequence the same whether or not there is a choice.
  const std::uint32_t place = order.below(static_cast<std::uint32_t>(ready.size()));
  const operation_ptr chosen = std::exchange(ready[place], ready.back());
  ready.pop_back();
  --pending;
  if (chosen->work) {
    struct mark {
      mark() { running = true; }
      ~mark() { running = false; }
    } marked;
    try {
      chosen->work();
    } catch (...) {
      ready.push_back(chosen);
      drop_all();
      throw;
    }
  }
  finish(*chosen);
}

}  // namespace

bool operation::done() const { return finished || generation != simt::generation; }

operation_ptr submit(std::function<void()> work, const std::vector<operation_ptr>& after) {
  auto made = std::make_shared<operation>();
  made->work = std::move(work);
  made->generation = generation;
  for (const operation_ptr& before : after) {
    if (before == nullptr || before->done()) continue;
    before->then.push_back(made);
    ++made->waits_for;
  }
  ++pending;
  if (made->waits_for == 0) ready.push_back(made);
  return made;
}

void run_until(const operation_ptr& wanted) {
  throw_kept_error();
  while (wanted != nullptr && !wanted->done() && !ready.empty()) run_one();
}

void run_all() {
  throw_kept_error();
  while (!ready.empty()) run_one();
}

void run_some() {
  throw_kept_error();
  if (!ready.empty()) run_one();
}

void drop_all() {
  ++generation;
  pending = 0;
  // One after another: destroying a long chain by itself would recurse.
  std::vector<operation_ptr> left = std::exchange(ready, {});
  while (!left.empty()) {
    const operation_ptr one = std::move(left.back());
    left.pop_back();
    for (operation_ptr& next : one->then) left.push_back(std::move(next));
    one->then.clear();
  }
}

bool operating() { return running; }
std::size_t pending_operations() { return pending; }

void keep_error(std::exception_ptr why) {
  if (!kept_error.why) kept_error.why = std::move(why);
}
void throw_kept_error() {
  if (!kept_error.why) return;
  drop_all();
  std::rethrow_exception(std::exchange(kept_error.why, nullptr));
}

}  // namespace simt
