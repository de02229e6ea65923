// common/launch.h: the only way to start a kernel and to reach shared memory. Compiled by nvcc a
// launch is cudaLaunchKernelEx; compiled by g++ it runs on the SIMT harness in tests/simt.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "simt.h"
#endif

namespace lmx {

#ifdef __CUDACC__
inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the error is reported here; nobody shall find it again after a later call
  throw std::runtime_error(std::string("lmx: ") + what + ": " + cudaGetErrorString(error));
}
#endif

// How many blocks. A count that does not fit throws: as a dim3 it would silently lose its upper
// bits.
struct Grid {
  dim3 dim;
  Grid(dim3 d) : dim(d) {}
  Grid(int64_t blocks) : dim(static_cast<unsigned>(blocks)) {
    if (blocks < 0 || blocks > INT32_MAX)
      throw std::invalid_argument("lmx: a launch of " + std::to_string(blocks) +
                                  " blocks; a GPU takes at most 2147483647");
  }
};

// Starts kernel(args...) on `stream`. grid.x reaches 2^31-1, grid.y and grid.z stop at 65535.
// Shared memory: at most 99 KiB, what a block gets on every GPU since sm_80 (sm_86 and sm_89 have
// least); the harness refuses more, so an instance for Hopper alone that takes more has a plain
// sibling. Throws std::runtime_error if the launch is refused, an empty grid included.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), Grid grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args),
                "the kernel takes another number of arguments");
#ifdef __CUDACC__
  constexpr size_t kSharedWithoutAsking = 48 * 1024;
  if (shared_bytes > kSharedWithoutAsking) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               "raising the limit of shared memory");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid.dim;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), "kernel launch");
#else
  static_cast<void>(stream);
  simt::launch(grid.dim, block, shared_bytes, kernel, static_cast<Params>(args)...);
#endif
}

// The block's shared memory seen as a T, a plain struct without constructors. The same bytes at
// every call: a kernel that needs two views launches with the larger size and puts a barrier
// between them.
template <typename T>
__device__ __forceinline__ T& shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char lmx_shared[];
  return *reinterpret_cast<T*>(lmx_shared);
#else
  static_assert(alignof(T) <= 128);
  return *static_cast<T*>(simt::shared_memory(sizeof(T)));
#endif
}

}  // namespace lmx
