// Products with weights of 8 or 4 bits.
//
// The inputs become integers of 16 bits, with a power of two as the scale of each group of 32: their
// 8 bits of bfloat16 are kept but where others of the group are 2^7 times as large. So the sums of a
// group are exact, and take an instruction for a pair of inputs on every processor.
#pragma once

#include "matrix.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr int MOST_QUANTISED_ROWS = 6;  // of one tile: with 2 blocks 12 sums, of integers and of floats

struct Powers {
    float scale, inverse;
};

// The power of two that a group is divided by, by the bits of its largest number in bfloat16: this
// one becomes an integer from 2^14 to 2^15. What is smaller than 2^-100 is 0.
inline Powers powers_of(int bits) {
    if (bits >= 0x7f80) return {NAN, 0.0f};  // infinite, or no number
    const uint32_t exponent = (uint32_t)bits >> 7;
    if (exponent < 27) return {0.0f, 0.0f};
    const uint32_t parts[] = {(exponent - 14) << 23, (254 + 14 - exponent) << 23};
    Powers powers;
    memcpy(&powers, parts, sizeof powers);
    return powers;
}

inline int tiles_of(int num_rows) {
    return (num_rows + MOST_QUANTISED_ROWS - 1) / MOST_QUANTISED_ROWS;
}

// Writes a group as integers and returns their scale. That of a group with a number that is none is
// none.
inline float write_integers(const Input* group, int16_t* integers, float& sum_of_group) {
    Ints sizes{}, total{};  // sizes: their bits, which are in the order of the numbers
    for (int i = 0; i < 2 * GROUP; i += LANES) {
        const Ints part = sizes_of(group + i);
        sizes = part > sizes ? part : sizes;
    }
    const Powers powers = powers_of(largest(sizes));
    for (int i = 0; i < 2 * GROUP; i += LANES) {
        const Ints whole = rounded(widened(group + i) * powers.inverse);
        total = total + whole;
        store(integers + i, __builtin_convertvector(whole, Shorts));
    }
    sum_of_group = (float)sum(total);
    return powers.scale;
}

// Rows as integers, in memory of this thread, in the order in which tiles read them.
inline Rows as_integers(const Input* states, int inputs, int num_rows) {
    static thread_local std::vector<int16_t> integers;
    static thread_local std::vector<float> scales, sums;
    const int groups = inputs / (2 * GROUP), tiles = tiles_of(num_rows);
    const size_t count = (size_t)groups * num_rows;
    integers.resize(count * 2 * GROUP);
    scales.resize(count);
    sums.resize(count);
    size_t place = 0;
    for (int t = 0; t < tiles; t++) {
        const Range tile = share(num_rows, t, tiles);
        for (int group = 0; group < groups; group++)
            for (int row = tile.begin; row < tile.end; row++, place++)
                scales[place] =
                    write_integers(states + (size_t)row * inputs + group * 2 * GROUP,
                                   &integers[place * 2 * GROUP], sums[place]);
    }
    return {nullptr, (const uint32_t*)integers.data(), num_rows, scales.data(), sums.data()};
}

// How the weights of a block lie in memory, of which STEP pairs are multiplied in one go.
constexpr int STEP = 4, STEPS = GROUP / STEP;
constexpr int UNROLLED = LANES < 16 ? 1 : STEPS;  // with few registers more are spilled

struct Bytes {
    static constexpr bool HAS_LEAST = false;
    static constexpr int STEP_SIZE = 2 * STEP * LANES;

    static Words pair(const char* step, int i) {
        return from_bytes((const uint16_t*)step + i * LANES);
    }
};

struct Nibbles {
    static constexpr bool HAS_LEAST = true;
    static constexpr int STEP_SIZE = STEP * LANES;

    static Words pair(const char* step, int i) { return from_nibbles(load<Words>(step), i); }
};

