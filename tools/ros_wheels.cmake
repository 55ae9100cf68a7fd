# ROS 2 from PyPI: the wheels' CMake exports name the include directories of the machine that built them, which CMake
# refuses ("includes non-existent path"). Point them at this Python and this NumPy instead, after the project has found
# its packages and before CMake checks them. Used as -DCMAKE_PROJECT_INCLUDE=<this file>; does nothing to an apt ROS.

function(mobilevlm_mend_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_property(directories TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT "${directories}" MATCHES "(^|;)/opt/python/")
      continue()
    endif()
    set(mended "")
    foreach(directory IN LISTS directories)
      if(directory MATCHES "^/opt/python/.*/numpy/" AND NOT EXISTS "${directory}")
        list(APPEND mended ${MOBILEVLM_NUMPY_INCLUDE})
      elseif(directory MATCHES "^/opt/python/.*/include/python" AND NOT EXISTS "${directory}")
        list(APPEND mended ${MOBILEVLM_PYTHON_INCLUDE})
      else()
        list(APPEND mended "${directory}")
      endif()
    endforeach()
    set_property(TARGET ${target} PROPERTY INTERFACE_INCLUDE_DIRECTORIES ${mended})
  endforeach()
endfunction()

find_program(MOBILEVLM_PYTHON NAMES python3)
execute_process(COMMAND ${MOBILEVLM_PYTHON} -c "import sysconfig; print(sysconfig.get_path('include'), end='')"
  OUTPUT_VARIABLE MOBILEVLM_PYTHON_INCLUDE)
execute_process(COMMAND ${MOBILEVLM_PYTHON} -c "import numpy; print(numpy.get_include(), end='')"
  OUTPUT_VARIABLE MOBILEVLM_NUMPY_INCLUDE)
cmake_language(DEFER CALL mobilevlm_mend_includes)
