// Encodes texts on demand, so that another program can alternate with other tokenizers
// (compare_tokenizers.py). One line out when loaded: "loaded SECONDS"; then for each line in, the
// number of a text, one line out: "TOKENS SECONDS". Seconds of CPU time.
#include <ctime>
#include <iostream>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/mapped_file.h"
#include "engine/model/gguf.h"
#include "engine/text/tokenizer.h"

namespace {

/// CPU time of this process, which other programs on the machine do not stretch.
double Now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace

int main(int argc, char** argv) {
  using neurogrid::Tokenizer;
  if (argc < 2) {
    std::cerr << "usage: tokenizer_bench FOLDER|FILE.gguf TEXT...\n";
    return 2;
  }
  const std::string path = argv[1];
  const double begin = Now();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer;
  if (path.ends_with(".gguf")) {
    const auto gguf = neurogrid::Gguf::Open(path);
    tokenizer = gguf.ok() ? Tokenizer::FromGguf(**gguf) : gguf.status();
  } else {
    tokenizer = Tokenizer::FromDirectory(path);
  }
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().message() << "\n";
    return 1;
  }
  std::cout << "loaded " << Now() - begin << std::endl;
  std::vector<neurogrid::PromptText> texts;
  for (int i = 2; i < argc; ++i) {
    texts.push_back({{neurogrid::ReadSmallFile(argv[i], size_t{1} << 30).value(),
                      neurogrid::Origin::kTemplate}});
  }
  for (size_t index; std::cin >> index && index < texts.size();) {
    const double start = Now();
    const auto ids = (*tokenizer)->Encode(texts[index], {});
    const double seconds = Now() - start;
    NG_CHECK(ids.ok());
    std::cout << ids->size() << " " << seconds << std::endl;
  }
  return 0;
}
