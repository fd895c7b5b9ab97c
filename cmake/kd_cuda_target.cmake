# Part of the build and of the installed package: what a program needs beside kd::kd to run kd on an NVIDIA GPU.

# Folders that may hold include/ and lib/ of NVIDIA's libraries: KD_CUDNN_ROOT first (also from the environment), the
# toolkit, and Python's nvidia packages beside them or beside the python3 on the path.
function(kd_cuda_roots result)
  set(roots ${KD_CUDNN_ROOT} $ENV{KD_CUDNN_ROOT} $ENV{CUDNN_PATH} $ENV{CUDNN_ROOT})
  foreach(folder IN LISTS CUDAToolkit_INCLUDE_DIRS CUDAToolkit_LIBRARY_DIR)
    # TOOLKIT/include and TOOLKIT/targets/MACHINE/include
    list(APPEND roots "${folder}/.." "${folder}/../../..")
  endforeach()
  set(python_packages "")
  foreach(root IN LISTS roots)
    list(APPEND python_packages "${root}/..")
  endforeach()
  find_program(KD_PYTHON python3)
  mark_as_advanced(KD_PYTHON)
  get_filename_component(prefix "${KD_PYTHON}" DIRECTORY)
  get_filename_component(prefix "${prefix}" DIRECTORY)
  file(GLOB found "${prefix}/lib/python3*/*-packages/nvidia" "/usr/local/lib/python3*/*-packages/nvidia"
                  "$ENV{VIRTUAL_ENV}/lib/python3*/site-packages/nvidia")
  foreach(folder IN LISTS python_packages found)
    # nvidia/cu13 holds what nvidia/cublas held before CUDA 13.
    file(GLOB beside "${folder}/cudnn" "${folder}/cublas" "${folder}/cu[0-9]*")
    list(APPEND roots ${beside})
  endforeach()
  set(${result} ${roots} /usr/local/cuda /usr/local PARENT_SCOPE)
endfunction()

# kd_find_cuda(result missing): finds the CUDA toolkit, cuBLASLt and cuDNN 9, each with its headers. `result` becomes TRUE
# or FALSE, `missing` says what was not found.
function(kd_find_cuda result missing)
  set(${result} FALSE PARENT_SCOPE)
  set(${missing} "" PARENT_SCOPE)
  find_package(CUDAToolkit QUIET)
  set(CUDAToolkit_VERSION "${CUDAToolkit_VERSION}" PARENT_SCOPE)
  if(NOT CUDAToolkit_FOUND OR CUDAToolkit_VERSION VERSION_LESS 12)
    set(${missing} "the CUDA toolkit, 12 or newer" PARENT_SCOPE)
    return()
  endif()
  string(REGEX MATCH "^[0-9]+" major "${CUDAToolkit_VERSION}")
  kd_cuda_roots(roots)
  set(include_folders include include/${CMAKE_LIBRARY_ARCHITECTURE})
  set(library_folders lib lib64 lib/x64 lib/${CMAKE_LIBRARY_ARCHITECTURE})
  # Python's packages hold libcudnn.so.9 without the link libcudnn.so.
  find_path(KD_CUBLASLT_INCLUDE cublasLt.h HINTS ${roots} PATH_SUFFIXES ${include_folders})
  find_library(KD_CUBLASLT_LIBRARY NAMES cublasLt libcublasLt.so.${major} HINTS ${roots} PATH_SUFFIXES ${library_folders})
  find_path(KD_CUDNN_INCLUDE cudnn_version.h HINTS ${roots} PATH_SUFFIXES ${include_folders})
  find_library(KD_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${roots} PATH_SUFFIXES ${library_folders})
  mark_as_advanced(KD_CUBLASLT_INCLUDE KD_CUBLASLT_LIBRARY KD_CUDNN_INCLUDE KD_CUDNN_LIBRARY)
  if(NOT KD_CUBLASLT_INCLUDE OR NOT KD_CUBLASLT_LIBRARY)
    set(${missing} "cuBLASLt of CUDA ${major}, its library or its header cublasLt.h" PARENT_SCOPE)
    return()
  endif()
  if(NOT KD_CUDNN_INCLUDE OR NOT KD_CUDNN_LIBRARY)
    set(${missing} "cuDNN 9 (KD_CUDNN_ROOT names the folder that holds its include/ and lib/)" PARENT_SCOPE)
    return()
  endif()
  file(STRINGS "${KD_CUDNN_INCLUDE}/cudnn_version.h" line REGEX "^#define CUDNN_MAJOR +[0-9]+")
  string(REGEX MATCH "[0-9]+$" version "${line}")
  if(NOT version OR version LESS 9)
    set(${missing} "cuDNN 9 (that in ${KD_CUDNN_INCLUDE} is version ${version})" PARENT_SCOPE)
    return()
  endif()
  set(${result} TRUE PARENT_SCOPE)
endfunction()

# kd_link_cuda(target): what kd_find_cuda found, as the interface of `target`. The CUDA runtime is not in it: whoever
# compiles for CUDA has it from the language, static or shared as CMAKE_CUDA_RUNTIME_LIBRARY says.
function(kd_link_cuda target)
  set_property(TARGET ${target} APPEND PROPERTY INTERFACE_LINK_LIBRARIES kd::kd "${KD_CUBLASLT_LIBRARY}"
                                                "${KD_CUDNN_LIBRARY}")
  foreach(folder IN ITEMS "${KD_CUBLASLT_INCLUDE}" "${KD_CUDNN_INCLUDE}")
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${folder}")
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${folder}")
  endforeach()
  # C++20: CMake 3.25.1 refuses cuda_std_20 with nvcc 13, and cxx_std_20 alone leaves nvcc at C++17 without a word.
  if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_COMPILE_FEATURES cuda_std_20)
  else()
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_COMPILE_OPTIONS "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>")
  endif()
  # OpenMP's target has its flag for C++ alone.
  if(TARGET OpenMP::OpenMP_CXX AND OpenMP_CXX_FLAGS)
    string(REPLACE " " "," flags "${OpenMP_CXX_FLAGS}")
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_COMPILE_OPTIONS
                                                  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${flags}>")
  endif()
endfunction()
