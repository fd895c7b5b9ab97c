# What kd's own executables have and kd::kd must not force on others.

set(kd_warnings -Wall -Wextra -Wpedantic)

# Warnings, instruction set, sanitizers and the memory limit for one of kd's own targets.
function(kd_own target)
  target_compile_options(${target} PRIVATE ${kd_warnings} ${kd_native_flag})
  if(KD_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(KD_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all
                                             -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
  if(KD_COMPILE_MEMORY)
    set_target_properties(${target} PROPERTIES CXX_COMPILER_LAUNCHER "prlimit;--as=${KD_COMPILE_MEMORY}")
  endif()
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

# a/b/name_test.cpp -> a.b.name_test
function(kd_target_name path result)
  string(REGEX REPLACE "\\.cpp$" "" name "${path}")
  string(REPLACE "/" "." name "${name}")
  set(${result} "${name}" PARENT_SCOPE)
endfunction()
