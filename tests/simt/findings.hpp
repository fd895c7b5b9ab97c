/// What the race build finds, and the places in the source. Internal to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "simt.hpp"

namespace simt {

/// Notes something about the access of the current thread from `code`; equal ones are counted. `other` is the place of
/// the access that it collides with, 0 for none.
void add_finding(fault kind, std::uint32_t code, std::uint32_t other, std::string what);
void clear_findings();
/// Throws what was found, if anything.
void throw_findings();
/// Keeps an error for the next call that synchronises: the host read or wrote device memory.
void report_host_access(bool write, std::uint32_t code);

/// Where the executable lies.
std::uintptr_t image_begin();
/// "file:line" of a return address relative to image_begin(), with the place that it was inlined into.
std::string source_place(std::uint32_t code);
/// Whether the bytes lie in one variable of the executable's thread_local segment.
bool in_static_variable(std::size_t offset, std::size_t bytes);

}  // namespace simt
