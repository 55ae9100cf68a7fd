# ROS 2 from PyPI: the wheels' CMake exports name the include directories of the machine that built them, which CMake
# refuses ("includes non-existent path"). Point them at this Python and this NumPy instead, after the project has found
# its packages and before CMake checks them. Used as -DCMAKE_PROJECT_INCLUDE=<this file>; leaves an apt ROS as it is.

function(mobilevlm_mend_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_property(directories TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES)
    set(mended "")
    foreach(directory IN LISTS directories)
      if(EXISTS "${directory}" OR NOT directory MATCHES "^/opt/python/")
        list(APPEND mended "${directory}")
      elseif(directory MATCHES "/numpy/")
        list(APPEND mended "${MOBILEVLM_NUMPY_INCLUDE}")
      else()
        list(APPEND mended "${MOBILEVLM_PYTHON_INCLUDE}")
      endif()
    endforeach()
    if(NOT "${mended}" STREQUAL "${directories}")
      set_property(TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES ${mended})
    endif()
  endforeach()
endfunction()

find_program(MOBILEVLM_PYTHON NAMES "${Python3_EXECUTABLE}" python3)
execute_process(COMMAND ${MOBILEVLM_PYTHON} -c "import sysconfig; print(sysconfig.get_path('include'), end='')"
  OUTPUT_VARIABLE MOBILEVLM_PYTHON_INCLUDE)
execute_process(COMMAND ${MOBILEVLM_PYTHON} -c "import numpy; print(numpy.get_include(), end='')"
  OUTPUT_VARIABLE MOBILEVLM_NUMPY_INCLUDE)
cmake_language(DEFER CALL mobilevlm_mend_includes)
