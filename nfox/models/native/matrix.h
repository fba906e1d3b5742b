// The weights of a product, and what its rows are.
#pragma once

#include "vectors.h"

constexpr int MOST_BLOCKS = 4;  // of LANES outputs that are computed at once
constexpr int GROUP = 32;       // inputs that have one scale

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

// What a product multiplies weights with: factors, or integers.
struct Operands {
    const Factor* factors;  // [count][inputs / 2 * PARTS]
    int count;
    const uint32_t* integers;    // words of 2 or 4 of them, in tiles of rows [inputs / 32][rows][32]
    const uint32_t* remainders;  // likewise, in 256ths of the unit of the integers
    const uint8_t* has_remainders;  // of tiles [inputs / 32][rows]: whether they are not all 0
    const float* scales;            // of integers: likewise
    const float* sums;              // of integers and remainders: likewise, all of a group summed
};

struct Range {
    int begin, end;
};

inline Range share(int count, int thread, int threads) {
    return {(int)((int64_t)count * thread / threads), (int)((int64_t)count * (thread + 1) / threads)};
}
