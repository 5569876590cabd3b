// The library's readers of files and its resizing, alone: linked without a backend, to start in no time.
//
//   readers json|sha256            one document on stdin; its values or its hash on stdout
//   readers onnx                   an ONNX file on stdin: "ok" if it needs no other file, else why not
//   readers specs                  what it knows of the networks, as JSON
//   readers pillow|area SIZE NEW   resizes an image on stdin, of bytes, to stdout
//   readers flow SIZE UNIT IMAGE NEW   resizes a flow on stdin, of floats, to stdout
//   readers fuzz MANIFEST COUNT    damaged manifests, none of which may do more than be refused

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"
#include "json.h"
#include "manifest.h"
#include "onnx_file.h"
#include "resample.h"
#include "sha256.h"
#include "spec.h"

namespace {

void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

std::string read_all(std::istream& stream) { return {std::istreambuf_iterator<char>(stream), {}}; }

void print(const gocor::Json& value);

void print_string(const std::string& text) {
    std::putchar('"');
    for (const char character : text) {
        if (character == '"' || character == '\\') std::putchar('\\');
        if (static_cast<unsigned char>(character) < 0x20) {
            std::printf("\\u%04x", static_cast<unsigned>(character));
        } else {
            std::putchar(character);
        }
    }
    std::putchar('"');
}

void print_all(const gocor::Json& value) {
    for (std::size_t i = 0; i < value.values.size(); ++i) {
        if (i != 0) std::putchar(',');
        if (!value.names.empty()) {
            print_string(value.names[i]);
            std::putchar(':');
        }
        print(value.values[i]);
    }
}

void print(const gocor::Json& value) {
    switch (value.kind) {
        case gocor::Json::Kind::null: std::printf("null"); break;
        case gocor::Json::Kind::boolean: std::printf(value.boolean ? "true" : "false"); break;
        case gocor::Json::Kind::integer: std::printf("%lld", static_cast<long long>(value.integer)); break;
        case gocor::Json::Kind::number: std::printf("%.17e", value.number); break;
        case gocor::Json::Kind::string: print_string(value.string); break;
        case gocor::Json::Kind::array: std::putchar('['), print_all(value), std::putchar(']'); break;
        case gocor::Json::Kind::object: std::putchar('{'), print_all(value), std::putchar('}'); break;
    }
}

int json() {
    try {
        print(gocor::parse_json(read_all(std::cin)));
        return 0;
    } catch (const gocor::JsonError& error) {
        std::printf("%s", error.what());
        return 1;
    }
}

int onnx() {
    try {
        gocor::check_self_contained("stdin", read_all(std::cin));
    } catch (const gocor::Failure& failure) {
        std::printf("%s", gocor::one_line(failure.what()).c_str());
        return 1;
    }
    std::printf("ok");
    return 0;
}

int specs() {
    const char* comma = "";
    std::putchar('[');
    for (const gocor::NetworkSpec& spec : gocor::network_specs()) {
        std::printf(R"(%s{"name": "%s", "flow_unit": %g, "flow_stride": %lld, "outputs": [)", comma, spec.name.c_str(),
                    static_cast<double>(spec.flow_unit), static_cast<long long>(spec.flow_stride));
        for (const std::string& name : spec.outputs) {
            std::printf("%s\"%s\"", name == spec.outputs.front() ? "" : ", ", name.c_str());
        }
        std::printf(R"(], "tensor_inputs": %zu, "working_sides": [)", spec.tensor_inputs().size());
        for (int side = 1; side <= 600; ++side) {
            std::printf("%s%lld", side == 1 ? "" : ", ", static_cast<long long>(spec.working_side(side)));
        }
        std::printf("]}");
        comma = ", ";
    }
    std::puts("]");
    return 0;
}

// "480x640"
gocor::Size size_of(const std::string& text) {
    const std::size_t cross = text.find('x');
    return {std::stoll(text.substr(0, cross)), std::stoll(text.substr(cross + 1))};
}

template <class T>
void write(const std::vector<T>& values) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

int resize(std::string_view filter, gocor::Size size, gocor::Size new_size) {
    const std::string image = read_all(std::cin);
    check(image.size() == 3 * size.pixels(), "as many bytes as the image has");
    std::unique_ptr<gocor::ImageResize> resize = std::make_unique<gocor::AreaResize>(size, new_size);
    if (filter == "pillow") resize = std::make_unique<gocor::PillowResize>(size, new_size);
    std::vector<std::uint8_t> out(3 * new_size.pixels()), again(out.size());
    (*resize)(reinterpret_cast<const std::uint8_t*>(image.data()), out.data());
    (*resize)(reinterpret_cast<const std::uint8_t*>(image.data()), again.data());
    check(out == again, "nothing is left of the image before");
    write(out);
    return 0;
}

int flow(gocor::Size size, float unit, gocor::Size image, gocor::Size new_size) {
    const std::string bytes = read_all(std::cin);
    std::vector<float> values(2 * size.pixels()), out(2 * new_size.pixels());
    check(bytes.size() == values.size() * sizeof(float), "as many floats as the flow has");
    std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(values.data()));
    gocor::resize_flow(values.data(), size, unit, image, out.data(), new_size);
    write(out);
    return 0;
}

void fuzz(const std::string& path, int count) {
    std::ifstream file(path + ".json", std::ios::binary);
    const std::string good = read_all(file);
    std::minstd_rand random(0);  // the same damage each time
    const auto below = [&random](std::size_t limit) { return random() % limit; };
    constexpr std::string_view PIECES = "{}[]\",:\\0-19.eE\n\x7f\xff u";
    int refused = 0;
    for (int i = 0; i < count; ++i) {
        std::string text = good;
        for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
            const std::size_t at = below(text.size());
            switch (below(4)) {
                case 0: text[at] = PIECES[below(PIECES.size())]; break;
                case 1: text.erase(at, 1 + below(20)); break;
                case 2: text.insert(at, text.substr(below(text.size()), below(30))); break;
                default: text.insert(at, 1 + below(100), PIECES[below(PIECES.size())]); break;
            }
            if (text.empty()) text = " ";
        }
        try {
            gocor::parse_manifest(text, path, "OpenVINO model");
        } catch (const gocor::Failure&) {
            ++refused;
        }
    }
    check(refused > count / 4, "damaged manifests are refused");
    std::printf("%d of %d refused\n", refused, count);
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view command = count > 1 ? arguments[1] : "";
    try {
        if (command == "json") return json();
        if (command == "onnx") return onnx();
        if (command == "specs") return specs();
        if (command == "flow" && count == 6) {
            return flow(size_of(arguments[2]), std::stof(arguments[3]), size_of(arguments[4]), size_of(arguments[5]));
        }
        if ((command == "pillow" || command == "area") && count == 4) {
            return resize(command, size_of(arguments[2]), size_of(arguments[3]));
        }
        if (command == "sha256") {
            const std::string data = read_all(std::cin);
            std::printf("%s", gocor::sha256(data.data(), data.size()).c_str());
        } else if (command == "fuzz" && count == 4) {
            fuzz(arguments[2], std::atoi(arguments[3]));
        } else {
            return 2;
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
