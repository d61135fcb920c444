# One call per folder names its sources, headers and dependencies.

function(scd_compile_settings target)
  target_include_directories(${target} PUBLIC "${CMAKE_SOURCE_DIR}")
  # GCC 12 sees overlapping copies in std::string's operator+ where there are none (GCC bug 105651): -Wno-restrict.
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-restrict>)
  if(SCD_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

# scd_library(NAME name SOURCES ... HEADERS ... DEPENDS ... PRIVATE_DEPENDS ...)
function(scd_library)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;HEADERS;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${ARG_NAME} STATIC ${ARG_SOURCES} ${ARG_HEADERS})
    scd_compile_settings(${ARG_NAME})
    target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE_DEPENDS})
  else()
    add_library(${ARG_NAME} INTERFACE ${ARG_HEADERS})
    target_include_directories(${ARG_NAME} INTERFACE "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${ARG_NAME} INTERFACE ${ARG_DEPENDS})
  endif()
endfunction()

# scd_executable(NAME name SOURCES ... DEPENDS ...)
function(scd_executable)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  scd_compile_settings(${ARG_NAME})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPENDS})
endfunction()

# scd_test(NAME name LABEL unit|pair|e2e|golden|lint|fuzz SOURCES ... DEPENDS ...): one GoogleTest binary, one
# ctest entry a test. All binaries of a label are built by the target tests_<label>.
function(scd_test)
  cmake_parse_arguments(ARG "" "NAME;LABEL;TIMEOUT" "SOURCES;DEPENDS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(SCD_SANITIZER OR SCD_CUDA STREQUAL "EMULATED")
    math(EXPR ARG_TIMEOUT "5 * ${ARG_TIMEOUT}")
  endif()
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  scd_compile_settings(${ARG_NAME})
  target_compile_definitions(${ARG_NAME} PRIVATE SCD_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  if(NOT TARGET tests_${ARG_LABEL})
    add_custom_target(tests_${ARG_LABEL})
  endif()
  add_dependencies(tests_${ARG_LABEL} ${ARG_NAME})
  set_property(GLOBAL APPEND PROPERTY scd_tests ${ARG_NAME})
  gtest_discover_tests(${ARG_NAME} DISCOVERY_TIMEOUT 120
    WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}"
    PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT} SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]"
      # Several tests share the cores: threads that wait must not spin.
      ENVIRONMENT "OMP_WAIT_POLICY=PASSIVE")
endfunction()
