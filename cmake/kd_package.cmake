# The package: two include roots that merge on install, and a config file that finds OpenMP again with the compiler of
# whoever uses it, and CUDA where it is asked for. Nothing in it depends on the machine that installed it.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
include(kd_native)

add_library(kd_native INTERFACE)
add_library(kd::native ALIAS kd_native)
kd_link_native(kd_native)

set(kd_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/kd")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/kdConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)

# The build tree is a package as well: -Dkd_DIR=<build>.
set(kd_config_include_dirs "${kd_include_roots}")
configure_package_config_file(cmake/kdConfig.cmake.in "${PROJECT_BINARY_DIR}/kdConfig.cmake"
                              INSTALL_DESTINATION "${PROJECT_BINARY_DIR}" INSTALL_PREFIX "${PROJECT_BINARY_DIR}"
                              NO_CHECK_REQUIRED_COMPONENTS_MACRO)
set(kd_package_files kd_cuda_target.cmake kd_native.cmake)
foreach(file IN LISTS kd_package_files)
  configure_file("cmake/${file}" "${PROJECT_BINARY_DIR}/${file}" COPYONLY)
endforeach()

if(KD_INSTALL)
  # Resolved when the package is loaded, so that an installed tree may be moved.
  set(kd_config_include_dirs "\${PACKAGE_PREFIX_DIR}/${CMAKE_INSTALL_INCLUDEDIR}")
  if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(kd_config_include_dirs "${CMAKE_INSTALL_INCLUDEDIR}")
  endif()
  configure_package_config_file(cmake/kdConfig.cmake.in "${PROJECT_BINARY_DIR}/install/kdConfig.cmake"
                                INSTALL_DESTINATION "${kd_package_dir}" NO_CHECK_REQUIRED_COMPONENTS_MACRO)
  foreach(root IN LISTS kd_include_roots)
    install(DIRECTORY "${root}/kd" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
            FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
  endforeach()
  list(TRANSFORM kd_package_files PREPEND "${PROJECT_SOURCE_DIR}/cmake/")
  install(FILES "${PROJECT_BINARY_DIR}/install/kdConfig.cmake" "${PROJECT_BINARY_DIR}/kdConfigVersion.cmake"
                ${kd_package_files} DESTINATION "${kd_package_dir}")
  install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/kd")
endif()