// Sums of a tile: totals[r][b] = the products of row r with the outputs of block b. It is a function
// of its own, so that it is compiled once and not for every use of a product.
//
// Meanwhile this tile, number `turn` of `turns`, fetches its share of what follows the panel: so
// memory does not rest while the others find the weights in the core's cache.
template <int ROWS, int BLOCKS, class Weights>
__attribute__((noinline)) void quantised_tile(const Matrix& matrix, int block, const Rows& rows,
                                              int first, int turn, int turns,
                                              Floats (&totals)[ROWS][BLOCKS]) {
    constexpr int CHAINS = ROWS * BLOCKS <= 8 ? 2 : 1;  // an instruction waits for the one before it
    constexpr int PAIRS_OF_LINE = 64 * STEP / Weights::STEP_SIZE;  // of the cache
    constexpr int GROUP_SIZE = STEPS * Weights::STEP_SIZE;
    const int groups = matrix.inputs / (2 * GROUP);
    const size_t block_size = (size_t)groups * GROUP_SIZE;
    const char* panel = (const char*)matrix.weights + block * block_size;
    Floats sums[ROWS][BLOCKS] = {};
    for (int group = 0; group < groups; group++) {
        const size_t place = (size_t)groups * first + group * ROWS;
        const int fetched = (turn * groups + group) / turns;
        const uint32_t* given = rows.pairs + place * GROUP;
        const char* weights = panel + (size_t)group * GROUP_SIZE;
        const char* next = panel + BLOCKS * block_size + (size_t)fetched * GROUP_SIZE;
        Ints parts[ROWS][BLOCKS][CHAINS] = {};
#pragma GCC unroll UNROLLED
        for (int step = 0; step < STEPS; step++, given += STEP, weights += Weights::STEP_SIZE,
                 next += Weights::STEP_SIZE)
#pragma GCC unroll 4
            for (int i = 0; i < STEP; i++) {
                Words columns[BLOCKS];
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++)
                    columns[b] = Weights::pair(weights + b * block_size, i);
                if (i % PAIRS_OF_LINE == 0)
#pragma GCC unroll 4
                    for (int b = 0; b < BLOCKS; b++)
                        __builtin_prefetch(next + b * block_size + i * Weights::STEP_SIZE / STEP);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                    for (int b = 0; b < BLOCKS; b++) {
                        Ints& part = parts[r][b][i % CHAINS];
                        part = add_integers(part, columns[b], given[r * GROUP + i]);
                    }
            }
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            const size_t of_block = ((size_t)(block + b) * groups + group) * LANES;
            const size_t of_next = ((size_t)(block + BLOCKS + b) * groups + fetched) * LANES;
            const Floats scale = from_half_precision(matrix.scales + of_block);
            __builtin_prefetch(matrix.scales + of_next);
            Floats least{};
            if (Weights::HAS_LEAST) {
                least = from_half_precision(matrix.least + of_block);
                __builtin_prefetch(matrix.least + of_next);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                Ints whole = parts[r][b][0];
                if (CHAINS > 1) whole = whole + parts[r][b][CHAINS - 1];
                Floats part = __builtin_convertvector(whole, Floats) * scale;
                if (Weights::HAS_LEAST) part = least * rows.sums[place + r] + part;
                sums[r][b] = part * rows.scales[place + r] + sums[r][b];
            }
        }
    }
    memcpy(totals, sums, sizeof sums);
}

template <int BLOCKS, class Weights, class Use>
inline void quantised_panel(const Matrix& matrix, int block, const Rows& rows, const Use& use) {
    const int tiles = tiles_of(rows.count);
    for (int t = 0; t < tiles; t++) {
        const Range tile = share(rows.count, t, tiles);
        auto run = [&](auto constant) {
            constexpr int ROWS = decltype(constant)::value;
            Floats totals[ROWS][BLOCKS];
            quantised_tile<ROWS, BLOCKS, Weights>(matrix, block, rows, tile.begin, t, tiles, totals);
            for (int r = 0; r < ROWS; r++)
                for (int b = 0; b < BLOCKS; b++) use(tile.begin + r, b, totals[r][b]);
        };
        switch (tile.end - tile.begin) {
            case 1: run(std::integral_constant<int, 1>()); break;
            case 2: run(std::integral_constant<int, 2>()); break;
            case 3: run(std::integral_constant<int, 3>()); break;
            case 4: run(std::integral_constant<int, 4>()); break;
            case 5: run(std::integral_constant<int, 5>()); break;
            default: run(std::integral_constant<int, MOST_QUANTISED_ROWS>());
        }
    }
}

// Calls use(row, block, totals) for `count` blocks.
template <class Weights, class Use>
void quantised_panels(const Matrix& matrix, int block, int count, const Rows& rows, const Use& use) {
    for (int done = 0; done < count; done += 2) {
        auto shifted = [&, done](int row, int b, Floats totals) { use(row, done + b, totals); };
        if (count - done >= 2) quantised_panel<2, Weights>(matrix, block + done, rows, shifted);
        else quantised_panel<1, Weights>(matrix, block + done, rows, shifted);
    }
}

}  // namespace
