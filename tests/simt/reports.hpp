/// Internal to the emulator.
#pragma once

namespace simt {

/// While it lives, a crash (an access to memory that does not exist) is preceded by a line that names kernel, block and
/// thread. AddressSanitizer reports crashes itself.
struct report_crashes {
  report_crashes();
  ~report_crashes();
  report_crashes(const report_crashes&) = delete;
  report_crashes& operator=(const report_crashes&) = delete;
};

}  // namespace simt
