/* Dense correspondences of image pairs, with the model files of gocor: a C interface.
 *
 *   gocor_estimator* estimator = NULL;
 *   if (gocor_create("model.xml", NULL, &estimator) != GOCOR_OK) puts(gocor_last_error());
 *
 * Every function may be called by any thread, and any number of threads may estimate with one estimator. No
 * exception leaves the library. C++ programs have gocor.hpp, which is this with exceptions and without release. */

#ifndef GOCOR_H
#define GOCOR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define GOCOR_API __attribute__((visibility("default")))
#else
#define GOCOR_API
#endif

#ifdef __cplusplus
#define GOCOR_NOEXCEPT noexcept
extern "C" {
#else
#define GOCOR_NOEXCEPT
#endif

typedef enum gocor_status {
    GOCOR_OK = 0,
    GOCOR_INVALID_ARGUMENT = 1, /* a null pointer, or a number that makes no sense */
    GOCOR_BAD_IMAGE = 2,        /* an image has no size, or another than the rest of its call */
    GOCOR_BAD_MODEL = 3,        /* a file is missing, damaged, not ours, or does not fit this machine */
    GOCOR_UNAVAILABLE = 4,      /* what was asked for is not in this build, or not there on this machine */
    GOCOR_FAILED = 5            /* the model failed while it ran, or memory ran out */
} gocor_status;

/* A loaded model. */
typedef struct gocor_estimator gocor_estimator;

/* How to load a model. Initialise it with GOCOR_OPTIONS_DEFAULT, then change what you need. */
typedef struct gocor_options {
    size_t struct_size;         /* sizeof(gocor_options): programs built with older headers go on working */
    int32_t threads;            /* of the CPU for one estimate; 0: one for each physical core */
    int32_t parallel;           /* estimates at a time, others wait; each takes memory of its own. 0: any number */
    const char* plugin_library; /* libgocor_plugins.so of an engine that needs it; NULL: the one beside the engine */
} gocor_options;

#define GOCOR_OPTIONS_DEFAULT {sizeof(gocor_options), 0, 0, NULL}

/* What a loaded model is. It lives as long as the estimator, and its strings, too. */
typedef struct gocor_info {
    int32_t height, width;     /* that images are resized to, pixels; if its sizes vary, those it is meant for most */
    int32_t batch;             /* pairs that it computes at once, likewise; estimates take any number */
    int32_t orientation_score; /* 1: the model says how well pairs fit as they are (GLU-Net family) */
    int32_t int8;              /* 1: parts of it compute with 8-bit numbers */
    const char* network;       /* "PWCNet_GOCor" */
    const char* backend;       /* "openvino", "onnxruntime" or "tensorrt" */
    const char* precision;     /* of its convolutions: "fp32", "fp16", which a CPU computes in fp32, or "bf16" */
    const char* gocor_version; /* that wrote the model */
} gocor_info;

typedef enum gocor_order { GOCOR_RGB = 0, GOCOR_BGR = 1 } gocor_order;

/* An image in the caller's memory, three bytes for each pixel. */
typedef struct gocor_image {
    const uint8_t* pixels; /* the first pixel of the first row */
    int32_t height, width;
    ptrdiff_t row_stride; /* bytes from one row to the next, negative if the last is first in memory; 0: no gaps */
    gocor_order order;
} gocor_image;

/* Loads a model: .xml for OpenVINO, .onnx for ONNX Runtime, .engine or .plan for TensorRT. The manifest that
 * gocor build wrote beside the file is checked first: nothing of a file is run that is not the one that was built.
 *
 *   options    NULL for the defaults
 *   estimator  where to put it; set to NULL if that fails */
GOCOR_API gocor_status gocor_create(const char* path, const gocor_options* options,
                                    gocor_estimator** estimator) GOCOR_NOEXCEPT;

/* What the model is; NULL of NULL. */
GOCOR_API const gocor_info* gocor_get_info(const gocor_estimator* estimator) GOCOR_NOEXCEPT;

/* Estimates the flow of `count` pairs of images, all of one size.
 *
 * That may be any: images of another size than the model's are resized by the network's own rule and their flow back,
 * as in Python, to the bit. Only a model exported for the size gives what the network's authors would get.
 *
 *   flow                float32 (count, 2, height, width) of the images, in pixels on the reference's grid,
 *                       channel 0 = x: reference(x) ≈ query(x + flow(x))
 *   flow_size           how many floats there is room for
 *   orientation_scores  float32 (count), or NULL; models without it leave it as it is
 *
 * After an error `flow` holds nothing of use. */
GOCOR_API gocor_status gocor_estimate(const gocor_estimator* estimator, const gocor_image* references,
                                      const gocor_image* queries, size_t count, float* flow, size_t flow_size,
                                      float* orientation_scores) GOCOR_NOEXCEPT;

/* Enqueues an estimate of one batch on a CUDA stream, with images and flow in the GPU's memory: engines only, of models
 * exported with --io images.
 *
 *   references, queries  uint8 RGB (batch, height, width, 3) without gaps, of the model's own size, on the GPU that was
 *                        current at gocor_create, at multiples of 256 bytes, as cudaMalloc gives them
 *   flow                 float32 (batch, 2, height, width) there, likewise
 *   stream               a cudaStream_t that is not being captured into a graph; NULL is the default stream
 *
 * It returns at once. Images must stay until the stream got that far; then the flow is there. */
GOCOR_API gocor_status gocor_enqueue(const gocor_estimator* estimator, const void* references, const void* queries,
                                     float* flow, void* stream) GOCOR_NOEXCEPT;

/* Gives the model's memory back; NULL is fine. No other call with this estimator may still run or come later. */
GOCOR_API void gocor_release(gocor_estimator* estimator) GOCOR_NOEXCEPT;

/* One line on why the last call of this thread failed, until its next call; "" if it did not. */
GOCOR_API const char* gocor_last_error(void) GOCOR_NOEXCEPT;

/* Version of the library, and its backends: "0.1.0 openvino onnxruntime". */
GOCOR_API const char* gocor_version(void) GOCOR_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
