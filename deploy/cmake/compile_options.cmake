# Flags of every target of ours: warnings are errors, hardening is on, sanitizers on request.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
if(NG_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")  # builds in half the time; checks vanish in neither
else()
  set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
endif()

add_library(ng_options INTERFACE)
target_include_directories(ng_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(ng_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Werror
  # False alarms of GCC 12: in std::string, and in std::variant when a Json is moved.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  -ffp-contract=off -fstack-protector-strong -fstack-clash-protection)
target_compile_definitions(ng_options INTERFACE _GLIBCXX_ASSERTIONS NG_VERSION="${PROJECT_VERSION}")
if(NG_SANITIZE)
  add_compile_options(-fsanitize=${NG_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${NG_SANITIZE})
  target_compile_options(ng_options INTERFACE -Wno-maybe-uninitialized)  # false alarms of GCC 12 on std::variant
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(ng_options INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  add_link_options(-Wl,-z,relro,-z,now)
endif()

# ng_library(NAME LINK LIBS... PRIVATE LIBS... EXCEPT FILES...): a static library over the .cc files
# of this folder, those excepted that belong to another target.
function(ng_library name)
  cmake_parse_arguments(ARG "" "" "LINK;PRIVATE;EXCEPT" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(file IN ITEMS main.cc ${ARG_EXCEPT})
    list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  endforeach()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ng_options ${ARG_LINK} PRIVATE ${ARG_PRIVATE})
endfunction()
