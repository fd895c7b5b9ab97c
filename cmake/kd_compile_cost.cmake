# What each compilation of kd's own programs costs, kept beside its object, and a limit for its memory: the launcher
# compile_cost.cpp, built here with the compiler in use. Sets kd_compile_cost, its path, or empty where it is not used.

set(kd_compile_cost "")
if(kd_has_tests OR KD_COMPILE_MEMORY)
  set(kd_compile_cost_source "${PROJECT_SOURCE_DIR}/cmake/compile_cost.cpp")
  set(kd_compile_cost "${PROJECT_BINARY_DIR}/compile_cost")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${kd_compile_cost_source}")
  if("${kd_compile_cost_source}" IS_NEWER_THAN "${kd_compile_cost}")
    try_compile(kd_compile_cost_works "${PROJECT_BINARY_DIR}/CMakeFiles/compile_cost"
                SOURCES "${kd_compile_cost_source}" OUTPUT_VARIABLE kd_compile_cost_says COPY_FILE "${kd_compile_cost}")
    if(NOT kd_compile_cost_works)
      message(FATAL_ERROR "kd: cmake/compile_cost.cpp, the launcher of the compilations, does not compile: "
                          "${kd_compile_cost_says}")
    endif()
  endif()
endif()

# kd_measure(target): its compilations are started by the launcher, and by one that the user has named after it.
function(kd_measure target)
  if(NOT kd_compile_cost)
    return()
  endif()
  set(cxx "${kd_compile_cost}" run)
  if(KD_COMPILE_MEMORY)
    list(APPEND cxx "--memory=${KD_COMPILE_MEMORY}")
  endif()
  set(cuda "${kd_compile_cost}" run --cuda)
  list(APPEND cxx -- ${CMAKE_CXX_COMPILER_LAUNCHER})
  list(APPEND cuda -- ${CMAKE_CUDA_COMPILER_LAUNCHER})
  set_target_properties(${target} PROPERTIES CXX_COMPILER_LAUNCHER "${cxx}" CUDA_COMPILER_LAUNCHER "${cuda}")
endfunction()
