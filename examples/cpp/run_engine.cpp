// Flow of an image pair with an engine of `gocor build`, in plain C++: TensorRT and the CUDA runtime, no more.
//
//   g++ -std=c++17 run_engine.cpp -I/usr/local/cuda/include -L/usr/local/cuda/lib64 -lnvinfer -lcudart -o run_engine
//   ./run_engine model.engine reference.rgb query.rgb flow.f32
//
// The engine is one of a model exported with `--io images --size 384x512`: it takes uint8 RGB (1, 384, 512, 3),
// interleaved as cameras give it, and gives float32 (1, 2, 384, 512): x, then y, in pixels. The .rgb files hold
// the bare pixels: `convert reference.png -depth 8 reference.rgb`. Unlike gocor this program does not look at the
// manifest beside the engine: load only engines that you built.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace {

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* text) noexcept override {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "%s\n", text);
    }
};

template <class T>
T check(T result, const char* what) {
    if (!result) {
        std::fprintf(stderr, "%s failed\n", what);
        std::exit(1);
    }
    return result;
}

void check_cuda(cudaError_t status) { check(status == cudaSuccess, cudaGetErrorString(status)); }

std::vector<char> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), path.c_str());
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 5) {
        std::fprintf(stderr, "usage: run_engine ENGINE REFERENCE QUERY FLOW\n");
        return 2;
    }
    Logger logger;
    const auto plan = read(arguments[1]);
    std::unique_ptr<nvinfer1::IRuntime> runtime(check(nvinfer1::createInferRuntime(logger), "TensorRT"));
    std::unique_ptr<nvinfer1::ICudaEngine> engine(
        check(runtime->deserializeCudaEngine(plan.data(), plan.size()), "loading the engine"));
    std::unique_ptr<nvinfer1::IExecutionContext> context(check(engine->createExecutionContext(), "GPU memory"));
    const nvinfer1::Dims shape = engine->getTensorShape("flow");  // (1, 2, height, width)
    check(shape.nbDims == 4 && shape.d[0] == 1 && shape.d[2] > 0 && shape.d[3] > 0, "one flow of a fixed size:");
    const auto pixels = static_cast<std::size_t>(shape.d[2] * shape.d[3]);

    cudaStream_t stream;
    check_cuda(cudaStreamCreate(&stream));
    std::vector<void*> inputs;
    for (const auto& [name, path] : {std::pair{"reference", arguments[2]}, std::pair{"query", arguments[3]}}) {
        const auto image = read(path);
        check(image.size() == 3 * pixels, "height * width * 3 bytes in each image:");
        void* memory = nullptr;
        check_cuda(cudaMalloc(&memory, image.size()));
        check_cuda(cudaMemcpy(memory, image.data(), image.size(), cudaMemcpyHostToDevice));
        check(context->setTensorAddress(name, memory), name);
        inputs.push_back(memory);
    }
    std::vector<float> flow(2 * pixels);
    void* output = nullptr;
    check_cuda(cudaMalloc(&output, flow.size() * sizeof(float)));
    check(context->setTensorAddress("flow", output), "flow");

    check(context->enqueueV3(stream), "running the engine");  // once for each pair: everything above stays
    check_cuda(cudaMemcpyAsync(flow.data(), output, flow.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
    check_cuda(cudaStreamSynchronize(stream));

    std::ofstream file(arguments[4], std::ios::binary);
    file.write(reinterpret_cast<const char*>(flow.data()), static_cast<std::streamsize>(flow.size() * sizeof(float)));
    check(file.flush().good(), arguments[4]);
    std::printf("flow of the first pixel: (%.2f, %.2f) px\n", flow[0], flow[pixels]);
    for (void* memory : inputs) cudaFree(memory);
    cudaFree(output);
    cudaStreamDestroy(stream);
}
