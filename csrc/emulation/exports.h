// What Python calls through ctypes: C functions for launchers, and the layout of the structs that they take.
#pragma once
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

#include "emulation/scheduler.h"

#define CDKD_EXPORT extern "C" __attribute__((visibility("default"), used))

namespace cdkd::emulation {

// Null, or what went wrong; valid until the next call.
template <class Launcher, class Call>
const char* run_launcher(Launcher launcher, const Call& call) {
  static std::string message;
  try {
    return launcher(call, nullptr) == 0 ? nullptr : last_refusal();
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

inline std::string field_text(const char* name, size_t offset, size_t size) {
  return std::string(" ") + name + ":" + std::to_string(offset) + ":" + std::to_string(size);
}

}  // namespace cdkd::emulation

// The macros below stand in a namespace in which the structs are known.
#define CDKD_EXPORT_LAUNCHER(name, Call)                           \
  CDKD_EXPORT inline const char* cdkd_##name(const Call* call) {   \
    return ::cdkd::emulation::run_launcher(&launch_##name, *call); \
  }

// Bytes of the workspace that the launcher wants.
#define CDKD_EXPORT_WORKSPACE(name, Call) \
  CDKD_EXPORT inline int64_t cdkd_##name##_workspace(const Call* call) { return name##_workspace(*call); }

// f(first, argument) for each argument after the first two, at most 64.
#define CDKD_PARENTHESES ()
#define CDKD_EXPAND(...) CDKD_EXPAND_2(CDKD_EXPAND_2(CDKD_EXPAND_2(CDKD_EXPAND_2(__VA_ARGS__))))
#define CDKD_EXPAND_2(...) CDKD_EXPAND_1(CDKD_EXPAND_1(CDKD_EXPAND_1(CDKD_EXPAND_1(__VA_ARGS__))))
#define CDKD_EXPAND_1(...) CDKD_EXPAND_0(CDKD_EXPAND_0(CDKD_EXPAND_0(CDKD_EXPAND_0(__VA_ARGS__))))
#define CDKD_EXPAND_0(...) __VA_ARGS__
#define CDKD_FOR_EACH(f, first, ...) __VA_OPT__(CDKD_EXPAND(CDKD_FOR_EACH_STEP(f, first, __VA_ARGS__)))
#define CDKD_FOR_EACH_STEP(f, first, argument, ...) \
  f(first, argument) __VA_OPT__(CDKD_FOR_EACH_AGAIN CDKD_PARENTHESES(f, first, __VA_ARGS__))
#define CDKD_FOR_EACH_AGAIN() CDKD_FOR_EACH_STEP

// "SIZE NAME:OFFSET:SIZE …" of a struct. All its fields must be named, or this does not compile.
#define CDKD_FIELD_TEXT(Struct, field) \
  +::cdkd::emulation::field_text(#field, offsetof(Struct, field), sizeof(Struct::field))
#define CDKD_EXPORT_FIELDS(Struct, ...)                                                     \
  CDKD_EXPORT inline const char* cdkd_layout_##Struct() {                                   \
    [[maybe_unused]] const auto all_are_named = [](const Struct& object) {                  \
      [[maybe_unused]] const auto& [__VA_ARGS__] = object;                                  \
    };                                                                                      \
    static const std::string text =                                                         \
        std::to_string(sizeof(Struct)) CDKD_FOR_EACH(CDKD_FIELD_TEXT, Struct, __VA_ARGS__); \
    return text.c_str();                                                                    \
  }
