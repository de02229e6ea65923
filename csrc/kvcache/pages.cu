// csrc/kvcache/pages.cu: CUDA side of pages.h. Memory bound: a page is read and written once. Host
// pages are pinned memory, which the kernel reaches over the bus: ids stay on the device, and the
// call can be captured in a graph.
#include "pages.h"

#include "../common/launch.h"

namespace lmx::kvcache {
namespace {
// ---- launch parameters: a block moves kPieces pieces a thread of one page ----------------
constexpr int kThreads = 256, kPieces = 4;
template <typename Piece>
constexpr int64_t kBlockBytes = int64_t{kThreads} * kPieces * sizeof(Piece);

// ---- kernel ---------------------------------------------------------------------------
template <typename Piece>
__global__ void __launch_bounds__(kThreads) pages_kernel(PagesParams p) {
  const int64_t blocks = ceil_div(p.page_bytes, kBlockBytes<Piece>);
  const int64_t i = blockIdx.x / blocks, first = blockIdx.x % blocks * kThreads * kPieces;
  const bool bad = bad_pair(p, i);
  if (bad && p.status && first == 0 && threadIdx.x == 0) p.status[i] |= kStatusBadPage;
  if (bad) return;
  const auto* from = reinterpret_cast<const Piece*>(p.from + from_at(p, i));
  auto* to = reinterpret_cast<Piece*>(p.to + to_at(p, i));
  const int64_t pieces = p.page_bytes / static_cast<int64_t>(sizeof(Piece));
  Piece piece[kPieces] = {};
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int64_t at = first + j * kThreads + threadIdx.x;
    if (at < pieces) piece[j] = from[at];
  }
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int64_t at = first + j * kThreads + threadIdx.x;
    if (at < pieces) to[at] = piece[j];
  }
}

// ---- launcher -------------------------------------------------------------------------
template <typename Piece>
void launch_pages(const PagesParams& p, cudaStream_t stream) {
  launch(pages_kernel<Piece>, p.count * ceil_div(p.page_bytes, kBlockBytes<Piece>), kThreads, 0,
         stream, p);
}

// The address that a kernel uses for host memory. Throws where the memory is not pinned.
template <typename T>
T* on_device(T* host, [[maybe_unused]] const char* op) {
#ifdef __CUDACC__
  void* device = nullptr;
  if (cudaHostGetDevicePointer(&device, const_cast<char*>(host), 0) != cudaSuccess) {
    cudaGetLastError();
    throw std::invalid_argument(std::string(op) + ": expected host_pages in pinned memory");
  }
  return static_cast<T*>(device);
#else
  return host;
#endif
}
}  // namespace

// ---- dispatch: pieces of 16, 4 and 1 bytes = 3 instantiations ----------------------------
void pages_cuda(const PagesParams& params, cudaStream_t stream) {
  PagesParams p = params;
  if (p.count == 0 || p.page_bytes == 0) return;
  if (p.from_host) p.from = on_device(p.from, p.op);
  if (p.to_host) p.to = on_device(p.to, p.op);
  const auto bits = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to) |
                    static_cast<uintptr_t>(p.from_stride | p.to_stride | p.page_bytes);
  if (bits % 16 == 0) return launch_pages<uint4>(p, stream);
  if (bits % 4 == 0) return launch_pages<uint32_t>(p, stream);
  launch_pages<uint8_t>(p, stream);
}
}  // namespace lmx::kvcache
