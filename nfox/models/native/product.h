// Products of rows with the weights of a matrix, by the threads of a forward.
#pragma once

#include "quantised.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace {

// Rows of one tile of a product, of 2 blocks and of 4: the sums stay in registers, of which there are 32
// with AVX-512 and 16 without it, beside a column of weights and the parts that it is multiplied in.
constexpr int ROWS_OF_2 = LANES < 16 ? 6 : 12;
constexpr int ROWS_OF_4 = LANES < 16 ? 2 : PARTS > 1 ? 5 : 6;
constexpr int MOST_SUMS = 2 * ROWS_OF_2;
constexpr int MANY_ROWS = LANES < 16 ? INT32_MAX : 18;  // up to which tiles have 2 blocks

inline int blocks_of(const Matrix& matrix) { return (matrix.outputs + LANES - 1) / LANES; }

// totals[r * BLOCKS + b] = the products of row r with the outputs of block b. Meanwhile FETCHES lines
// of what will be needed next are fetched for every pair of inputs.
template <int ROWS, int BLOCKS, int FETCHES>
void tile(const uint32_t* weights, size_t block_size, const Factor* rows, size_t row_size, int pairs,
          const uint32_t* next, Floats* totals) {
    Floats sums[ROWS][BLOCKS] = {};
    constexpr int TRIPLES = (ROWS + 2) / 3;  // a pointer for each row would be too many
    const Factor* first[TRIPLES];
    for (int i = 0; i < TRIPLES; i++) first[i] = rows + 3 * i * row_size;
    for (int pair = 0; pair < pairs; pair++) {
        Words column[BLOCKS];
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            column[b] = load<Words>(weights + b * block_size + (size_t)pair * LANES);
            if (ROWS == 3) keep_in_register(column[b]);  // GCC 12 loads it again for every row
        }
#pragma GCC unroll 4
        for (int i = 0; i < FETCHES; i++)
            __builtin_prefetch(next + ((size_t)pair * FETCHES + i) * LANES, 0, 2);
#pragma GCC unroll 2
        for (int part = 0; part < PARTS; part++)
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++)
                    sums[r][b] = add_products(sums[r][b], part_of(column[b], part),
                                              first[r / 3][r % 3 * row_size + part]);
#pragma GCC unroll 4
        for (int i = 0; i < TRIPLES; i++) first[i] += PARTS;
    }
    memcpy(totals, sums, sizeof sums);
}

using Tile = decltype(tile<1, 1, 0>);

// Tiles by their rows, from 1.
template <int BLOCKS, int FETCHES, size_t... ROWS>
constexpr std::array<Tile*, sizeof...(ROWS)> by_rows(std::index_sequence<ROWS...>) {
    return {tile<ROWS + 1, BLOCKS, FETCHES>...};
}
template <int BLOCKS, int FETCHES>
constexpr auto TILES =
    by_rows<BLOCKS, FETCHES>(std::make_index_sequence<(BLOCKS > 2 ? ROWS_OF_4 : ROWS_OF_2)>());

// By blocks and by the lines to fetch.
constexpr Tile* const* TILES_OF[MOST_BLOCKS + 1][MOST_BLOCKS + 1] = {
    {},
    {TILES<1, 0>.data()},
    {TILES<2, 0>.data(), TILES<2, 1>.data(), TILES<2, 2>.data()},
    {TILES<3, 0>.data()},
    {TILES<4, 0>.data(), TILES<4, 1>.data(), nullptr, nullptr, TILES<4, 4>.data()}};

// Calls use(row, block, totals) for every row and for `blocks` blocks of LANES outputs.
//
// The weights come from memory with the first tile and from the core's cache with the others. So
// that memory does not rest meanwhile, each tile fetches its share of the `next` panel, if there is one:
// 12 rows then take hardly more time than one.
template <class Use>
void panel(const uint32_t* weights, size_t block_size, int blocks, const Factor* rows, int pairs,
           int num_rows, const uint32_t* next, const Use& use) {
    const size_t row_size = (size_t)pairs * PARTS;
    // More rows than fit into a tile of 4 blocks are read with 2 blocks at once: with fewer tiles the
    // weights are read less often. But many rows are too large for a core's first cache, and are
    // read less often with 4 blocks.
    const bool is_narrow = num_rows > ROWS_OF_4 && num_rows <= MANY_ROWS;
    const int width = is_narrow ? 2 : MOST_BLOCKS, most = is_narrow ? ROWS_OF_2 : ROWS_OF_4;
    const int tiles = (num_rows + most - 1) / most;
    Floats totals[MOST_SUMS];
    for (int first = 0; first < blocks; first += width) {
        const int count = std::min(width, blocks - first);
        for (int t = 0; t < tiles; t++) {
            const Range range = share(num_rows, t, tiles), lines = share(width, t, tiles);
            const int fetches = next && count == width ? lines.end - lines.begin : 0;
            TILES_OF[count][fetches][range.end - range.begin - 1](
                weights + first * block_size, block_size, rows + range.begin * row_size, row_size,
                pairs, next + (size_t)(first + lines.begin) * pairs * LANES, totals);
            for (int row = range.begin; row < range.end; row++)
                for (int b = 0; b < count; b++)
                    use(row, first + b, totals[(row - range.begin) * count + b]);
        }
    }
}

