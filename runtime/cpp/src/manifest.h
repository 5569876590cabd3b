// What gocor build wrote beside a file that it made; see runtime/manifest.py.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.h"
#include "metadata.h"

namespace gocor {

// Facts about a built file, checked on the way in.
struct Manifest {
    std::string path;             // of the file
    std::string kind;             // what it is, in messages: "OpenVINO model", "engine"
    std::string options;          // of gocor build, that the file was built with
    std::string model;            // file name of the ONNX model that it was built from
    std::string library_version;  // of what built it
    std::vector<Tensor> inputs, outputs;
    Metadata metadata;
    Json values;  // everything

    // A member of few values.
    const std::string& one_of(const std::string& name, const std::vector<std::string>& known) const;
    const std::string& text(const std::string& name) const;
    bool flag(const std::string& name) const;
    std::vector<std::string> texts(const std::string& name) const;
    // What an engine of varying sizes was built for: least, usual and most, each batch, height and width. Empty of
    // others.
    std::vector<std::vector<std::int64_t>> shapes() const;

    // Bytes that are, one by one, those that were built: `name` is that of their SHA-256.
    void check_bytes(const std::string& file, const void* data, std::size_t size, const std::string& name) const;

    // The path of another file of its folder.
    std::string beside(const std::string& name) const;

    // The command that builds the file again.
    std::string rebuild() const;

    // Compares what the library found in the file with what the manifest says.
    void check_interface(const std::string& what, const std::vector<Tensor>& found,
                         const std::vector<Tensor>& expected) const;
};

// Reads `<path>.json`.
Manifest read_manifest(const std::string& path, const std::string& kind);

// Its text, read already.
Manifest parse_manifest(const std::string& text, const std::string& path, const std::string& kind);

// A word of a command, for a shell.
std::string quoted(const std::string& word);

// Numbers of "2026.4.1", for comparisons.
std::vector<std::int64_t> release(const std::string& version);

}  // namespace gocor
