// What a bench measures, as its flags say it.
#pragma once

#include <string>

namespace neurogrid {

struct BenchOptions {
  std::string synthetic;  // built-in name or config.json; empty: a model
  // Lists of whole numbers; empty: what suits the device, as far as the model goes.
  std::string prompts;        // tokens of one prompt each
  std::string prompt_depths;  // tokens before theirs
  std::string depths;         // tokens before those that one sequence decodes
  std::string batches;        // sequences that decode together
  int batch_depth = -1;       // tokens before theirs; < 0: what suits the device
  int decode_tokens = 64;     // that a sequence decodes in a round
  int chunk_tokens = 8192;    // of a prompt in one step, at most
  int busy_threads = 0;       // that keep processors busy while every case runs once more
  int rounds = 5;
  bool json = false;
};

}  // namespace neurogrid
