// A look into an ONNX file before a library loads it: it must need no other file; see runtime/onnx_file.py.

#pragma once

#include <string>
#include <string_view>

namespace gocor {

// Refuses a model that takes weights or compiled code from anywhere else.
void check_self_contained(const std::string& path, std::string_view content);

}  // namespace gocor
