# Part of the build and of the installed package: kd::native, the flag that compiles for the processor of this machine.
# It is a target of its own and never part of kd::kd, since a program that has it may not run on another machine.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-march=native KD_MARCH_NATIVE_WORKS)

# kd_link_native(target): -march=native as the interface of `target`, where the compiler has it.
function(kd_link_native target)
  if(KD_MARCH_NATIVE_WORKS)
    set_property(TARGET ${target} PROPERTY INTERFACE_COMPILE_OPTIONS "$<$<COMPILE_LANGUAGE:CXX>:-march=native>"
                                           "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=native>")
  endif()
endfunction()
