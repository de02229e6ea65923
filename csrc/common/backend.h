// common/backend.h: torch side only. All that differs between the backends of a bind.cpp, which is
// compiled once for each: with LMX_BACKEND_CPU into _C, LMX_BACKEND_CUDA into liblmx_cuda, and
// LMX_BACKEND_SIMT (the CUDA kernels on CPU tensors, tests only) into liblmx_simt.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "checks.h"

namespace lmx {
#if defined(LMX_BACKEND_CPU)
constexpr bool kOnDevice = false;  // kernels follow one another on a device, by way of its memory
#else
constexpr bool kOnDevice = true;
#endif
}  // namespace lmx

#if defined(LMX_BACKEND_CPU)
#define LMX_REGISTER(m) STABLE_TORCH_LIBRARY_IMPL(lmx, CPU, m)
#define LMX_KERNEL(name) name##_cpu
namespace lmx {
struct Call {
  explicit Call(const Tensor&) {}
  template <typename P>
  void run(void (*kernel)(const P&), const P& params) const {
    kernel(params);
  }
};
}  // namespace lmx

#elif defined(LMX_BACKEND_CUDA)
#include <torch/csrc/stable/accelerator.h>
#define LMX_REGISTER(m) STABLE_TORCH_LIBRARY_IMPL(lmx, CUDA, m)
#define LMX_KERNEL(name) name##_cuda
struct CUstream_st;
// Declared here because torch hides it behind USE_CUDA; undefined in a CPU-only torch, found in
// libtorch_cuda.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
namespace lmx {
class Call {  // the tensor's device is current, and kernels go to its current stream, while this
              // lives
 public:
  explicit Call(const Tensor& t) : guard_(t.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream_));
  }
  template <typename P>
  void run(void (*kernel)(const P&, CUstream_st*), const P& params) const {
    kernel(params, static_cast<CUstream_st*>(stream_));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};
}  // namespace lmx

#elif defined(LMX_BACKEND_SIMT)
#define LMX_REGISTER(m) STABLE_TORCH_LIBRARY_IMPL(lmx_simt, CPU, m)
#define LMX_KERNEL(name) name##_cuda
struct CUstream_st;
namespace simt {
void expose(const void* begin, size_t bytes, bool writable);
void expose_fresh(const void* begin, size_t bytes);
void clear_exposed();
}  // namespace simt
namespace lmx {
struct Call {
  explicit Call(const Tensor&) {}
  Call(const Call&) = delete;
  ~Call() { simt::clear_exposed(); }
  template <typename P>
  void run(void (*kernel)(const P&, CUstream_st*), const P& params) const {
    kernel(params, nullptr);
  }
};
}  // namespace lmx
#endif

namespace lmx {
// The kernel of an op's overload `no_status`: the op's own, with no status.
template <auto kernel>
void without_status(StableIValue* stack, uint64_t num_args, uint64_t num_outputs) {
  constexpr uint64_t kMostArgs = 64;
  STD_TORCH_CHECK(num_args < kMostArgs && num_outputs <= kMostArgs, "lmx: too many arguments");
  StableIValue wide[kMostArgs];
  std::copy_n(stack, num_args, wide);
  wide[num_args] = torch::stable::detail::from(std::optional<Tensor>());
  kernel(wide, num_args + 1, num_outputs);
  std::copy_n(wide, num_outputs, stack);
}

// Registers an op that ends with `status` and writes to nothing else: both its overloads.
#define LMX_IMPL(m, op)        \
  m.impl(#op, TORCH_BOX(&op)); \
  m.impl(#op ".no_status", &lmx::without_status<TORCH_BOX(&op)>)

// A new contiguous tensor on the device of `like`. Not torch::stable::new_empty: it looks its
// operator up by name at every call, which takes longer than the allocation.
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes,
                         ScalarType type) {
  int64_t strides[4], stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= std::max<int64_t>(sizes.begin()[d], 1);
  }
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const auto dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(),
                                                  strides, dtype, device_type, device_index,
                                                  &handle));
  return Tensor(handle);
}

// in() and out() are the only ways from a tensor to a pointer, so that the harness knows what a
// kernel may touch. The bytes up to the last element are exposed, also of a strided view.
inline void* expose([[maybe_unused]] bool writable, const Tensor& t) {
#ifdef LMX_BACKEND_SIMT
  int64_t last = 0;
  for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
  if (t.numel() > 0) simt::expose(t.data_ptr(), (last + 1) * t.element_size(), writable);
#endif
  return t.data_ptr();
}
template <typename T = void>
const T* in(const Tensor& t) {
  return static_cast<const T*>(expose(false, t));
}
template <typename T = void>
const T* in(const std::optional<Tensor>& t) {
  return t ? in<T>(*t) : nullptr;
}
template <typename T = void>
T* out(const Tensor& t) {
  return static_cast<T*>(expose(true, t));
}
template <typename T = void>
T* out(const std::optional<Tensor>& t) {
  return t ? out<T>(*t) : nullptr;
}
// A tensor that the op has just allocated: the harness fails a kernel that reads it before writing
// it.
template <typename T>
T* fresh(const Tensor& t) {
#ifdef LMX_BACKEND_SIMT
  if (t.numel() > 0) simt::expose_fresh(t.data_ptr(), t.numel() * t.element_size());
#endif
  return static_cast<T*>(t.data_ptr());
}
}  // namespace lmx
