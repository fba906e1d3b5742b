// The weights of a product, and what its rows are.
#pragma once

#include "vectors.h"

namespace {

constexpr int MOST_BLOCKS = 4;  // of LANES outputs that are computed at once
constexpr int GROUP = 16;       // pairs of inputs that have one scale

enum Format { BFLOAT16, INT8, INT4 };

// W [outputs, inputs], in blocks of LANES outputs, which lie pair of inputs after pair of inputs.
// A quantised number is scale * integer + least, with one of both, in half precision, for 32 inputs of
// an output.
struct Matrix {
    const void* weights;     // [blocks][inputs / 2][LANES] pairs; of int4 [blocks][inputs / 8][LANES]
    const uint16_t* scales;  // [blocks][inputs / 32][LANES]; null where it is not quantised
    const uint16_t* least;   // likewise, of int4 alone
    const float* bias;       // [outputs]; null for none
    int32_t outputs, inputs, format;
};

// What a product multiplies weights with: factors, or pairs of integers.
struct Rows {
    const Factor* factors;  // [count][inputs / 2 * PARTS]
    const uint32_t* pairs;  // of 16 bits each, in tiles of rows [inputs / 32][rows][GROUP]
    int count;
    const float* scales;    // of integers: [inputs / 32][rows] of every tile
    const float* sums;      // of integers: likewise, all of a group summed
};

struct Range {
    int begin, end;
};

inline Range share(int count, int thread, int threads) {
    return {(int)((int64_t)count * thread / threads), (int)((int64_t)count * (thread + 1) / threads)};
}

}  // namespace
