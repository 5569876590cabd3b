# Stands for CMake's own where GOCOR_FAKE_GPU is the folder of the built fakes.

include("${CMAKE_CURRENT_LIST_DIR}/cuda_headers.cmake")
if(NOT TARGET CUDA::cudart)
    add_library(CUDA::cudart SHARED IMPORTED GLOBAL)
    set_target_properties(CUDA::cudart PROPERTIES IMPORTED_LOCATION "${GOCOR_FAKE_GPU}/libcudart.so")
    target_include_directories(CUDA::cudart INTERFACE ${CUDA_HEADERS})
endif()
set(CUDAToolkit_FOUND TRUE)
