// The kernels as PTX, embedded in the library when it is built: native/embed_ptx.cmake writes the definition.

#pragma once

namespace gocor {

struct EmbeddedPtx {
    const char* kernel;  // entry point
    const char* text;
};

extern const EmbeddedPtx EMBEDDED_PTX[];  // the last one has no kernel

}  // namespace gocor
