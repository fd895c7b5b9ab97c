// The smallest program that uses an installed kd.
#include <cstdio>

#include <kd/core/random.hpp>

int main() {
  const auto words = kd::random_at(2026, kd::random_stream::shuffle, 0);
  std::printf("kd %s (%s): %u\n", kd::version, kd::instruction_set, words[0]);
}
