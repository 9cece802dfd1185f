// From a tensor's format to the type by which a kernel reads it.
#pragma once
#include "cpu/rows.h"
#include "cpu/widen.h"

namespace cdkd::cpu {

// Call f(In{}) with the type of the elements.
template <class F>
void with_input_type(Format format, F f) {
  switch (format) {
    case Format::kFloat64:
      return f(double{});
    case Format::kFloat32:
      return f(float{});
    case Format::kBFloat16:
      return f(BFloat16{});
    case Format::kFloat16:
      return f(Float16{});
  }
}

}  // namespace cdkd::cpu
