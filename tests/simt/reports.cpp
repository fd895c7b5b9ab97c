// Which kernel, block and thread did it, in front of the reports of AddressSanitizer and UBSan and of a crash.
#define KD_SIMT_RUNTIME
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <exception>

#include "block.hpp"
#include "reports.hpp"

namespace simt {

namespace {

void say_who() {
  if (current == nullptr) return;
  const std::string text = "simt: " + who(current->index) + ", KD_SIMT_SEED=" + std::to_string(seed()) + "\n";
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

#if !defined(KD_SIMT_ASAN)
struct sigaction before;  // what the test framework does with a crash

void on_crash(int) {
  say_who();
  sigaction(SIGSEGV, &before, nullptr);
}
#endif

}  // namespace

// The handler restores the one before it: the access is repeated on return, and that one sees the crash.
report_crashes::report_crashes() {
#if !defined(KD_SIMT_ASAN)
  struct sigaction mine {};
  mine.sa_handler = on_crash;
  mine.sa_flags = SA_ONSTACK;
  sigaction(SIGSEGV, &mine, &before);
#endif
}
report_crashes::~report_crashes() {
#if !defined(KD_SIMT_ASAN)
  sigaction(SIGSEGV, &before, nullptr);
#endif
}

}  // namespace simt

#if defined(KD_SIMT_ASAN)
extern "C" {
void __asan_on_error() { simt::say_who(); }
void __ubsan_on_report() { simt::say_who(); }
}
#endif
