# Everything a builder may choose. Presets (CMakePresets.json) are the documented way to set these.
option(SCD_BUILD_TESTS "Build the tests" ON)
option(SCD_SERVERS "The servers and what talks to them; OFF (the cuda-core preset): kernels, engine, codecs, the commands of scd that need no server, and their tests" ON)
option(SCD_WARNINGS_AS_ERRORS "Treat compiler warnings in our code as errors (the dev preset does)" OFF)
set(SCD_SANITIZER "" CACHE STRING "Sanitizers of the whole build: empty, 'address,undefined' or 'thread'")
option(SCD_STATIC "Packages linked statically: programs need only the C and C++ libraries and OpenMP's to start, and run on machines without the packages (the cuda-core preset)" OFF)
set(SCD_SGEMM "ONEDNN" CACHE STRING
    "Single-precision products on CPUs: ONEDNN, OPENBLAS, which calibration needs anyway (the cuda-core preset), or LOOPS (the tsan preset)")
set_property(CACHE SCD_SGEMM PROPERTY STRINGS ONEDNN OPENBLAS LOOPS)
if(SCD_STATIC AND (SCD_SERVERS OR SCD_SGEMM STREQUAL "ONEDNN"))
  message(FATAL_ERROR "SCD_STATIC=ON needs SCD_SERVERS=OFF and SCD_SGEMM=OPENBLAS or LOOPS: gRPC, UCX and oneDNN are shared libraries")
endif()
if(SCD_SERVERS AND SCD_SGEMM STREQUAL "OPENBLAS")  # the last bits of codes differ
  message(FATAL_ERROR "SCD_SGEMM=OPENBLAS needs SCD_SERVERS=OFF: the names of stored codes do not tell it from oneDNN")
endif()
set(SCD_ARCH "x86-64-v3" CACHE STRING
    "-march of x86 builds; kernels that need more (AVX-512, AMX) are chosen at run time")

set(SCD_CUDA "AUTO" CACHE STRING
    "CUDA kernels: AUTO (where nvcc is found), ON, OFF, or EMULATED on the CPU for tests (tests/cuda_on_cpu)")
set_property(CACHE SCD_CUDA PROPERTY STRINGS AUTO ON OFF EMULATED)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-march=${SCD_ARCH}>)
endif()
if(SCD_SANITIZER)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SCD_SANITIZER}> $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${SCD_SANITIZER})
endif()

find_program(SCD_CCACHE ccache)
if(SCD_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${SCD_CCACHE}")
endif()
