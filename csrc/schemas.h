// The operators' schemas, for the library that registers them and for what stands in for a missing device.
#pragma once

namespace cdkd {

extern const char* const kSchemas[];  // a null ends them

}  // namespace cdkd
