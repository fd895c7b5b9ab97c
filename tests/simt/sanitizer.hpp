/// Tells AddressSanitizer about switches between fibers; nothing in other builds. Internal to the emulator.
#pragma once

#include <cstddef>

#if defined(KD_SIMT_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

struct stack_of_fiber {
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* fake = nullptr;  // AddressSanitizer's own frames for this stack
};

#if defined(KD_SIMT_ASAN)
inline void before_switch(stack_of_fiber& from, const stack_of_fiber& to) {
  __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.size);
}
inline void after_switch(stack_of_fiber& to, stack_of_fiber& from) {
  __sanitizer_finish_switch_fiber(to.fake, &from.bottom, &from.size);
}
inline void after_first_switch(stack_of_fiber&, stack_of_fiber& from) {
  __sanitizer_finish_switch_fiber(nullptr, &from.bottom, &from.size);
}
#else
inline void before_switch(stack_of_fiber&, const stack_of_fiber&) {}
inline void after_switch(stack_of_fiber&, stack_of_fiber&) {}
inline void after_first_switch(stack_of_fiber&, stack_of_fiber&) {}
#endif

}  // namespace simt
