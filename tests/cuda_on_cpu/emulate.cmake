# CUDA kernels as C++ for the CPU (README.md). Included where SCD_CUDA is EMULATED.
set(emulation "${CMAKE_SOURCE_DIR}/tests/cuda_on_cpu")
set(translated_folder "${CMAKE_BINARY_DIR}/cuda_on_cpu")
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# scd_emulate_cuda(target file...): compiles CUDA sources into the target; headers among them are translated as well.
function(scd_emulate_cuda target)
  file(RELATIVE_PATH folder "${CMAKE_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}")
  foreach(file ${ARGN})
    set(translated "${translated_folder}/${folder}/${file}")
    if(file MATCHES "\\.cu$")
      string(APPEND translated ".cpp")
    endif()
    add_custom_command(OUTPUT "${translated}"
      COMMAND Python3::Interpreter "${emulation}/translate.py" "${CMAKE_CURRENT_SOURCE_DIR}/${file}" "${translated}"
      DEPENDS "${emulation}/translate.py" "${CMAKE_CURRENT_SOURCE_DIR}/${file}" VERBATIM)
    target_sources(${target} PRIVATE "${translated}")
    # nvcc's warnings are the ones that count for these.
    set_source_files_properties("${translated}" PROPERTIES COMPILE_OPTIONS "-w")
  endforeach()
  target_include_directories(${target} BEFORE PRIVATE "${emulation}/include" "${translated_folder}")
  # Loaded with the program, they are what dlopen() of their names gives back.
  get_property(libraries GLOBAL PROPERTY cuda_on_cpu_libraries)
  target_link_libraries(${target} PRIVATE cuda_on_cpu -Wl,--push-state,--no-as-needed ${libraries} -Wl,--pop-state)
endfunction()

# scd_emulated_library(name version SOURCES ... DEPENDS ...): a library of the toolkit that is opened at run time as
# lib<name>.so.<version>.
function(scd_emulated_library name version)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  list(TRANSFORM ARG_SOURCES PREPEND "${emulation}/")
  add_library(${name} SHARED ${ARG_SOURCES})
  scd_compile_settings(${name})
  target_include_directories(${name} BEFORE PUBLIC "${emulation}/include")
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS})
  set_target_properties(${name} PROPERTIES SOVERSION ${version} LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
  if(NOT name STREQUAL "cuda_on_cpu")
    target_link_libraries(${name} PRIVATE cuda_on_cpu)
    set_property(GLOBAL APPEND PROPERTY cuda_on_cpu_libraries ${name})
  endif()
endfunction()

scd_emulated_library(cuda_on_cpu 13 SOURCES block.cpp device_memory.cpp fiber.cpp queue.cpp runtime.cpp tensor_core.cpp)
scd_emulated_library(cublas 13 SOURCES cublas.cpp DEPENDS BLAS::BLAS)
scd_emulated_library(cublasLt 13 SOURCES cublas_lt.cpp DEPENDS BLAS::BLAS)
scd_emulated_library(cusolver 12 SOURCES cusolver.cpp DEPENDS LAPACKE::lapacke)