const uint32_t* weights_of(const Matrix& matrix, int block) {
    return (const uint32_t*)matrix.weights + (size_t)block * matrix.inputs / 2 * LANES;
}

// Numbers of bfloat16 as what enters a product; floats are in memory of this thread, until it asks for
// others.
inline const Input* inputs_of(const uint16_t* numbers, size_t count) {
#if defined(__AVX512BF16__)
    return numbers;
#else
    static thread_local std::vector<float> inputs;
    const size_t whole = count / LANES * LANES;
    inputs.resize(whole + LANES);
    for (size_t i = 0; i < whole; i += LANES) store(&inputs[i], widened(numbers + i));
    uint16_t rest[LANES] = {};
    memcpy(rest, numbers + whole, (count - whole) * sizeof *numbers);
    store(&inputs[whole], widened(rest));
    return inputs.data();
#endif
}

// The rows of a product as its weights take them, which are integers already if those are quantised.
inline Operands operands_for(const Matrix& matrix, const Input* states, int num_rows,
                             const Integers& integers) {
    if (matrix.format != BFLOAT16) return integers.operands(num_rows);
    return {(const Factor*)states, num_rows};
}

// The same; the integers are written, in memory of this thread.
inline Operands operands_for(const Matrix& matrix, const Input* states, int num_rows) {
    static thread_local Integers integers;
    if (matrix.format != BFLOAT16) {
        integers.resize(matrix.inputs, num_rows);
        for (int row = 0; row < num_rows; row++)
            integers.write(matrix, num_rows, row, states + (size_t)row * matrix.inputs);
    }
    return operands_for(matrix, states, num_rows, integers);
}

// Calls use(row, first output, totals) for blocks [block, block + count) of a product's outputs.
// `next` is what will be multiplied next, in bfloat16.
template <class Use>
void products(const Matrix& matrix, int block, int count, const Operands& rows, const uint32_t* next,
              const Use& use) {
    const int pairs = matrix.inputs / 2;
    auto add_bias = [&](int row, int b, Floats totals) {
        const int output = (block + b) * LANES;
        if (matrix.bias) totals = totals + load<Floats>(matrix.bias + output);
        use(row, output, totals);
    };
    switch (matrix.format) {
        case INT8:
        case INT4: return quantised_panels(matrix, block, count, rows, add_bias);
        default:
            // Of one row the processor itself sees what comes next.
            panel(weights_of(matrix, block), (size_t)pairs * LANES, count, rows.factors, pairs,
                  rows.count, rows.count > 1 ? next : nullptr, add_bias);
    }
}

// Calls use(row, first output, totals) for this thread's share of a product's outputs.
template <class Use>
void multiply(const Matrix& matrix, const Operands& rows, int thread, int threads, const Use& use) {
    const Range range = share(blocks_of(matrix), thread, threads);
    for (int block = range.begin; block < range.end; block += MOST_BLOCKS)
        products(matrix, block, std::min(MOST_BLOCKS, range.end - block), rows,
                 weights_of(matrix, block + MOST_BLOCKS), use);
}

// Writes this thread's share of a product as floats [num_rows, outputs], `stride` from row to row.
void write_product(const Matrix& matrix, const Operands& rows, float* result, int stride, int thread,
                   int threads) {
    const int outputs = matrix.outputs;
    multiply(matrix, rows, thread, threads, [&](int row, int output, Floats totals) {
        float* place = result + (size_t)row * stride + output;
        if (output + LANES <= outputs) store(place, totals);
        else memcpy(place, &totals, sizeof(float) * (outputs - output));
    });
}

}  // namespace
