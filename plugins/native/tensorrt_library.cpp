// What the plugin library shows the world: TensorRT looks for these names when it loads the library.

#include <cstdio>

#include "native/tensorrt_plugin.h"

#define GOCOR_EXPORT extern "C" __attribute__((visibility("default")))
#define GOCOR_TEXT(number) GOCOR_TEXT_OF(number)
#define GOCOR_TEXT_OF(number) #number

namespace gocor::tensorrt {
namespace {

nvinfer1::ILoggerFinder* logger_finder = nullptr;

}  // namespace

void log_error(const Operator& described, const char* layer, const char* what) noexcept {
    try {
        const std::string message = "gocor: " + std::string(described.name) + " " + layer + ": " + what;
        nvinfer1::ILogger* logger = logger_finder != nullptr ? logger_finder->findLogger() : nullptr;
        if (logger != nullptr) {
            logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
        } else {
            std::fprintf(stderr, "%s\n", message.c_str());
        }
    } catch (...) {
        std::fputs("gocor: a plugin failed, and its message could not be logged\n", stderr);
    }
}

}  // namespace gocor::tensorrt

GOCOR_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { gocor::tensorrt::logger_finder = finder; }

GOCOR_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
    using namespace gocor::tensorrt;
    static Creator correlation(LOCAL_CORRELATION), transpose(LOCAL_CORRELATION_TRANSPOSE), fused(LOCAL_GOCOR);
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&correlation, &transpose, &fused};
    count = 3;
    return creators;
}

// What the library was built from, for `gocor build --plugin-library`.

GOCOR_EXPORT const char* gocor_plugins_version() { return GOCOR_VERSION; }

GOCOR_EXPORT const char* gocor_plugins_tensorrt_version() {
    return GOCOR_TEXT(NV_TENSORRT_MAJOR) "." GOCOR_TEXT(NV_TENSORRT_MINOR) "." GOCOR_TEXT(
        NV_TENSORRT_PATCH) "." GOCOR_TEXT(NV_TENSORRT_BUILD);
}
