# What kd's own executables have and kd::kd must not force on others.

set(kd_warnings -Wall -Wextra -Wpedantic)
# g++ 12 warns of overlaps in "text" + std::string that cannot be (GCC bug 105651, mended in 13).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND kd_warnings -Wno-restrict)
endif()
# clang++ 19 warns of what it makes of -march=native itself where the processor has AVX10.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-Winvalid-feature-combination KD_WARNS_OF_FEATURES)
if(KD_WARNS_OF_FEATURES)
  list(APPEND kd_warnings -Wno-invalid-feature-combination)
endif()
# For the host compiler behind nvcc: not -Wpedantic (nvcc's line markers), -Wparentheses (its declarators) and
# -Wunknown-pragmas (#pragma unroll in functions of both sides).
set(kd_cuda_warnings -Xcompiler=-Wall,-Wextra,-Wno-parentheses,-Wno-unknown-pragmas)
set(kd_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)

# kd_own(target [instruction set]): warnings, instruction set (this machine's, if none is named), sanitizers and what
# compilations are started with, for one of kd's own targets.
function(kd_own target)
  set(march "${kd_native_flag}")
  if(ARGC GREATER 1)
    set(march "-march=${ARGV1}")
  endif()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${kd_warnings};${march}>"
                                           "$<$<COMPILE_LANGUAGE:CUDA>:${kd_cuda_warnings}>")
  # Whoever builds kd without optimisation knows it.
  target_compile_definitions(${target} PRIVATE KD_NO_OPTIMISATION_NOTE)
  if(march)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${march}>")
  endif()
  if(KD_WERROR)
    kd_werror(${target})
  endif()
  if(KD_SANITIZE)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${kd_sanitizers}>")
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
  kd_measure(${target})
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

function(kd_werror target)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Werror>"
                                           "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Werror all-warnings -Xcompiler=-Werror>")
endfunction()

# kd_compile_for_cuda(target source...): these sources go to nvcc, and the target runs on the GPU where there is one.
function(kd_compile_for_cuda target)
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CUDA)
  target_link_libraries(${target} PRIVATE kd::cuda)
  # CMake leaves out what the compiler searches by itself when it links; the loader may not search there.
  get_filename_component(cublaslt "${KD_CUBLASLT_LIBRARY}" DIRECTORY)
  get_filename_component(cudnn "${KD_CUDNN_LIBRARY}" DIRECTORY)
  # Types of kd::cuda are hidden; classes that hold one are then hidden as well.
  set_target_properties(${target} PROPERTIES BUILD_RPATH "${cublaslt};${cudnn}" CUDA_VISIBILITY_PRESET hidden)
endfunction()

# a/b/name_test.cpp -> a.b.name_test
function(kd_target_name path result)
  string(REGEX REPLACE "\\.cpp$" "" name "${path}")
  string(REPLACE "/" "." name "${name}")
  set(${result} "${name}" PARENT_SCOPE)
endfunction()
