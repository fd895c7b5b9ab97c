// Places in the source for addresses in the executable, and the static shared variables in it.
#define KD_SIMT_RUNTIME
#if defined(KD_SIMT_RACE)
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "findings.hpp"

namespace simt {

namespace {

std::string executable() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  return length <= 0 ? std::string() : std::string(path, static_cast<std::size_t>(length));
}

struct extent {
  std::size_t begin, end;
};

// From the symbol table: where each thread_local variable lies in its segment.
std::vector<extent> read_variables() {
  std::ifstream file(executable(), std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<extent> found;
  if (bytes.size() < sizeof(ElfW(Ehdr))) return found;
  const auto* head = reinterpret_cast<const ElfW(Ehdr)*>(bytes.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(bytes.data() + head->e_shoff);
  for (int i = 0; i < head->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(bytes.data() + sections[i].sh_offset);
    for (std::size_t s = 0; s < sections[i].sh_size / sizeof(ElfW(Sym)); ++s)
      if (ELF64_ST_TYPE(symbols[s].st_info) == STT_TLS && symbols[s].st_size != 0)
        found.push_back({symbols[s].st_value, symbols[s].st_value + symbols[s].st_size});
  }
  std::sort(found.begin(), found.end(), [](const extent& a, const extent& b) { return a.begin < b.begin; });
  return found;
}

}  // namespace

std::uintptr_t image_begin() {
  std::uintptr_t begin = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<std::uintptr_t*>(out) = info->dlpi_addr;
        return 1;
      },
      &begin);
  return begin;
}

bool in_static_variable(std::size_t offset, std::size_t bytes) {
  static const std::vector<extent> variables = read_variables();
  if (variables.empty()) return true;  // stripped
  static const extent* last = variables.data();
  if (last->begin <= offset && offset + bytes <= last->end) return true;
  const auto after = std::upper_bound(variables.begin(), variables.end(), offset,
                                      [](std::size_t o, const extent& e) { return o < e.begin; });
  if (after == variables.begin()) return false;
  last = &*std::prev(after);
  return offset + bytes <= last->end;
}

std::string source_place(std::uint32_t code) {
  char command[4400];
  // The call lies in front of its return address.
  std::snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%x 2>/dev/null", executable().c_str(), code - 1);
  std::vector<std::string> lines;
  if (std::FILE* output = popen(command, "r")) {
    char line[2048];
    while (std::fgets(line, sizeof line, output) != nullptr) {
      std::string one(line, std::strcspn(line, "\n"));
      if (const auto note = one.find(" (discriminator"); note != std::string::npos) one.resize(note);
      lines.push_back(one);
    }
    pclose(output);
  }
  if (lines.empty() || lines.front().substr(0, 2) == "??") {
    std::snprintf(command, sizeof command, "code 0x%x", code - 1);
    return command;
  }
  return lines.front() + (lines.size() > 1 ? " (in " + lines.back() + ")" : "");
}

}  // namespace simt
#endif
