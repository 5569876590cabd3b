# CUDA_HEADERS: a toolkit's, or else those of pip's wheels.

set(NVIDIA_WHEELS "" CACHE PATH "site-packages/nvidia of a Python environment that has CUDA's headers")
find_path(CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_HOME /usr/local/cuda PATHS "${NVIDIA_WHEELS}"
          PATH_SUFFIXES include cuda_runtime/include cu13/include)
find_path(CUDA_CRT_INCLUDE_DIR crt/host_defines.h HINTS "${CUDA_INCLUDE_DIR}" PATHS "${NVIDIA_WHEELS}"
          PATH_SUFFIXES cuda_nvcc/include cu13/include)
set(CUDA_HEADERS "${CUDA_INCLUDE_DIR}" "${CUDA_CRT_INCLUDE_DIR}")
