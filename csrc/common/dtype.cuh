// common/dtype.cuh: from a runtime dtype to the device's type.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "hostdev.h"

namespace lmx {
// f(T{}) for the device's type of a dtype.
template <typename F>
void visit_cuda_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::f16: return f(__half{});
    case DType::bf16: return f(__nv_bfloat16{});
  }
}
}  // namespace lmx
