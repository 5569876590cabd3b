# Writes a C++ file with all the PTX of plugins/ptx: cmake -DFOLDER=plugins/ptx -DOUTPUT=embedded_ptx.cpp -P …
#
# Refuses PTX that index.json does not know, so that a library never has other kernels than the Python package.

cmake_minimum_required(VERSION 3.24)

file(READ "${FOLDER}/index.json" index)
string(JSON count LENGTH "${index}" variants)
math(EXPR last "${count} - 1")

set(entries "")
foreach(i RANGE ${last})
    string(JSON name MEMBER "${index}" variants ${i})
    string(JSON recorded GET "${index}" variants ${name})
    file(SHA256 "${FOLDER}/${name}.ptx" hash)
    if(NOT hash STREQUAL recorded)
        message(FATAL_ERROR "${FOLDER}/${name}.ptx is not the PTX of index.json; run: make ptx")
    endif()
    file(READ "${FOLDER}/${name}.ptx" text)
    string(APPEND entries "    {\"gocor_${name}\", R\"PTX(${text})PTX\"},\n")
endforeach()

file(WRITE "${OUTPUT}" "// Made by embed_ptx.cmake.

#include \"native/embedded_ptx.h\"

namespace gocor {

const EmbeddedPtx EMBEDDED_PTX[] = {
${entries}    {nullptr, nullptr},
};

}  // namespace gocor
")
