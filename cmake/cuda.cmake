# The CUDA kernels of _ops, and the same kernels compiled for the CPU. Sets cuda_version, empty without nvcc.
# Whether torch has CUDA plays no part: its headers have all that is needed, and the library loads under both.
file(GLOB cuda_kernels CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/csrc csrc/ops/*/*.cu)
file(GLOB cuda_registrations CONFIGURE_DEPENDS csrc/ops/*/cuda.cpp)

set(cuda_version "")
if(NOT CDKD_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(nvcc nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(nvcc)
      set(CMAKE_CUDA_COMPILER ${nvcc})
    endif()
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(cuda_version ${CMAKE_CUDA_COMPILER_VERSION})
  elseif(CDKD_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CDKD_CUDA=ON, but no CUDA compiler works: install the CUDA toolkit, or set CUDACXX to nvcc")
  endif()
endif()
message(STATUS "CUDA kernels: ${CDKD_CUDA}, nvcc ${cuda_version} for ${CMAKE_CUDA_ARCHITECTURES}")

if(cuda_version)
  list(TRANSFORM cuda_kernels PREPEND csrc/ OUTPUT_VARIABLE cuda_sources)
  target_sources(_ops PRIVATE ${cuda_sources} ${cuda_registrations})
  target_include_directories(_ops PRIVATE csrc/cuda/include)
  target_include_directories(_ops SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(_ops PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    --expt-relaxed-constexpr --threads=2 --compress-mode=size -Xcompiler=-Wall,-Wextra
    $<$<BOOL:${CDKD_WERROR}>:-Werror=all-warnings -Xcompiler=-Werror>>)
  set_target_properties(_ops PROPERTIES
    CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
else()
  target_sources(_ops PRIVATE csrc/cuda/not_built.cpp)
endif()

# fibers need Linux; `cdkd info --launch-plan` runs the kernels here
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  file(GLOB emulation CONFIGURE_DEPENDS csrc/emulation/*.cpp)
  add_library(_cuda_emulation MODULE ${emulation})
  foreach(kernel IN LISTS cuda_kernels)
    set(source ${CMAKE_CURRENT_BINARY_DIR}/emulation/${kernel}.cpp)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${kernel}\"\n")
    target_sources(_cuda_emulation PRIVATE ${source})
  endforeach()
  target_compile_features(_cuda_emulation PRIVATE cxx_std_17)
  target_include_directories(_cuda_emulation PRIVATE csrc csrc/emulation/include)
  target_compile_options(_cuda_emulation PRIVATE
    -O2 -fno-math-errno -fno-trapping-math -Wall -Wextra $<$<BOOL:${CDKD_WERROR}>:-Werror>
    -ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/=)
  set_target_properties(_cuda_emulation PROPERTIES PREFIX "" CXX_VISIBILITY_PRESET hidden)
  install(TARGETS _cuda_emulation LIBRARY DESTINATION cdkd_ext)
endif()
