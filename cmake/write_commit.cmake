# Run at every build: OUTPUT defines build_commit() of tools/scd/report.h; touched only when the commit changed.
execute_process(COMMAND git -C "${SOURCE_DIR}" describe --always --dirty --abbrev=12 --exclude=*
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed AND NOT "$ENV{SCD_COMMIT}" STREQUAL "")
  set(commit "$ENV{SCD_COMMIT}")  # a copy of the sources without their repository
elseif(failed)
  set(commit unknown)
endif()
set(text "#include <string>\n\nnamespace scd {\n\nstd::string build_commit();\nstd::string build_commit() { return \"${commit}\"; }\n\n}  // namespace scd\n")
set(before "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" before)
endif()
if(NOT text STREQUAL before)
  file(WRITE "${OUTPUT}" "${text}")
endif()
